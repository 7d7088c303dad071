"""What a comparison of voxels leaves on disk, and what becomes of one that is cut off.

Witness: the same comparison, uninterrupted. Pictures are looked at by people; here they only have
to be drawn.
"""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from normfuse.analyses import (ClusterMass, MaxT, OlsT, VoxelComparison, VoxelTable,
                               compare_voxels, overlap_voxels, voxel_table)
from normfuse.errors import ComparisonError, ModelFileError, OutputExistsError
from normfuse.space import Space
from normfuse.stored import StoredTable
from normfuse.testing import tiny_deviations

N = 60


def space() -> Space:
    mask = np.random.default_rng(5).random((31, 37, 29)) < 0.7
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = (-62, -94, -46)
    return Space(mask, affine, "MNI152NLin2009aSym")


def people() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return pd.DataFrame({"dx": ["AD"] * 22 + ["CN"] * (N - 22), "age": rng.normal(60, 9, N),
                         "site": rng.choice(["a", "b"], N)}, [f"s{i:02d}" for i in range(N)])


def z() -> np.ndarray:
    where, rng = space(), np.random.default_rng(0)
    made = rng.normal(size=(N, where.n_voxels)).astype(np.float32)
    made[:22, ((where.indices - [12, 17, 13])**2).sum(axis=1) < 20] -= 2
    made[:22, ((where.indices - [22, 9, 20])**2).sum(axis=1) < 9] += 2
    made[5, 300:900] = np.nan
    return made


@pytest.fixture(scope="module")
def found() -> VoxelComparison:
    y = z()
    y[:, 70:75] = 0
    return compare_voxels(VoxelTable(y, people(), space()), "dx", adjust=["age", "site"],
                          contrast=("AD", "CN"), correction=MaxT(99))


def same(one: VoxelComparison, other: VoxelComparison) -> None:
    """To the last bit."""
    assert list(one.maps) == list(other.maps)
    for name, map_ in one.maps.items():
        np.testing.assert_array_equal(other.maps[name], map_)
    pd.testing.assert_frame_equal(one.null, other.null, check_exact=True)


def test_saved_and_read_again(found, tmp_path):
    folder = found.save(tmp_path / "AD")
    again = VoxelComparison.read(folder)
    same(found, again)
    assert again.summary() == found.summary() and again.space == found.space
    assert (again.n, again.adjust, again.notes) == (found.n, found.adjust, found.notes)
    pd.testing.assert_frame_equal(again.table, found.table)
    img = nib.load(folder / "contrast-ADvsCN_stat-t_statmap.nii.gz")
    np.testing.assert_allclose(img.get_fdata()[found.space.mask], found.maps["t"])
    assert np.isnan(img.get_fdata()[found.space.mask][70:75]).all()
    facts = json.loads((folder / "comparison.json").read_text())
    assert facts["Untested"] == {"no spread within the groups": 5}
    assert facts["correction"].startswith("family-wise by the largest t, 99 permutations within s")
    peaks = pd.read_csv(folder / "peaks.tsv", sep="\t")
    assert list(peaks)[:6] == ["cluster", "x", "y", "z", "t", "g"] and len(peaks)
    with pytest.raises(OutputExistsError):
        found.save(folder)
    other = found.save(tmp_path / "again")
    for file in folder.iterdir():  # nothing in them depends on when they were written
        assert file.read_bytes() == (other / file.name).read_bytes()
    (folder / "comparison.json").write_text("{}")
    with pytest.raises(ModelFileError, match="VoxelComparison.save"):
        VoxelComparison.read(folder)


