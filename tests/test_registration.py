"""Registration: transforms, the search, what it says of failures, folders of people.

Witnesses: transforms written as matrices; nilearn's resampling; SimpleITK's own files; motions
that were applied and have to be found again; headers that were falsified.
"""
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.image import resample_img
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from normfuse.cli import app
from normfuse.cli.registering import found as found_files
from normfuse.errors import BegunWorkError, CohortError, ImageError, ModelFileError
from normfuse.imaging import registered_people, registration
from normfuse.imaging.bias_fields import BiasCorrected
from normfuse.imaging.likeness import LearnedLikeness, MutualInformation, Then
from normfuse.imaging.registered_people import RegistrationPlan, mni_template, register_people
from normfuse.imaging.registration import register
from normfuse.imaging.registration_kinds import Affine, Deformable
from normfuse.imaging.registration_search import NO_RIVAL, wide_starts
from normfuse.imaging.representations import ContrastiveRepresentations
from normfuse.imaging.transform import SpatialTransform
from normfuse.imaging.volume_grids import LPS, from_itk, in_steps_of, signal, to_itk, volume
from normfuse.testing import tiny_head, tiny_images
from normfuse.training import TrainingPlan

COARSE = MutualInformation(resolution=4)
BRIEF = TrainingPlan(max_epochs=1, warmup=0, batch_size=8, validation_draws=1)
ROUGH = MutualInformation(resolution=6)


def motion(degrees=(12.0, -8.0, 15.0), mm=(8.0, -6.0, 10.0), size=1.0) -> SpatialTransform:
    matrix = np.eye(4)
    matrix[:3, :3] = size * Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    centre = np.array([0.0, -18, 10])
    matrix[:3, 3] = centre + mm - matrix[:3, :3] @ centre
    return SpatialTransform.linear(matrix)


def bent(size: float = 4.0) -> SpatialTransform:
    import SimpleITK as sitk

    spline = sitk.BSplineTransform(3, 3)
    spline.SetTransformDomainOrigin((-96, -96, -72))
    spline.SetTransformDomainPhysicalDimensions((192, 228, 190))
    spline.SetTransformDomainMeshSize((4, 4, 4))
    rng = np.random.default_rng(0)
    spline.SetParameters((size * rng.standard_normal(len(spline.GetParameters()))).tolist())
    return SpatialTransform([spline])


def points(image: nib.Nifti1Image, n: int = 200) -> np.ndarray:
    where = np.argwhere(np.asanyarray(image.dataobj) > 0)
    where = where[np.random.default_rng(0).choice(len(where), n, replace=False)]
    return where @ image.affine[:3, :3].T + image.affine[:3, 3]


def error_mm(true: SpatialTransform, found: SpatialTransform, fixed: nib.Nifti1Image) -> float:
    where = points(fixed)
    return float(np.linalg.norm(true.points(found.points(where)) - where, axis=1).mean())


@pytest.fixture(scope="module")
def head():
    return tiny_head("T1w")


@pytest.fixture(scope="module")
def other():
    """The same brain, another contrast."""
    return tiny_head("T2w")


