"""Are a glioma's deviations largest where the tumour is? Real patients, simulated reference.

Two people with multiple sclerosis (MS) and one with a lower-grade glioma: T1w, T1c, T2w, FLAIR in
MNI space. No healthy people with these contrasts were at hand, so the reference is simulated
(`simulated_scans.py`; its tissue levels are those of the two with MS, outside their lesions). A
real scan looks odd beside it in ways that are no disease; so each patient is also compared with
the two others: z minus their mean z, of the same region or voxel.

Everything by the package's own verbs: `cohort.toml` with images divided by their white matter's
mode, one model of all voxels, z of two kinds, regions by `parcellate` on the atlas dk; and another
model of the regions' means. Then, of the absolute z: rank correlation with the share of the region
that is tumour, area under the ROC curve (AUC) for regions with more than a tenth of it, rank of
the region with most, AUC for voxels. `across` is the root mean square over the four contrasts.
Prints JSON; `--picture` draws.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from simulated_scans import CONTRASTS, Anatomy, tissue_levels, write_person
from sklearn.metrics import roc_auc_score

import normfuse as nf
from normfuse.analyses import parcellate
from normfuse.parcels import Parcels, region_table
from normfuse.volumes.sampling import sampled

DATA = (Path(__file__).parents[1] / ".." / "shared" / "data" / "images").resolve()
MASKS = {"openms07": "ms_mni2mm/openms07_lesions", "openms19": "ms_mni2mm/openms19_lesions",
         "tcgadu7294": "glioma_mni2mm/tcgadu7294_tumourseg"}
GLIOMA = "tcgadu7294"
KINDS = ("covariates", "focal")
LEAST = 5  # voxels a region must have at the resolution of the model
ILL = 0.1  # share of a region from which it counts as ill
ACROSS = "across"

TOML = """[subjects]
table = "participants.tsv"
[reference]
query = "group == 'simulated'"
"""
MODALITY = """[modalities.{0}]
images = "{{scans}}_{0}.nii.gz"
mask = "brain"
resolution = {1:g}
scaling = "white_matter"
unit = "white matter = 1"
"""


def load(name: str) -> np.ndarray:
    """A real file's values; all lie on the template's 2 mm grid."""
    import nibabel as nib

    return np.asarray(nib.load(DATA / f"{name}.nii.gz").dataobj, dtype=np.float32)


def write_study(folder: Path, n: int, resolution: float, seed: int, mm: int = 2) -> Path:
    """``cohort.toml`` of n simulated people (voxels of mm) and the patients; files there stay."""
    (folder / "scans").mkdir(parents=True, exist_ok=True)
    anatomy, ms = Anatomy.of_template(mm), [who for who in MASKS if who != GLIOMA]
    levels = tissue_levels({who: {c: load(f"ms_mni2mm/{who}_{c}") for c in CONTRASTS}
                            for who in ms}, {who: load(MASKS[who]) for who in ms},
                           Anatomy.of_template(2))
    rows = []
    for i in range(n):
        who = f"simulated{i:03d}"
        if not (folder / "scans" / f"{who}_{CONTRASTS[-1]}.nii.gz").exists():
            write_person(who, folder / "scans", levels, anatomy, np.random.default_rng([seed, i]))
        rows.append((who, "simulated", f"scans/{who}"))
    rows += [(who, "patient", (DATA / mask).with_name(who)) for who, mask in MASKS.items()]
    pd.DataFrame(rows, columns=["participant_id", "group", "scans"]).to_csv(
        folder / "participants.tsv", sep="\t", index=False)
    (folder / "cohort.toml").write_text(TOML + "".join(MODALITY.format(c, resolution)
                                                       for c in CONTRASTS))
    return folder / "cohort.toml"


def of_regions(cohort: nf.Cohort, atlas: nf.Atlas) -> nf.Cohort:
    """The same people, means of regions in the place of voxels."""
    blocks = cohort.features.as_is()
    frames = {m.name: region_table(blocks[m.name], Parcels.of(atlas, m.space, least=LEAST))
              for m in cohort.modalities}
    frames = {name: frame.dropna(axis=1, how="all") for name, frame in frames.items()}
    return nf.Cohort.from_frames(cohort.subjects, frames, covariates={},
                                 reference=cohort.reference,
                                 units=dict.fromkeys(frames, "white matter = 1"))


def scored(cohort: nf.Cohort, model: nf.NormativeModel) -> dict[str, nf.Deviations]:
    """z of each kind; the model is fitted on the simulated people."""
    model.fit(cohort.reference_subjects())
    return {kind: model.deviations(cohort, kind=kind) for kind in KINDS}


def patients_z(z: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Patient -> rows of features, columns of contrasts; alone, and beside the two others."""
    found = {}
    for who in MASKS:
        others = [other for other in MASKS if other != who]
        for arm, row in (("alone", z.loc[who]), ("beside", z.loc[who] - z.loc[others].mean())):
            table = row.unstack(0)[list(CONTRASTS)]
            table[ACROSS] = np.sqrt((table ** 2).mean(axis=1, skipna=False))
            found[f"{who} {arm}"] = table.reindex(z[CONTRASTS[0]].columns)
    return found