def test_peaks_lie_where_the_blobs_are(found):
    main = found.table[found.table["cluster"].str.isdigit()]
    for centre, sign in (([12, 17, 13], -1), ([22, 9, 20], 1)):
        mm = found.space.affine[:3, :3] @ centre + found.space.affine[:3, 3]
        near = main[np.sqrt(((main[["x", "y", "z"]] - mm)**2).sum(axis=1)) < 20]
        assert len(near) and (np.sign(near["t"]) == sign).all()
    assert (main["t"].abs().diff().dropna() <= 0).all()
    assert (main["volume"] >= 0.064).all() and list(main["cluster"])[:2] == ["1", "2"]
    for row in main.itertuples():
        voxel = np.flatnonzero((found.space.coordinates() == [row.x, row.y, row.z]).all(axis=1))
        assert found.maps["t"][voxel[0]] == row.t and row.p_fwe < 0.05


def test_text_and_pictures(found):
    assert "22 AD - 38 CN, adjusted for age, site; OLS t, two-sided" in found.summary()
    assert "5 voxels were not tested: no spread" in found.summary()
    assert "VoxelComparison" in repr(found) and "<table" in found._repr_html_()
    odd = replace(found, case="<AD>", n={"<AD>": 22, "CN": 38})
    assert "<AD>" not in odd._repr_html_()
    for options in ({}, {"significant": True}, {"glass": True, "significant": True},
                    {"column": "g"}):
        assert found.plot(**options).get_title("left").startswith("AD - CN")
        plt.close("all")
    with pytest.raises(ComparisonError, match="column is one of"):
        found.img("z")
    nothing = replace(found, maps={**found.maps, "p_fwe": np.ones(found.space.n_voxels)})
    assert nothing.table.empty and nothing._repr_html_() and not nothing.significant().any()
    assert nothing.plot(significant=True)
    plt.close("all")
    none = replace(found, maps={**found.maps, "t": np.full(found.space.n_voxels, np.nan)})
    assert "no voxel could be tested" in none.summary()


def test_one_sided_says_so():
    made = compare_voxels(VoxelTable(z(), people(), space()), "dx", adjust=(), test=OlsT(False),
                          contrast=("AD", "CN"))
    assert "only AD > CN counts" in made.summary()
    marked = made.significant()
    assert marked.any() and (made.maps["t"][marked] > 0).all()


def deviations(where: Space, values: np.ndarray, who: pd.DataFrame):
    columns = pd.MultiIndex.from_product([["t1"], where.features], names=["modality", "feature"])
    made = tiny_deviations()
    frame = pd.DataFrame(values, who.index, columns)
    reference = replace(
        made.reference, covariates={"age": {"kind": "continuous"}, "site": {"kind": "site"}},
        modalities={"t1": {"unit": "z", "n_features": where.n_voxels, "space": where.to_dict()}})
    none = who[[]]
    return replace(made, z=frame, observed=frame, expected=frame, latent=none, distance=none,
                   attribution=None, subjects=who, reference=reference, controls=None)


def test_deviations_bring_their_space_covariates_and_controls():
    where, who, y = space(), people(), z()
    patients = deviations(where, y[:22], who[:22])
    held = deviations(where, y[22:], who[22:].assign(normfuse_role="calibration"))
    both = replace(patients, controls=held)
    expected = compare_voxels(VoxelTable(y, who, where), "dx", adjust=["age", "site"])
    made = compare_voxels(VoxelTable.of(both, "t1"), "dx")
    assert made.adjust == ("age", "site") and (made.case, made.baseline) == ("AD", "CN")
    np.testing.assert_array_equal(made.maps["t"], expected.maps["t"])
    with pytest.raises(ComparisonError, match="site is a covariate of the model"):
        compare_voxels(VoxelTable.of(both, "t1"), "site")
    with pytest.raises(ComparisonError, match="no modality 'pet'"):
        VoxelTable.of(both, "pet")
    with pytest.raises(ComparisonError, match="has no voxels"):
        VoxelTable.of(tiny_deviations(), "t1")
    trained = deviations(where, y, who.assign(normfuse_role=["training"] * 5 + ["new"] * 55))
    with pytest.warns(UserWarning, match="left out 5 people the model was trained on"):
        assert compare_voxels(VoxelTable.of(trained, "t1"), "dx").n == {"AD": 17, "CN": 38}


