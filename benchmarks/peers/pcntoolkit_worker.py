"""BLR and warped BLR of PCNtoolkit on a CSV; runs in .venv-pcn, where normfuse is not.

    python pcntoolkit_worker.py {blr,warped_blr} TABLE.csv OUT_FOLDER

The CSV has ``subject``, ``age``, ``sex``, ``site``, ``part`` (fit or test), then the responses. It
writes expected.csv, z.csv and log_density.csv of the test people, in the responses' own units, and
prints the CPU seconds of fitting and predicting (imports left out) as JSON.
"""
from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from pcntoolkit import BLR, BsplineBasisFunction, NormativeModel, NormData
from pcntoolkit.util.output import Output

COVARIATES = ["subject", "age", "sex", "site", "part"]


def template(kind: str) -> BLR:
    """Cubic B-spline of age, sex and site as fixed effects; sinh-arcsinh warp of the response."""
    warp = {"warp_name": "warpsinharcsinh", "warp_reparam": True} if kind == "warped_blr" else {}
    return BLR(name=kind, fixed_effect=True, n_iter=1000, tol=1e-8, optimizer="l-bfgs-b",
               l_bfgs_b_epsilon=0.1, l_bfgs_b_l=0.1, l_bfgs_b_norm="l2",
               basis_function_mean=BsplineBasisFunction(basis_column=0, nknots=5, degree=3),
               **warp)


def fitted(kind: str, data: NormData, folder: Path) -> NormativeModel:
    """What ``fit`` does without predicting the people of the fit, which nobody asked for here."""
    model = NormativeModel(template(kind), savemodel=False, evaluate_model=False,
                           saveresults=False, saveplots=False, save_dir=str(folder / "model"),
                           inscaler="standardize", outscaler="standardize")
    model.register_data_info(data)
    model.preprocess(data)
    for name in model.response_vars:
        x, batch, maps, y, _ = model.extract_data(data.sel({"response_vars": name}))
        model[name].fit(x, batch, maps, y)
    model.is_fitted = True
    model.postprocess(data)
    return model


def main(kind: str, path: str, folder: Path) -> None:
    warnings.filterwarnings("ignore")
    Output.set_show_messages(False)
    Output._show_warnings = False
    table = pd.read_csv(path, dtype={"subject": str, "sex": str, "site": str})
    responses = [c for c in table if c not in COVARIATES]
    parts = [NormData.from_dataframe(
        part, table[table["part"] == part].reset_index(drop=True), covariates=["age"],
        batch_effects=["sex", "site"], response_vars=responses, subject_ids="subject")
        for part in ("fit", "test")]
    start = time.process_time()
    model = fitted(kind, parts[0], folder)
    model.predict(parts[1])
    seconds = time.process_time() - start
    # its density is of the standardised response
    unit = {r: float(np.ravel(model.outscalers[r].s)[0]) for r in responses}
    found = {"expected": parts[1].Yhat, "z": parts[1].Z, "log_density": parts[1].logp}
    for name, values in found.items():
        out = pd.DataFrame({r: values.sel(response_vars=r).values - (
            np.log(unit[r]) if name == "log_density" else 0.0) for r in responses})
        out.insert(0, "subject", parts[1].subject_ids.values)
        out.to_csv(folder / f"{name}.csv", index=False)
    print("\n" + json.dumps({"cpu_seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
