"""What the report shows of voxels. How the pictures look has no witness; it was judged by eye."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from normfuse.analyses import (MaxT, VoxelComparison, VoxelFindings, VoxelTable, compare_voxels,
                               write_report)
from normfuse.errors import ComparisonError, ModelFileError
from normfuse.testing import tiny_deviations, tiny_voxel_deviations


@pytest.fixture(scope="module")
def found():
    """The first patients lack ten sd in a ball."""
    made = tiny_voxel_deviations()
    away = made.space("t1").coordinates() - (-30, -20, 0)
    made.z.loc[:, (away ** 2).sum(axis=1) < 14 ** 2] -= 10
    return replace(made, z=made.z.copy())


@pytest.fixture(scope="module")
def compared(found):
    return compare_voxels(VoxelTable.of(found, "t1"), "diagnosis", adjust=(),
                          contrast=("AD", "CN"), correction=MaxT(50, blocks=None, seed=0))


def test_groups_and_people_are_shown_voxel_by_voxel(found, compared, tmp_path):
    page = write_report(found, tmp_path / "report.html", n_subjects=1,
                        voxels=VoxelFindings({"t1": compared}, found)).read_text("utf-8")
    words = " ".join(page.split())
    assert f"{compared.significant().sum()} of 2828 voxels at p_fwe &lt; 0.05" in words
    assert "Red: more in AD than in CN" in words and "Peaks of what is significant" in words
    assert "voxel by voxel" in words and "stays significant among the voxels of one map" in words
    assert page.count('alt="t of the group difference') == 1
    assert page.count('alt="Deviations of one person') == 1
    peak = compared.table.iloc[0]
    assert f"{peak['x']:.0f}, {peak['y']:.0f}, {peak['z']:.0f}".replace("-", "−") in page


def test_it_is_read_from_the_folders_of_the_commands(found, compared, tmp_path):
    found.save(tmp_path / "deviations")
    (tmp_path / "groups").mkdir()
    compared.save(tmp_path / "groups" / "t1")
    (tmp_path / "groups" / "modalities.json").write_text(
        '{"compared": ["t1"], "refused": {"pet": "nobody has it"}}')
    read = VoxelFindings.read(tmp_path / "groups", tmp_path / "deviations")
    np.testing.assert_array_equal(read.groups["t1"].maps["t"], compared.maps["t"])
    assert isinstance(read.groups["t1"], VoxelComparison)
    assert read.notes()[0] == "pet was not compared: nobody has it"
    assert len(read.person(found.z.index[0], 4)) == 1 and not read.person("nobody", 4)
    assert VoxelFindings.read(None, None).contrasts() == []
    with pytest.raises(ModelFileError, match="compare-voxels. wrote"):
        VoxelFindings.read(tmp_path / "deviations", None)
    tiny_deviations().save(tmp_path / "regions")
    with pytest.raises(ComparisonError, match="no modality of .* has voxels"):
        VoxelFindings.read(None, tmp_path / "regions")


def test_notes_of_all_modalities_are_said_once(compared):
    other = replace(compared, notes=(*compared.notes, "left out 3 people"))
    both = VoxelFindings({"t1": compared, "pet": other})
    assert both.notes() == [*compared.notes, "pet: left out 3 people"]


def test_voxels_of_another_kind_are_refused(found, tmp_path):
    other = found.changed(reference=replace(found.reference, kind="covariates"))
    with pytest.raises(ComparisonError, match="map of voxels is of deviations of kind"):
        write_report(found, tmp_path / "report.html", voxels=VoxelFindings(deviations=other))
    assert not (tmp_path / "report.html").exists()