def run(table: VoxelTable, folder: Path | None, kind: str) -> VoxelComparison:
    """What the killed process and its witness both do."""
    if kind == "overlap":
        return overlap_voxels(table, "dx", contrast=("AD", "CN"), correction=MaxT(300),
                              threshold=1.5, resume=folder)
    correction = MaxT(1500) if kind == "max" else ClusterMass(100)
    return compare_voxels(table, "dx", adjust=["age", "site"], contrast=("AD", "CN"),
                          correction=correction, resume=folder)


def test_begun_work_is_taken_up_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(voxel_table, "COLUMNS", voxel_table.TILE)
    table = VoxelTable(z(), people(), space())
    witness = run(table, None, "cluster")
    same(witness, run(table, tmp_path / "work", "cluster"))
    pieces = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert "work.json" in pieces and not [name for name in pieces if name.endswith(".part")]
    # half of it lost, one piece written in part
    for name in ("voxels-000004096.npz", "voxels-000008192-null.npy", "maps-000000016.npz"):
        (tmp_path / "work" / name).unlink()
    (tmp_path / "work" / ".maps-000000016.npz.part").write_bytes(b"half")
    (tmp_path / "work" / "maps-000000032.npz").write_bytes(b"PK")
    same(witness, run(table, tmp_path / "work", "cluster"))
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == pieces
    with pytest.raises(ComparisonError, match="begun with other settings .correction: was Clust"):
        run(table, tmp_path / "work", "max")
    fewer = VoxelTable(z()[1:], people()[1:], space())
    with pytest.raises(ComparisonError, match="groups and covariates.*people"):
        run(fewer, tmp_path / "work", "cluster")
    changed = z()
    changed[3, 5000] += 1e-3
    with pytest.raises(ComparisonError, match="other values of voxels 4096 to 8192"):
        run(VoxelTable(changed, people(), space()), tmp_path / "work", "cluster")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("x")
    with pytest.raises(ModelFileError, match="holds thesis.doc"):
        run(table, tmp_path / "mine", "cluster")


@pytest.mark.slow
@pytest.mark.parametrize("kind, moments", [("max", 3), ("cluster", 2), ("overlap", 2)])
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path, monkeypatch, kind, moments):
    monkeypatch.setattr(voxel_table, "COLUMNS", voxel_table.TILE)
    who, where = people(), space()
    stored = StoredTable.create(tmp_path / "t1", who.index, where.features)
    stored.write(0, z())
    table = VoxelTable(StoredTable.open(tmp_path / "t1"), who, where)
    start = time.perf_counter()
    whole = run(table, None, kind)
    takes = time.perf_counter() - start
    witness = whole.save(tmp_path / "witness")
    code = ("import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); "
            "from test_voxel_files import *; voxel_table.COLUMNS = voxel_table.TILE; "
            "from normfuse.analyses import voxelwise; "
            "table = VoxelTable(StoredTable.open(sys.argv[1] + '/t1'), people(), space()); "
            f"run(table, Path(sys.argv[2]), {kind!r}).save(sys.argv[2] + '-result')")
    rng, cut = np.random.default_rng(sum(map(ord, kind))), 0
    for moment in range(moments):
        work = tmp_path / f"work{moment}"
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(work),
                               str(Path(__file__).parent)],
                              env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            while not work.exists() and process.poll() is None:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 1.2 * takes))
            process.send_signal(signal.SIGKILL)
        cut += process.returncode == -signal.SIGKILL
        again = run(table, work, kind)
        same(whole, again)
        assert not list(work.glob(".*"))
        result = Path(f"{work}-result")
        if not result.exists():
            again.save(result)
        for file in witness.iterdir():
            assert file.read_bytes() == (result / file.name).read_bytes(), file.name
        shutil.rmtree(work)
    assert cut >= moments - 1
