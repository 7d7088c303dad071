"""From images to maps, voxel-wise groups and a report, by commands."""
from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from normfuse.analyses import VoxelComparison
from normfuse.cli import app
from normfuse.deviations import Deviations


@pytest.mark.slow
def test_the_voxel_demo_ends_with_maps_and_a_report(tmp_path):
    out = tmp_path / "out"
    ran = CliRunner().invoke(app, ["demo", "--voxels", "--quick", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert ran.output.rstrip().endswith(f"report: {out / 'report.html'}")
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
    assert ran.exit_code == 2 and "no modality of these deviations has voxels" in ran.output
    assert not (tmp_path / "maps").exists()
