"""Scaling of images without a unit: laws of every scaling, and the way through ``cohort.toml``."""
from __future__ import annotations

import warnings

import numpy as np
import pytest

from imaging import RAS, brain, save
from normfuse.cohort import Cohort
from normfuse.errors import CohortError, ImageError
from normfuse.volumes import BrainMean, VolumePlan, WhiteMatterMode, read_images, template_space
from normfuse.volumes.intensity import SCALINGS, Scaling
from normfuse.volumes.one_image import read_image

EVERY = [pytest.param(s, id=type(s).__name__) for s in SCALINGS.values()]
TOML = """
[subjects]
table = "people.csv"
[covariates]
sex = "categorical"
[modalities.flair]
images = "{id}.nii.gz"
resolution = 8
"""


@pytest.fixture(scope="module")
def template():
    """0 outside; CSF 0.2, grey 0.7, white 1.0, noise; on the 4 mm grid."""
    space = template_space("brain", 4)
    levels = np.full(space.n_voxels, 0.2)
    for tissue, level in (("grey_matter", 0.7), ("white_matter", 1.0)):
        levels[template_space(tissue, 4).mask[space.mask]] = level
    image = np.zeros(space.shape)
    image[space.mask] = levels + np.random.default_rng(3).normal(0, 0.04, len(levels))
    return image, space.affine


def test_every_scaling_has_a_name_in_cohort_files():
    assert {type(s) for s in SCALINGS.values()} == set(Scaling.__subclasses__())
    assert len({VolumePlan(scaling=s).key for s in (None, *SCALINGS.values())}) == 3


@pytest.mark.parametrize("scaling", EVERY)
def test_laws(scaling, template):
    image, affine = template
    found = scaling.divisor(image, affine)
    assert 0.5 < found < 1.1
    assert scaling.divisor(37.5 * image, affine) == pytest.approx(37.5 * found, rel=1e-6)
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = image.shape[0] - 1
    assert scaling.divisor(image[::-1], affine @ mirrored) == pytest.approx(found)
    assert np.isnan(scaling.divisor(np.zeros_like(image), affine))
    holes = np.where(np.arange(image.shape[1])[:, None] % 3, image, np.nan)
    assert scaling.divisor(holes, affine) == pytest.approx(found, rel=0.03)


def test_the_mode_is_white_matter_whatever_lesions_do(template):
    image, affine = template
    assert WhiteMatterMode().divisor(image, affine) == pytest.approx(1, abs=0.02)
    white = template_space("white_matter", 4).mask
    ill = image + 1.5 * (white & (np.arange(image.shape[1])[:, None] > 36))
    share = (ill != image)[white].mean()
    assert 0.2 < share < 0.4  # far more than any disease
    assert WhiteMatterMode().divisor(ill, affine) == pytest.approx(1, abs=0.02)
    assert BrainMean().divisor(ill, affine) > BrainMean().divisor(image, affine) + 0.1


@pytest.mark.parametrize("scaling", EVERY)
def test_reading_is_division_and_files_in_another_unit_are_alike(scaling, tmp_path):
    files = {f"s{i}": save(tmp_path / f"{i}.nii.gz", np.float32(10.0 ** i) * brain(seed=i))
             for i in range(6)}
    plain, scaled = (VolumePlan("brain", resolution=8, scaling=s) for s in (None, scaling))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of "another unit or scaling than the others"
        table = read_images(files, scaled, cache=tmp_path / "kept").frame()
    for who, file in files.items():
        divisor = scaling.divisor(10.0 ** int(who[1:]) * brain(seed=int(who[1:])), RAS)
        np.testing.assert_allclose(table.loc[who] * divisor, read_image(file, plain).values,
                                   rtol=1e-4)
    with pytest.warns(UserWarning, match="another unit or scaling than the others"):
        read_images(files, plain, cache=tmp_path / "kept")


def test_no_landmark_is_refused_by_name(tmp_path):
    file = save(tmp_path / "7.nii.gz", -brain())
    with pytest.raises(ImageError, match=r"nothing above 0 to scale by \(WhiteMatterMode\(\)\)"):
        read_images({"s7": file}, VolumePlan(scaling=WhiteMatterMode()), cache=tmp_path)


def test_in_cohort_files(tmp_path):
    (tmp_path / "people.csv").write_text("id,sex\n" + "".join(f"s{i},F\n" for i in range(3)))
    for i in range(3):
        save(tmp_path / f"s{i}.nii.gz", np.float32(i + 1) * brain())
    (tmp_path / "cohort.toml").write_text(TOML + 'scaling = "white_matter"\n')
    rows = Cohort.read(tmp_path / "cohort.toml").features["flair"].to_numpy()
    np.testing.assert_allclose(rows[1:], rows[:1].repeat(2, axis=0), rtol=1e-4)
    (tmp_path / "cohort.toml").write_text(TOML + 'scaling = "wm"\n')
    with pytest.raises(CohortError, match="scaling must be one of none, white_matter, brain_m"):
        Cohort.read(tmp_path / "cohort.toml")
    with pytest.raises(CohortError, match="scaling must be an object such as WhiteMatterMode"):
        VolumePlan(scaling="white_matter")
