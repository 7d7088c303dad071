"""Bias fields are taken out before images are compared, and nowhere else.

Witnesses: fields that were put in; motions that have to be found again under them.
"""
from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from known_motions import COARSE, error_mm, motion
from scipy.ndimage import gaussian_filter

from normfuse.errors import ImageError
from normfuse.imaging.bias_fields import BiasCorrected, without_bias_field
from normfuse.imaging.likeness import Then
from normfuse.imaging.registered_people import RegistrationPlan
from normfuse.imaging.registration import register
from normfuse.imaging.registration_kinds import Affine
from normfuse.testing import tiny_head


def shaded(image: nib.Nifti1Image, seed: int, sd: float = 0.8) -> nib.Nifti1Image:
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(image.shape), 4)
    values = np.asanyarray(image.dataobj) * np.exp(sd * field / field.std())
    return nib.Nifti1Image(values.astype(np.float32), image.affine)


@pytest.fixture(scope="module")
def heads() -> list[nib.Nifti1Image]:
    """As it is and shaded."""
    head = tiny_head("T2w")
    return [head, shaded(head, 0)]


@pytest.fixture(scope="module")
def corrected(heads) -> list[nib.Nifti1Image]:
    return [without_bias_field(image) for image in heads]


def test_a_field_that_was_put_in_is_taken_out(heads, corrected):
    inside = np.asanyarray(heads[0].dataobj) > 0
    logs = [np.log(np.asanyarray(image.dataobj)[inside]) for image in (*heads, *corrected)]
    assert np.std(logs[1] - logs[0]) > 0.5
    assert np.std(logs[3] - logs[2]) < 0.5 * np.std(logs[1] - logs[0])


def test_what_is_compared_is_corrected(heads, corrected):
    found, expected = BiasCorrected(COARSE).images(*heads), COARSE.images(*corrected)
    assert all(np.array_equal(a.dataobj, b.dataobj) for a, b in zip(found, expected))


@pytest.mark.slow  # three searches, two corrections
def test_what_is_found_is_better_and_what_is_written_is_not_corrected():
    """As near as without any field, which is 2 mm at this resolution."""
    true, head = motion(size=1.05), tiny_head("T1w")
    still = true.resample(tiny_head("T2w"), head)
    moving, fixed = shaded(still, 2), shaded(head, 1)
    never = register(still, head, Affine(), COARSE)
    plain, found = (register(moving, fixed, Affine(), by) for by in (
        COARSE, BiasCorrected(COARSE)))
    errors = [error_mm(true, r.transform, head) for r in (never, plain, found)]
    assert errors[2] < errors[0] + 0.5 < errors[1] - 1 and found.quality.ok
    again = found.transform.resample(moving, fixed)
    assert np.array_equal(found.image.dataobj, again.dataobj)


def test_every_part_of_a_chain_is_corrected():
    chain = BiasCorrected(Then(COARSE, COARSE))
    assert [type(part) for part in chain.parts()] == [BiasCorrected, BiasCorrected]
    assert chain.resolution == COARSE.resolution and chain.least == COARSE.least


def test_a_plan_corrects_whatever_it_compares_by():
    plan = RegistrationPlan(by=COARSE, correct_bias=True)
    assert plan.likeness("T2w", "T1w").options() == {"by": COARSE}


def test_images_of_differences_have_no_such_field():
    head = tiny_head("T1w")
    below = nib.Nifti1Image(-np.asanyarray(head.dataobj), head.affine)
    with pytest.raises(ImageError, match="above 0"):
        without_bias_field(below)