class TestTransform:
    def test_matrices(self):
        one, two = motion(), motion((5, 5, 5), (0, 0, 9), 1.1)
        assert np.allclose(one.then(two).matrix, two.matrix @ one.matrix)
        assert np.allclose(one.inverse().matrix, np.linalg.inv(one.matrix))
        assert np.allclose(SpatialTransform.identity().matrix, np.eye(4))
        where = np.random.default_rng(0).normal(size=(5, 3))
        assert np.allclose(one.points(where), where @ one.matrix[:3, :3].T + one.matrix[:3, 3])

    def test_resampling_is_nilearns(self, head):
        """m(T(x)): nilearn resamples the image whose affine was moved by the inverse."""
        way = motion()
        moved = nib.Nifti1Image(head.dataobj, np.linalg.inv(way.matrix) @ head.affine)
        theirs = resample_img(moved, head.affine, head.shape, interpolation="linear",
                              force_resample=True, copy_header=True).get_fdata()
        ours = way.resample(head, head).get_fdata()
        inner = np.s_[2:-2, 2:-2, 2:-2]
        assert np.abs(ours - theirs)[inner].max() < 1e-3

    def test_labels_stay_labels(self, head):
        labels = nib.Nifti1Image((np.asanyarray(head.dataobj) > 0.9).astype(np.float32) * 3,
                                 head.affine)
        found = motion().resample(labels, head, interpolation="nearest")
        assert set(np.unique(found.dataobj)) == {0, 3}
        with pytest.raises(ValueError, match="nearest"):
            motion().resample(labels, head, interpolation="cubic")

    @pytest.mark.parametrize("suffix", (".tfm", ".h5", ".txt"))
    def test_files_are_itks(self, suffix, tmp_path):
        import SimpleITK as sitk

        way = bent().then(motion())
        file = way.save(tmp_path / f"x{suffix}")
        where = np.random.default_rng(0).uniform(-50, 50, (20, 3))
        assert np.allclose(SpatialTransform.load(file).points(where), way.points(where), atol=1e-4)
        theirs = sitk.ReadTransform(str(file))
        lps = np.diag([-1, -1, 1])
        assert np.allclose([lps @ theirs.TransformPoint((lps @ p).tolist()) for p in where],
                           way.points(where), atol=1e-4)
        assert [p.name for p in tmp_path.iterdir()] == [file.name]

    def test_files_that_are_none(self, tmp_path):
        file = tmp_path / "x.tfm"
        file.write_text("hello")
        with pytest.raises(ModelFileError, match="no transform"):
            SpatialTransform.load(file)
        with pytest.raises(ModelFileError, match="no transform"):
            SpatialTransform.load(tmp_path / "y.tfm")
        with pytest.raises(ValueError, match=".tfm, .h5"):
            motion().save(tmp_path / "x.json")
        with pytest.raises(ValueError, match="invertible"):
            SpatialTransform.linear(np.zeros((4, 4)))

    def test_deformations_are_inverted(self, tmp_path):
        way = bent().then(motion())
        where = np.random.default_rng(0).uniform(-40, 40, (100, 3))
        back = way.inverse()
        assert np.abs(back.points(way.points(where)) - where).max() < 0.3
        assert way.matrix is None
        file = back.save(tmp_path / "back.h5")
        assert np.allclose(SpatialTransform.load(file).points(where), back.points(where),
                           atol=1e-3)

    def test_jacobians(self, head):
        assert np.allclose(motion(size=1.1).jacobian(head), 1.1 ** 3)
        found = bent().jacobian(head)[2:-2, 2:-2, 2:-2]
        assert 0 < found.min() < 1 < found.max()
        assert bent(60.0).jacobian(head).min() < 0  # folds


class TestGrids:
    @pytest.mark.parametrize("axes", ([1, 1, 1], [-1, 1, 1], [1, -1, -1]))
    def test_there_and_back(self, axes):
        affine = motion().matrix @ np.diag([*(np.array(axes) * [2, 3, 4]), 1])
        image = nib.Nifti1Image(np.random.default_rng(0).normal(size=(5, 6, 7)), affine)
        back = from_itk(to_itk(image))
        assert np.allclose(back.affine, affine, atol=1e-5)
        assert np.allclose(back.get_fdata(), image.get_fdata(), atol=1e-6)

    def test_steps_keep_the_field_of_view(self, head):
        coarse = in_steps_of(head, 8)
        assert np.allclose(np.linalg.norm(coarse.affine[:3, :3], axis=0), 8)
        middles = [np.average(np.argwhere(v > 0), axis=0, weights=v[v > 0]) @ i.affine[:3, :3].T
                   + i.affine[:3, 3] for i in (head, coarse) for v in [i.get_fdata()]]
        assert np.abs(middles[0] - middles[1]).max() < 0.5  # mm

    def test_values_of_1e_40_are_no_brain(self):
        """As nilearn's template has them."""
        brain = np.asanyarray(signal(mni_template(4), 4).dataobj).sum() * 4 ** 3 / 1e6
        assert 1.6 < brain < 2.1  # litres


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
        true = motion((0.0, 0.0, 70.0), (0.0, 0.0, 0.0))
        moving = true.resample(head, head)
        found = register(moving, head, by=ROUGH, starts=wide_starts())
        assert error_mm(true, found.transform, head) < 1.5
        with pytest.raises(ValueError, match="one Start at least"):
            register(moving, head, starts=[])


