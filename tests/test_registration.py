"""Registration: the search, and what it says of failures.

Witnesses: motions that were applied and have to be found again; headers that were falsified.
"""
from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from known_motions import COARSE, ROUGH, bent, error_mm, motion

from normfuse.errors import ImageError
from normfuse.imaging import registration
from normfuse.imaging.likeness import MutualInformation, Then
from normfuse.imaging.registration import register as register_widely
from normfuse.imaging.registration_kinds import Affine, Deformable
from normfuse.imaging.registration_quality import _problems
from normfuse.imaging.registration_search import NO_RIVAL, near_starts, wide_starts
from normfuse.imaging.transform import SpatialTransform
from normfuse.imaging.volume_grids import LPS, signal, volume
from normfuse.testing import tiny_head


# a third of the searches; what else the default finds has a test of its own
register = partial(register_widely, starts=near_starts())


@pytest.fixture(scope="module")
def head():
    return tiny_head("T1w")


@pytest.fixture(scope="module")
def other():
    """The same brain, another contrast."""
    return tiny_head("T2w")


class Blind(MutualInformation):
    """Sees noise in the place of both images."""

    def images(self, moving, fixed):
        rng = np.random.default_rng(0)
        return tuple(nib.Nifti1Image(rng.standard_normal(image.shape).astype(np.float32),
                                     image.affine)
                     for image in super().images(moving, fixed))


class TestThen:
    @pytest.mark.slow  # searches of many starts
    def test_a_blind_first_does_no_harm(self, head, other):
        true = motion()
        moving = true.resample(other, other)
        found = register(moving, head, by=Then(Blind(resolution=6), COARSE))
        assert error_mm(true, found.transform, head) < 1.0

    def test_a_first_that_knows_the_way_is_followed(self, head, monkeypatch):
        """Turned so far that no start of the second's leads there."""
        true = motion((0.0, 0.0, 100.0), (0.0, 0.0, 0.0))
        moving = true.resample(head, head)
        lost = register(moving, head, by=ROUGH)
        assert error_mm(true, lost.transform, head) > 20 and not lost.quality.ok
        assert "another place" in lost.quality.problems[0]
        centre = registration._middle(signal(head, 4))
        known = SimpleNamespace(centre=centre,
                                placed=lambda starts, kind: (_about(true, head), NO_RIVAL),
                                refined=lambda kind, end: (0.0, kind.after(*end, centre)))
        prepared = registration.prepared

        def knowing(moving, fixed, outlines, by, seed):
            return known if by == "first" else prepared(moving, fixed, outlines, by, seed)

        monkeypatch.setattr(registration, "prepared", knowing)
        by = Then(ROUGH, COARSE)
        monkeypatch.setattr(Then, "parts", lambda self: ("first", self.last))
        found = register(moving, head, by=by)
        assert error_mm(true, found.transform, head) < 1.0

    @pytest.mark.slow  # searches of many starts
    def test_wider_starts_find_what_is_turned_far(self, head):
        """And are the default."""
        true = motion((0.0, 0.0, 100.0), (0.0, 0.0, 0.0))
        moving = true.resample(head, head)
        near, wide, both = (register_widely(moving, head, by=ROUGH, **how) for how in (
            {"starts": near_starts()}, {"starts": wide_starts()}, {}))
        assert not near.quality.ok and error_mm(true, near.transform, head) > 10
        assert error_mm(true, wide.transform, head) < 1.5
        assert np.array_equal(both.transform.matrix, wide.transform.matrix)
        with pytest.raises(ValueError, match="one Start at least"):
            register(moving, head, starts=[])


def _about(true, head):
    """A and t of A (x - c) + c + t in ITK's mm, c the middle of the fixed brain."""
    centre = registration._middle(signal(head, 4))
    back = np.linalg.inv(true.matrix)
    turn = LPS @ back[:3, :3] @ LPS
    return turn, turn @ centre + LPS @ back[:3, 3] - centre


