"""Transforms and grids of images.

Witnesses: transforms written as matrices; nilearn's resampling; SimpleITK's own files.
"""
from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from known_motions import bent, motion
from nilearn.image import resample_img

from normfuse.errors import ModelFileError
from normfuse.imaging.registered_people import mni_template
from normfuse.imaging.transform import SpatialTransform
from normfuse.imaging.volume_grids import from_itk, in_steps_of, signal, to_itk
from normfuse.testing import tiny_head


@pytest.fixture(scope="module")
def head():
    return tiny_head("T1w")


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
        with pytest.raises(ModelFileError, match="y.tfm: the file is not there"):
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

    @pytest.mark.parametrize("axes", ([1, 1, 1], [-1, 1, 1], [1, -1, -1]))
    def test_jacobians(self, axes):
        """Of a grid that lies askew, too: volumes of small cubes that are carried along."""
        assert np.allclose(motion(size=1.1).jacobian(tiny_head()), 1.1 ** 3)
        affine = motion().matrix @ np.diag([*(np.array(axes) * [2.0, 3, 2.5]), 1])
        grid = nib.Nifti1Image(np.zeros((24, 20, 22)), affine)
        way = bent(12.0).then(motion(size=1.1))
        where = np.argwhere(np.ones(grid.shape))[::97]
        at = where @ affine[:3, :3].T + affine[:3, 3]
        true = np.linalg.det(np.stack([(way.points(at + e) - way.points(at - e)) / 0.2
                                       for e in 0.1 * np.eye(3)], axis=-1))
        found = way.jacobian(grid)[tuple(where.T)]
        assert np.ptp(true) > 0.3
        assert np.abs(found - true).max() < 0.02

    def test_folds(self, head):
        assert bent(60.0).jacobian(head).min() < 0


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
