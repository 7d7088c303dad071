"""A real glioma beside a small simulated reference; `benchmarks/real_images.py` has the large one.

No witness but the tumour's segmentation. The reference is simulated; see the benchmark for what
that means.
"""
from __future__ import annotations

import importlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import normfuse as nf
from normfuse.models import OneLatent
from normfuse.volumes import VolumePlan
from normfuse.volumes.one_image import read_image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(shared_data, monkeypatch):
    """The benchmark, with FLAIR alone: four contrasts take five times as long."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.import_module("real_images")
    for module in (found, importlib.import_module("simulated_scans")):
        monkeypatch.setattr(module, "CONTRASTS", ("FLAIR",))
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")  # 24 people are few, and the fit says so
def test_the_region_with_most_tumour_deviates_most(bench, tmp_path):
    atlas = nf.load_atlas("dk")
    cohort = nf.Cohort.read(bench.write_study(tmp_path, 24, resolution=4, seed=3, mm=4))
    model = nf.NormativeModel(model=OneLatent(n_latent=2, hidden=(8,)), seed=3,
                              plan=nf.TrainingPlan(max_epochs=6, warmup=2, progress=False),
                              calibration=nf.CrossFit(3))
    z = bench.patients_z(bench.scored(bench.of_regions(cohort, atlas), model)["covariates"].z)
    share, of_voxels = bench.shares(bench.GLIOMA, atlas, cohort.modality("FLAIR").space)
    # 41 ml, in voxels of 64 mm3
    assert of_voxels.sum() * 0.064 == pytest.approx(41.1, rel=0.05)
    most = share.idxmax()
    assert most == "wm-rh-superiorfrontal" and 0.5 < share.max() < 0.6
    for arm in ("alone", "beside"):
        of_glioma = z[f"{bench.GLIOMA} {arm}"]["FLAIR"]
        assert of_glioma.abs().idxmax() == most and of_glioma[most] > 3
        # none of the others deviates there as much
        assert all(z[f"{who} {arm}"]["FLAIR"][most] < of_glioma[most] / 2 for who in bench.MASKS
                   if who != bench.GLIOMA)


def test_a_simulated_person_is_like_a_file_of_the_patients(bench, shared_data, tmp_path):
    anatomy = bench.Anatomy.of_template(4)
    levels = pd.DataFrame({"grey": 1.1, "fluid": 0.4}, ["FLAIR"])
    for name in "ab":
        bench.write_person(name, tmp_path, levels, anatomy, np.random.default_rng(5))
    ours, again = (nib.load(tmp_path / f"{name}_FLAIR.nii.gz") for name in "ab")
    real = nib.load(shared_data / "images" / "ms_mni2mm" / "openms07_FLAIR.nii.gz")
    np.testing.assert_array_equal(ours.dataobj, again.dataobj)  # the generator decides everything
    assert ours.get_data_dtype() == real.get_data_dtype() == np.int16
    for img in (ours, real):
        values = np.asarray(img.dataobj)
        assert np.percentile(values[values > 0], 99.5) == pytest.approx(1000, abs=3)
    facts = [read_image(Path(img.get_filename()), VolumePlan("brain", resolution=8)).facts
             for img in (ours, real)]
    assert [f.coverage > 0.95 and f.spill < 0.12 for f in facts] == [True, True]