class TestRegister:
    @pytest.mark.parametrize("contrast", ("T2w", pytest.param("T1w", marks=pytest.mark.slow)))
    def test_motions_are_found_again(self, head, contrast):
        true = motion()
        found = register(true.resample(tiny_head(contrast), head), head, by=COARSE)
        assert error_mm(true, found.transform, head) < 1
        assert found.quality.ok and found.quality.overlap > 0.93

    def test_sizes_too(self, head):
        true = motion(size=1.1)
        found = register(true.resample(head, head), head, Affine(), COARSE)
        assert error_mm(true, found.transform, head) < 1

    @pytest.mark.slow  # searches of many starts
    def test_the_same_again(self, head, other):
        moved = motion().resample(other, head)
        one, two = (register(moved, head, by=ROUGH).transform.matrix for _ in range(2))
        assert np.array_equal(one, two)

    def test_identical_images_stay(self, head):
        found = register(head, head, by=COARSE)
        assert np.abs(found.transform.matrix - np.eye(4)).max() < 0.05
        assert found.quality.ok

    @pytest.mark.slow  # searches of many starts
    def test_bent_brains(self, head):
        true = bent()
        moved = true.resample(head, head)
        stiff, soft = (register(moved, head, kind, COARSE) for kind in (
            Affine(), Deformable(spacing=48)))
        errors = [error_mm(true, r.transform, head) for r in (stiff, soft)]
        assert errors[1] < 0.5 * errors[0]
        assert 0.9 < soft.quality.overlap <= 1
        low, high = soft.quality.jacobian
        assert 0.3 < low < 1 < high < 2
        inner = np.asanyarray(head.dataobj) > 0
        volumes = [way.jacobian(head)[inner] for way in (soft.transform, true.inverse())]
        assert np.corrcoef(*volumes)[0, 1] > 0.6

    @pytest.mark.parametrize("axes, said", (
        ((-1, 1, 1), "mirrored left to right"),
        pytest.param((1, 1, -1), "turned by 180", marks=pytest.mark.slow),
        pytest.param((-1, -1, 1), "turned by 180 degrees about z", marks=pytest.mark.slow)))
    def test_headers_that_lie_are_said(self, head, other, axes, said):
        """The simulated brain is symmetric; a lesion on one side is not."""
        lesion = np.linalg.norm(np.indices(head.shape).T - [34, 30, 26], axis=-1).T < 9
        one, two = (nib.Nifti1Image(np.where(lesion, 0.3, i.dataobj).astype(np.float32), i.affine)
                    for i in (head, other))
        wrong = nib.Nifti1Image(two.dataobj, np.diag([*axes, 1.0]) @ two.affine)
        found = register(wrong, one, by=ROUGH)
        assert not found.quality.ok
        assert any(said in problem for problem in found.quality.problems)

    def test_headers_that_do_not(self, head, other):
        """Another order and direction of axes, an oblique grid, unequal voxels."""
        turned = nib.as_closest_canonical(other).as_reoriented(
            np.array([[2, -1], [0, 1], [1, -1]]))
        assert register(turned, head, by=ROUGH).quality.ok
        affine = motion((20, 0, 10), (0, 0, 0)).matrix @ head.affine @ np.diag([1, 1, 1.5, 1])
        grid = nib.Nifti1Image(np.zeros((50, 62, 40), np.float32), affine)
        oblique = SpatialTransform.identity().resample(other, grid)
        found = register(oblique, head, by=ROUGH)
        assert error_mm(SpatialTransform.identity(), found.transform, head) < 1.5

    def test_far_apart(self, head, other):
        """Fields of view that do not meet: brains do, once their middles are laid together."""
        there = nib.Nifti1Image(other.dataobj, other.affine + np.array([[0, 0, 0, 500.0]] * 3
                                                                       + [[0] * 4]))
        found = register(there, head, by=ROUGH)
        assert np.allclose(found.transform.matrix[:3, 3], 500, atol=2)

    def test_what_is_no_brain_is_said(self, head):
        rng = np.random.default_rng(0)
        stick = np.zeros((40, 40, 40), np.float32)
        stick[18:21, :, 18:21] = rng.uniform(1, 2, (3, 40, 3))
        found = register(nib.Nifti1Image(stick, head.affine), head, Affine(), ROUGH)
        assert not found.quality.ok

    @pytest.mark.parametrize("spoil, said", (
        (lambda a, m: (a[:, :, :1], m), "1 slice"),
        (lambda a, m: (np.stack([a, a], -1), m), "one volume"),
        (lambda a, m: (a * 0 + 3, m), "one and the same value"),
        (lambda a, m: (a * np.nan, m), "one and the same value"),
        (lambda a, m: (a, m + np.array([[0, 2, 0, 0]] + [[0] * 4] * 3)), "sheared")))
    def test_images_that_cannot_be_used(self, head, spoil, said):
        bad = nib.Nifti1Image(*spoil(np.asanyarray(head.dataobj), head.affine))
        for images, whose in (((bad, head), "moving"), ((head, bad), "fixed")):
            with pytest.raises(ImageError, match=f"the {whose} image: .*{said}"):
                register(*images, by=ROUGH)

    @pytest.mark.parametrize("ends, usual, said", (
        ((0.6, 2.4), 1.05, ""), ((-0.1, 1.2), 1.0, "folds"), ((0.3, 0.5), 0.4, "more than heads"),
        ((0.1, 1.8), 1.0, "more than brains"), ((0.6, 6.0), 1.0, "more than brains")))
    def test_volumes_that_change(self, ends, usual, said):
        problems = _problems(0.99, -1.0, 0.1, ends, usual, "", NO_RIVAL)
        assert [said in p for p in problems] == [True] * bool(said)

    @pytest.mark.parametrize("asked, said", (
        ({"kind": "affine"}, "kind is Rigid"), ({"kind": Affine}, "kind is Rigid"),
        ({"by": "mi"}, "by is a likeness"), ({"starts": 3}, "sequence of Start"),
        ({"starts": ["far"]}, "sequence of Start")))
    def test_what_is_no_choice(self, head, asked, said):
        with pytest.raises(TypeError, match=said):
            register_widely(head, head, **asked)

    def test_what_is_no_image(self, head, tmp_path):
        file = tmp_path / "t1.nii.gz"
        nib.save(head, file)
        file.write_bytes(file.read_bytes()[:-4000])
        for image, said in ((np.zeros((9, 9, 9)), "got ndarray"), (None, "got NoneType"),
                            (file, "cut off"), (nib.load(file), "cut off"),
                            (tmp_path / "no.nii", "no.nii: the file is not there")):
            with pytest.raises(ImageError, match=said):
                register_widely(image, head)

    def test_a_singular_header(self, head):
        """nibabel reads it, and fails only when it is written."""
        bad = SimpleNamespace(shape=head.shape, dataobj=head.dataobj,
                              affine=head.affine @ np.diag([1, 1, 0, 1]))
        with pytest.raises(ImageError, match="singular"):
            register(bad, head)

    def test_nan_is_background(self, head):
        values = np.asanyarray(head.dataobj).copy()
        values[values == 0] = np.nan
        assert register(nib.Nifti1Image(values, head.affine), head, by=ROUGH).quality.ok
        assert np.isfinite(volume(nib.Nifti1Image(values, head.affine), "x").dataobj).all()
