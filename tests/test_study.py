"""The study of fusions runs end to end, resumes, and its tables say what its rows say.

No ordering of contenders is asserted anywhere.
"""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

STUDY = Path(__file__).parents[1] / "benchmarks" / "study"


@pytest.fixture(scope="module")
def modules():
    sys.path[:0] = [str(STUDY), str(STUDY.parent)]
    import run
    import settings
    import table

    yield run, settings, table
    for folder in (STUDY, STUDY.parent):
        sys.path.remove(str(folder))


def study(*options: str) -> str:
    done = subprocess.run([sys.executable, str(STUDY / "run.py"), *options], text=True,
                          capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SOME = ("gpoe", "mwb", "gwb ladder", "wb, amortised", "concatenated", "unimodal",
        "factor analysis", "probabilistic cca")
"""One of each sort: all 22 take three times as long, with --quick."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "quick.csv"
    study("--quick", "--jobs", "1", "--out", str(out), "--contenders", *SOME)
    return out


@pytest.mark.slow
def test_contenders_of_every_sort_finish_with_finite_measures(quick, modules):
    rows = pd.read_csv(quick).set_index("contender")
    assert set(rows.index) == set(SOME) and rows.index.is_unique
    assert np.isfinite(rows[["ll_per_feature", "r2_joint", "auc_cells", "auc_regional",
                             "z_beyond_1.96", "auc_latent", "auc_union"]]).all(axis=None)
    assert rows["r2_cross"].isna().tolist() == (rows.index == "unimodal").tolist()
    assert rows["z_beyond_1.96"].between(0.02, 0.10).all()  # calibrated, whatever was learned
    assert rows["ll_per_feature"].between(-2, -1).all()  # a standard normal has -1.42


@pytest.mark.slow
def test_a_second_start_has_nothing_left_to_do(quick):
    before = quick.read_bytes()
    assert "0 runs done, 0 failed" in study(
        "--quick", "--jobs", "1", "--out", str(quick), "--contenders", *SOME)
    assert quick.read_bytes() == before


def test_the_design_varies_one_factor_at_a_time(modules):
    _, settings, _ = modules
    found = list(settings.design(seeds=2))
    assert len(set(found)) == len(found) == 2 * (8 + 6)
    assert {s.missing for s in found} == {0.0, 0.3, 0.6}
    assert {s.latent for s in found} == {5, 10, 15, 20}
    second = [s for name, s in settings.runs(found, ["poe", "poe, amortised"]) if "," in name]
    assert len(second) == 2 * (3 + 3) and {s.latent for s in second} == {10}


@pytest.fixture
def made_up(modules):
    _, _, table = modules
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(6):
        people = rng.normal()  # shared by the contenders of a seed, as people are
        for name, better in (("factor analysis", 0.0), ("wb", 0.02)):
            row = {"data": "simulated", "n": 300, "missing": 0.0, "latent": 10, "seed": seed,
                   "contender": name, "n_healthy": 100, "n_patients": 50}
            row |= {m: people + better + 0.002 * rng.normal() for m in table.MEASURES}
            row |= {f"{what}_{kind}_0.05": 5 for what in ("flagged", "false")
                    for kind in ("latent", "regional", "union")}
            rows.append(row)
    return pd.DataFrame(rows)


def test_leads_are_paired_within_seeds(modules, made_up):
    _, _, table = modules
    lead = table.lead(made_up, "r2_joint", "wb", "factor analysis")
    assert lead.mean() == pytest.approx(0.02, abs=0.004) and lead.std() < 0.01
    assert table.marked(lead, 3).startswith("**+0.0")
    assert not table.marked(lead - lead.mean(), 3).startswith("**")


def test_ratios_pool_the_counts_of_all_seeds(modules, made_up):
    _, _, table = modules
    text = table.ratio_table(made_up, ["wb"])
    assert f"{(30.5 / 301) / (30.5 / 601):.2f} [" in text and "false 0.051" in text


def test_unfinished_seeds_do_not_count(modules, made_up):
    _, _, table = modules
    assert set(table.complete(made_up.iloc[:-1])["seed"]) == set(range(5))


def test_the_two_arms_are_completed_apart(modules, made_up):
    _, _, table = modules
    second = made_up[made_up["contender"] == "wb"].assign(contender="wb, amortised").iloc[:-2]
    kept = table.complete(pd.concat([made_up, second]))
    assert kept["contender"].value_counts().to_dict() == {
        "factor analysis": 6, "wb": 6, "wb, amortised": 4}
    text = table.sections(kept)
    assert text.index("refined posteriors") < text.index("amortised posteriors")
