"""From images to maps, voxel-wise groups and a report, by commands."""
from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from normfuse.analyses import VoxelComparison, VoxelFindings
from normfuse.cli import app
from normfuse.deviations import Deviations
from normfuse.testing import tiny_voxel_deviations


@pytest.mark.slow
def test_the_voxel_demo_ends_with_maps_and_a_report(tmp_path):
    out = tmp_path / "out"
    ran = CliRunner().invoke(app, ["demo", "--voxels", "--quick", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert ran.output.rstrip().endswith(f"open {out / 'report.html'}")
    found = Deviations.read(out / "deviations")
    assert found.is_stored and (found.subjects["group"] == "patient").sum() == 20
    calibration = found.select("normfuse_role == 'calibration'").z.to_numpy()
    assert 0.035 < np.nanmean(np.abs(calibration) > 1.96) < 0.065
    maps = sorted((out / "maps").glob("sub-*_desc-normfuse_stat-z_*.nii.gz"))
    img = nib.load(maps[0])
    subject, modality = maps[0].name.split("_")[0], maps[0].name.split("_")[-1].split(".")[0]
    values = found.space(modality).values(img)
    np.testing.assert_array_equal(values, found.select([subject]).blocks()[modality].iloc[0])
    assert json.loads((out / "voxel_groups/modalities.json").read_text()) == {
        "compared": ["t1", "dti", "pet"], "refused": {}}
    compared = VoxelComparison.read(out / "voxel_groups/t1")
    assert compared.maps["t"].shape == (found.space("t1").n_voxels,)
    assert not list(out.glob(".*"))
    regional = Deviations.read(out / "regions")
    assert not regional.is_stored and regional.space("t1") is None


def test_maps_of_regions_are_refused_with_the_way_out(tmp_path):
    from normfuse.testing import tiny_deviations

    tiny_deviations().save(tmp_path / "deviations")
    ran = CliRunner().invoke(app, ["maps", str(tmp_path / "deviations"), "--out",
                                   str(tmp_path / "maps")])
    assert ran.exit_code == 1 and "no modality of these deviations has voxels" in ran.output
    assert not (tmp_path / "maps").exists()


@pytest.fixture
def two_modalities(tmp_path):
    """PET of all patients and one control; site and scanner are both sites of the model."""
    made = tiny_voxel_deviations().with_controls()
    rng = np.random.default_rng(0)
    subjects = made.subjects.assign(site=rng.choice(["a", "b"], len(made)),
                                    scanner=rng.choice(["x", "y"], len(made)))

    def with_pet(table):
        pet = table.copy()
        pet.columns = pd.MultiIndex.from_tuples([("pet", f) for _, f in table.columns],
                                                names=table.columns.names)
        pet.iloc[7:] = np.nan
        return pd.concat([table, pet], axis=1)

    modalities = made.reference.modalities
    reference = replace(made.reference, modalities={**modalities, "pet": modalities["t1"]},
                        covariates={"site": {"kind": "site"}, "scanner": {"kind": "site"}})
    made.changed(z=with_pet(made.z), observed=with_pet(made.observed), reference=reference,
                 expected=with_pet(made.expected), subjects=subjects, controls=None
                 ).save(tmp_path / "deviations")

    def run(*words):
        return CliRunner().invoke(app, [
            "compare-voxels", str(tmp_path / "deviations"), "--group", "diagnosis",
            "--adjust", "none", "--permutations", "19", "--out", str(tmp_path / "out"), *words])

    return run


def test_a_modality_that_cannot_be_compared_does_not_cost_the_others(two_modalities, tmp_path):
    ran = two_modalities("--blocks", "none")
    assert ran.exit_code == 0, ran.output
    assert "pet was not compared: diagnosis CN has one person only" in ran.output
    assert "leave it out with --contrast" in ran.output
    noted = json.loads((tmp_path / "out/modalities.json").read_text())
    assert noted["compared"] == ["t1"] and "one person only" in noted["refused"]["pet"]
    assert {p.name for p in tmp_path.iterdir()} == {"deviations", "out"}
    shown = VoxelFindings.read(tmp_path / "out", None)
    assert list(shown.groups) == ["t1"] and shown.notes()[0].startswith("pet was not compared")
    again = two_modalities("--blocks", "none", "--modalities", "pet", "--overwrite")
    assert again.exit_code == 1 and "one person only" in again.output
    assert (tmp_path / "out/t1").exists()


def test_modalities_and_blocks_are_chosen_by_name(two_modalities, tmp_path):
    asked = two_modalities()
    assert asked.exit_code == 1 and "site, scanner as sites" in asked.output
    assert "--blocks site, or --blocks none" in asked.output
    unknown = two_modalities("--blocks", "none", "--modalities", "t1,fdg")
    assert unknown.exit_code == 1 and "no modality fdg of" in unknown.output
    column = two_modalities("--blocks", "ward")
    assert "blocks 'ward' is not a column" in column.output
    assert "Give --blocks none if" in column.output and "None" not in column.output
    ran = two_modalities("--blocks", "scanner", "--modalities", "t1")
    assert ran.exit_code == 0, ran.output
    assert "permutations within scanner" in VoxelComparison.read(tmp_path / "out/t1").correction