def shares(who: str, atlas: nf.Atlas, space: nf.Space) -> tuple[pd.Series, np.ndarray]:
    """Of each region (at 2 mm) and of each voxel of the model, how much is tumour or lesion."""
    fine = nf.volumes.template_space("brain", 2.0)
    ill = (load(MASKS[who]) > 0).astype(np.float32)
    labels = atlas.on(fine)
    by_label = pd.Series(ill[fine.mask]).groupby(labels).mean()
    named = atlas.regions["name"]
    return (pd.Series(by_label.reindex(named.index).to_numpy(), named.to_numpy()),
            sampled(ill, fine.affine, space, fwhm=max(space.voxel_size)))


def agreement(z: pd.DataFrame, share: pd.Series) -> pd.DataFrame:
    """How well |z| of regions, a column a contrast, says where the tumour is."""
    rows = {}
    for name in z:
        size = z[name].abs().dropna()
        truth = share.reindex(size.index).fillna(0)
        rows[name] = {
            "spearman": spearmanr(size, truth).statistic,
            "auc": auc(size.to_numpy(), truth.to_numpy() > ILL),
            "rank_of_most_covered": int(size.rank(ascending=False)[truth.idxmax()]),
            "n_ill": int((truth > ILL).sum()), "n": len(size)}
    return pd.DataFrame(rows).T


def auc(size: np.ndarray, ill: np.ndarray) -> float:
    """NaN if nothing is ill."""
    return float(roc_auc_score(ill, size)) if 0 < ill.sum() < len(ill) else float("nan")


def ranking(z: pd.DataFrame, share: pd.Series, by: str, top: int = 15) -> pd.DataFrame:
    """The regions with the largest |z| of one contrast."""
    table = z.assign(tumour=share.reindex(z.index).astype(float))
    table = table.rename_axis(index="region", columns=None)
    order = table[by].abs().sort_values(ascending=False).index[:top]
    return table.loc[order].round(2)


def study(folder: Path, n: int, resolution: float, seed: int) -> dict[str, object]:
    """All tables; ``"z"`` of voxels and of regions for the picture."""
    cohort, atlas = nf.Cohort.read(write_study(folder, n, resolution, seed)), nf.load_atlas("dk")
    space = cohort.modality("FLAIR").space
    truth = {who: shares(who, atlas, space) for who in MASKS}
    model = nf.NormativeModel(seed=seed, plan=nf.TrainingPlan(progress=False))
    voxels = scored(cohort, model)
    regions = {"mean z of voxels, judged": {
        kind: parcellate(found, atlas, least=LEAST).z for kind, found in voxels.items()}}
    regions["model of regions"] = {kind: found.z for kind, found
                                   in scored(of_regions(cohort, atlas), model).items()}
    rows, tables = [], {}
    for way, kinds in {"voxels": {k: d.z for k, d in voxels.items()}, **regions}.items():
        for kind, z in kinds.items():
            for arm, table in patients_z(z).items():
                who = arm.split()[0]
                tables[way, kind, arm] = table
                found = agreement(table, truth[who][0]) if way != "voxels" else pd.DataFrame(
                    {c: {"auc": auc(table[c].abs().fillna(0).to_numpy(), truth[who][1] > 0.5)}
                     for c in table}).T
                rows += [{"of": way, "kind": kind, "who": arm, "contrast": c, **row.round(3)}
                         for c, row in found.iterrows()]
    return {"agreement": pd.DataFrame(rows), "tables": tables, "truth": truth, "cohort": cohort}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=160, help="simulated healthy people")
    parser.add_argument("--resolution", type=float, default=4, help="mm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keeps the simulated images")
    parser.add_argument("--picture", type=Path, help="a PNG file to write")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    with tempfile.TemporaryDirectory() as place:
        found = study(asked.folder or Path(place), asked.people, asked.resolution, asked.seed)
    for of, rows in found["agreement"].groupby("of", sort=False):
        known = [row.dropna().to_dict() for _, row in rows.drop(columns="of").iterrows()]
        print(json.dumps({"of": of, "rows": known}, indent=1))
    for (way, kind, arm), table in found["tables"].items():
        if way != "voxels" and arm.startswith(GLIOMA):
            top = ranking(table, found["truth"][GLIOMA][0], "FLAIR")
            print(json.dumps({"of": way, "kind": kind, "who": arm, "top by FLAIR":
                              top.reset_index().to_dict("records")}, indent=1))
    if asked.picture:
        from real_images_picture import draw

        draw(found).savefig(asked.picture, dpi=110)


if __name__ == "__main__":
    main()
