"""Lesions among voxels and regions: distances, masked cohorts, z inside, in the rim and outside.

Witnesses: distances by brute force over all pairs of voxels; counts by hand; a cohort whose
cells were emptied one by one; z written down voxel by voxel.
"""
from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import normfuse as nf
from normfuse.analyses import by_lesion
from normfuse.errors import AtlasError, CohortError, SpaceMismatchError
from normfuse.lesions import lesion_distances, lesion_shares
from normfuse.segmentations import Segmentations
from normfuse.testing import tiny_cohort, tiny_images, tiny_voxel_deviations

NAMES = {"core": 1, "oedema": 2}


def of(space, people, seed=0):
    """Some voxels of each person labelled; the last has none."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((len(people), space.n_voxels), np.uint8)
    for row in labels[:-1]:
        at = rng.choice(space.n_voxels, 5, replace=False)
        row[at] = [1, 1, 2, 2, 2]
    return Segmentations(tuple(people), labels, space, NAMES)


@pytest.fixture(scope="module")
def cohort():
    return tiny_images(10)


@pytest.fixture(scope="module")
def space(cohort):
    return cohort.modalities[0].space


class TestDistances:
    def test_on_the_same_voxels(self, space):
        made = of(space, ["a", "b", "c"])
        found = lesion_distances(made, space)
        at = space.coordinates()
        for who, row in zip("ab", made.labels):
            away = np.linalg.norm(at[:, None] - at[row > 0], axis=2).min(1)
            np.testing.assert_allclose(found.loc[who], np.clip(away - 2, 0, None), atol=1e-4)
        assert np.isinf(found.loc["c"]).all()

    def test_labels_are_chosen(self, space):
        made = of(space, ["a", "b"])
        inside = lesion_distances(made, space, "core").loc["a"] == 0
        assert inside.sum() == 2 and (made.labels[0][inside] == 1).all()

    def test_finer_segmentations_touch_coarse_voxels(self):
        coarse = nf.Space(np.ones((3, 4, 2), bool), np.diag([4.0, 4, 4, 1]), "toy")
        affine = np.diag([1.0, 1, 1, 1])
        affine[:3, 3] = -1.5
        fine = nf.Space(np.ones((12, 16, 8), bool), affine, "toy")
        labels = np.zeros((12, 16, 8), np.uint8)
        labels[5, 2, 1] = 1  # at (3.5, .5, -.5) mm: in the voxel around (4, 0, 0)
        made = Segmentations(("a",), labels[fine.mask][None], fine, {"lesion": 1})
        inside = np.flatnonzero(lesion_distances(made, coarse).loc["a"] == 0)
        assert [coarse.features[i] for i in inside] == ["1,0,0"]

    def test_other_spaces_are_refused(self, space):
        made = of(space, ["a", "b"])
        with pytest.raises(SpaceMismatchError, match="are in tiny, the images in MNI"):
            lesion_distances(made, nf.Space(space.mask, space.affine, "MNI152NLin2009aSym"))
        far = space.affine.copy()
        far[0, 3] += 60
        with pytest.raises(SpaceMismatchError, match="does not reach over"):
            lesion_distances(made, nf.Space(space.mask, far, space.name))


class TestMasked:
    def test_cells_under_the_lesion_are_missing(self, cohort, space):
        who = list(cohort.ids[[4, 5, 6]])
        made = of(space, who)
        masked = cohort.masked(made)
        for m in cohort.features:
            wanted = cohort.features[m]
            for person, row in zip(who, made.labels):
                wanted.loc[person, row > 0] = np.nan
            pd.testing.assert_frame_equal(masked.features[m], wanted)
        pd.testing.assert_frame_equal(masked.present, cohort.present)
        few = cohort.masked(made, labels="core").features["T1w"]
        assert few.loc[who].isna().sum(axis=1).tolist() == [2, 2, 0]
        wide = cohort.masked(made, margin=4.0).features["T1w"].loc[who[0]].isna()
        assert wide.sum() == (lesion_distances(made, space).loc[who[0]] <= 4).sum() > 5

    def test_marks_of_imputed_cells_stay(self, cohort, space):
        lacking = cohort.ids[~cohort.present["FLAIR"]]
        mean = pd.DataFrame(3.0, lacking, space.features)
        filled = cohort.with_imputed({"FLAIR": mean}, {"FLAIR": mean})
        masked = filled.masked(of(space, [*lacking, cohort.ids[5]]))
        pd.testing.assert_frame_equal(masked.imputed, filled.imputed)

    def test_bad_input(self, cohort, space):
        made = of(space, list(cohort.ids[:2]))
        with pytest.raises(CohortError, match="margin is in mm"):
            cohort.masked(made, margin=-1)
        with pytest.raises(CohortError, match="most is the share"):
            cohort.masked(made, most=1)
        with pytest.raises(CohortError, match="no label oedma"):
            cohort.masked(made, labels="oedma")
        with pytest.raises(CohortError, match="table of regions.*atlas="):
            tiny_cohort().masked(made)


@pytest.fixture(scope="module")
def atlas(space):
    image = np.zeros(space.shape, np.int16)
    image[:6][space.mask[:6]], image[6:][space.mask[6:]] = 7, 300
    regions = pd.DataFrame({"name": ["left", "right"], "hemisphere": "", "tissue": "", "lobe": "",
                            "volume_ml": 1.0}, [7, 300])
    return nf.Atlas("halves", nib.Nifti1Image(image, space.affine), regions, space.name, "CC0",
                    "made up")


class TestRegions:
    def test_shares(self, space, atlas):
        made = of(space, ["a", "b", "c"])
        halves = space.indices[:, 0] < 6
        found = lesion_shares(made, atlas)
        for who, row in zip("abc", made.labels > 0):
            assert found.loc[who].tolist() == pytest.approx([row[halves].mean(),
                                                             row[~halves].mean()])

    def test_regions_with_much_lesion_are_missing(self, space, atlas):
        table = pd.DataFrame({"left": [1.0, 2], "right": [3.0, 4]}, ["a", "b"])
        people = nf.Cohort.from_frames(pd.DataFrame(index=["a", "b"]), {"t1": table},
                                       covariates={})
        labels = np.zeros((2, space.n_voxels), np.uint8)
        labels[0, np.flatnonzero(space.indices[:, 0] < 6)[::4]] = 1
        made = Segmentations(("a", "b"), labels, space, {"lesion": 1})
        masked = people.masked(made, atlas=atlas).features["t1"]
        assert np.isnan(masked.loc["a", "left"]) and masked.isna().to_numpy().sum() == 1
        assert people.masked(made, atlas=atlas, most=0.3).features["t1"].equals(table)
        with pytest.raises(AtlasError, match="no regions of atlas halves"):
            tiny_cohort().masked(made, atlas=atlas)


class TestByLesion:
    @pytest.fixture(scope="class")
    @classmethod
    def found(cls):
        return tiny_voxel_deviations(3, 2)

    def test_each_part_by_itself(self, found):
        space = found.space("t1")
        made = of(space, ["new-02", "new-00", "new-01"])
        table = by_lesion(found, made, rim=9.0, threshold=1.0)
        away = lesion_distances(made, space)
        for who in made.ids:
            z, far = found.z.loc[who].to_numpy(), away.loc[who].to_numpy()
            for part, kept in {"inside": far == 0, "rim": (far > 0) & (far <= 9),
                               "outside": far > 9}.items():
                row = table.loc[(who, "t1", part)]
                assert row["n_voxels"] == kept.sum()
                if kept.any():
                    assert row["mean"] == pytest.approx(z[kept].mean(), rel=1e-5)
                    assert row["rms"] ** 2 == pytest.approx((z[kept] ** 2).mean(), rel=1e-5)
                    assert row["extreme"] == pytest.approx((abs(z[kept]) > 1).mean())
        assert table.loc[("new-01", "t1", "outside"), "n_voxels"] == space.n_voxels
        assert np.isnan(table.loc[("new-01", "t1", "inside"), "mean"])

    def test_bad_input(self, found):
        space = found.space("t1")
        with pytest.raises(CohortError, match="none of these people has a segmentation"):
            by_lesion(found, of(space, ["x", "y"]))
        from normfuse.testing import tiny_deviations

        with pytest.raises(CohortError, match="t1, pet is a table of regions"):
            by_lesion(tiny_deviations(), of(space, ["sub-a", "sub-b"]))