def _about(true, head):
    """A and t of A (x - c) + c + t in ITK's mm, c the middle of the fixed brain."""
    centre = registration._middle(signal(head, 4))
    back = np.linalg.inv(true.matrix)
    turn = LPS @ back[:3, :3] @ LPS
    return turn, turn @ centre + LPS @ back[:3, 3] - centre


class TestRegister:
    @pytest.mark.parametrize("contrast", ("T1w", "T2w"))
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
        low, high = soft.quality.jacobian
        assert 0.3 < low < 1 < high < 2

    @pytest.mark.parametrize("axes, said", (
        ((-1, 1, 1), "mirrored left to right"), ((1, 1, -1), "turned by 180"),
        ((-1, -1, 1), "turned by 180 degrees about z")))
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


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Two people with T1w and T2w, one of whom has a file that is none, and one without T1w."""
    folder = tmp_path_factory.mktemp("raw")
    for k, who in enumerate(("sub-1", "sub-2", "sub-3")):
        for contrast in ("T1w", "T2w", "FA"):
            if who == "sub-3" and contrast == "T1w":
                continue
            head = tiny_head(contrast, seed=k, resolution=6)
            moved = motion((3 * k, 4, 5)).resample(head, head)
            nib.save(moved, folder / f"{who}_{contrast}.nii.gz")
    (folder / "sub-2_FA.nii.gz").write_bytes(b"no image")
    return folder


PLAN = RegistrationPlan(by=ROUGH, resolution=6, carried={"FA": "T2w"})


class TestPeople:
    @pytest.fixture(scope="class")
    def done(self, raw, tmp_path_factory):
        out = tmp_path_factory.mktemp("done") / "mni"
        return out, register_people(found_files(f"{raw}/{{id}}_{{modality}}.nii.gz"), out, PLAN)

    def test_everything_is_there(self, done):
        out, table = done
        assert len(table) == 8 and table["ok"].sum() == 7
        assert table.set_index(["person", "modality"])["problems"]["sub-2", "FA"].startswith(str(
            out.parent.parent)[:5])
        assert (out / "contact_sheet_1.png").stat().st_size > 10_000
        assert pd.read_csv(out / "quality.tsv", sep="\t")["person"].tolist() == list(
            table["person"])
        template = mni_template(6)
        for file in table["file"].dropna():
            image = nib.load(out / file)
            assert image.shape == template.shape and np.allclose(image.affine, template.affine)
        assert not list(out.parent.glob(".*"))

    def test_they_lie_on_the_template_and_on_one_another(self, done):
        out, table = done
        assert (table["overlap"].dropna() > 0.9).all()
        name = "sub-1/sub-1_space-MNI152NLin2009aSym_{}.nii.gz"
        one, two = (np.asanyarray(signal(nib.load(out / name.format(c)), 6).dataobj) > 0
                    for c in ("T1w", "T2w"))
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.95

    def test_what_is_carried_goes_the_same_way(self, done):
        out, _ = done
        ways = [SpatialTransform.load(
            out / f"sub-1/sub-1_from-MNI152NLin2009aSym_to-{c}_xfm.h5").matrix
            for c in ("T2w", "FA", "T1w")]
        assert np.array_equal(ways[0], ways[1]) and not np.allclose(ways[0], ways[2])

    def test_a_stopped_run_goes_on(self, raw, tmp_path, monkeypatch):
        images = found_files(f"{raw}/{{id}}_{{modality}}.nii.gz")
        images = {who: {"T1w": images[who]["T1w"]} for who in ("sub-1", "sub-2")}
        calls: list[int] = []

        def counted(*args, **options):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return register(*args, **options)

        monkeypatch.setattr(registered_people, "register", counted)
        with pytest.raises(KeyboardInterrupt):
            register_people(images, tmp_path / "mni", PLAN)
        assert not (tmp_path / "mni").exists()
        with pytest.raises(BegunWorkError, match="other images or settings"):
            register_people(images, tmp_path / "mni", RegistrationPlan(by=ROUGH, resolution=8))
        table = register_people(images, tmp_path / "mni", PLAN)
        assert len(calls) == 3 and len(table) == 2

    def test_other_representations_are_other_settings(self, tmp_path):
        """Their repr is the same; what they learned is not."""
        model = [ContrastiveRepresentations((4, 8), patch=4, plan=BRIEF, seed=k).fit(tiny_images())
                 for k in (0, 1)]
        by = [BiasCorrected(LearnedLikeness(one, "T2w", "T1w")) for one in (*model, model[0])]
        sums = [registered_people._weights(one) for one in (*by, model[1], COARSE)]
        assert sums[0] == sums[2] != sums[1] == sums[3] and len(sums[0][0]) == 64
        assert sums[4] == []

    @pytest.mark.parametrize("images, said", (
        ({}, "nobody"), ({"../x": {"T1w": "a"}}, "file's name"),
        ({"a": {"FA": "f"}}, "nobody has")))
    def test_refusals(self, images, said, tmp_path):
        with pytest.raises(CohortError, match=said):
            register_people(images, tmp_path / "mni", PLAN)
        assert not list(tmp_path.iterdir())


class TestVerb:
    def run(self, *arguments: object):
        return CliRunner().invoke(app, ["register", *map(str, arguments)])

    def test_one_line_does_it(self, raw, tmp_path):
        for name in ("sub-1_T1w.nii.gz",):
            (tmp_path / name).write_bytes((raw / name).read_bytes())
        done = self.run(f"{tmp_path}/{{id}}_{{modality}}.nii.gz", "--out", tmp_path / "mni",
                        "--resolution", 6, "--json")
        said = json.loads(done.stdout)
        assert done.exit_code == 0 and said["counts"] == {"people": 1, "images": 1, "doubtful": 0}
        again = f"{tmp_path}/{{id}}_{{modality}}.nii.gz", "--out", tmp_path / "mni"
        refused = self.run(*again)
        assert refused.exit_code == 1 and "already there" in refused.stderr
        assert self.run(*again, "--overwrite", "--resolution", 8, "--correct-bias").exit_code == 0
        (tmp_path / "mni" / "sub-1" / "thesis.doc").write_text("mine")
        refused = self.run(*again, "--overwrite", "--resolution", 8)
        assert refused.exit_code == 1 and (tmp_path / "mni/sub-1/thesis.doc").exists()

    @pytest.mark.parametrize("pattern, said", (
        ("{id}.nii.gz", "lacks {modality}"), ("{id}_{modality}_{run}.nii", "names run"),
        ("nowhere/{id}_{modality}.nii", "no file fits"), ("*_{modality}*.nii", "lacks {id}")))
    def test_patterns_that_cannot_be_meant(self, pattern, said, tmp_path):
        done = self.run(pattern, "--out", tmp_path / "mni")
        assert done.exit_code == 1 and said in " ".join(done.stderr.split())

    def test_carry(self, raw, tmp_path):
        done = self.run(f"{raw}/{{id}}_{{modality}}.nii.gz", "--carry", "FA", "--out",
                        tmp_path / "mni")
        assert done.exit_code == 2 and "MODALITY=OTHER" in " ".join(done.stderr.split())

    def test_two_files_of_one_thing(self, raw, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "sub-1_T1w.nii.gz").write_bytes(b"")
        with pytest.raises(CohortError, match="two files of T1w"):
            found_files(f"{tmp_path}/*/{{id}}_{{modality}}.nii.gz")
