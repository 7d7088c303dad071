"""Real images: those in MNI space are taken as they are, the others refused and named."""
from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pytest
from nilearn.image import resample_img, smooth_img

from normfuse.errors import ImageError
from normfuse.volumes import VolumePlan, read_images
from normfuse.volumes.one_image import read_image


@pytest.fixture(scope="module")
def images(shared_data):
    return shared_data / "images"


@pytest.mark.parametrize("scan", ["T1w", "T1c", "T2w", "FLAIR"])
@pytest.mark.parametrize("who", ["ms_mni2mm/openms07", "ms_mni2mm/openms19",
                                 "glioma_mni2mm/tcgadu7294"])
def test_patients_in_mni_space(images, tmp_path, who, scan):
    file = images / f"{who}_{scan}.nii.gz"
    plan = VolumePlan("grey_matter", extent="brain")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = read_images({"patient": file}, plan, cache=tmp_path)
    assert 0.97 < read_image(file, plan).facts.coverage < 0.995
    img = nib.load(file)
    wide = nib.Nifti1Image(np.pad(img.get_fdata(dtype=np.float32), 10), img.affine)
    wide.affine[:3, 3] -= 20  # the field of view ends in the brain stem; nilearn goes on with 0
    witness = resample_img(smooth_img(wide, 8), plan.space.affine, plan.space.shape,
                           force_resample=True, interpolation="linear", copy_header=True)
    inside = plan.space.coordinates()[:, 2] > -50
    np.testing.assert_allclose(table.frame().to_numpy()[0][inside],
                               plan.space.values(witness)[inside], atol=0.02)  # of about 600


def test_native_space_is_refused(images, tmp_path):
    files = {kind: images / f"dti_native/ds000114_sub-01_{kind}.nii.gz"
             for kind in ("FA", "MD", "AD", "RD", "b0")}
    for plan in (VolumePlan("white_matter"), VolumePlan("brain"), VolumePlan("grey_matter"),
                 VolumePlan("white_matter", extent="white_matter")):
        with pytest.raises(ImageError, match="5 of 5 images cannot be used") as caught:
            read_images(files, plan, name="fa", cache=tmp_path)
        assert "* not in MNI space, or cut: the MNI" in str(caught.value)
        assert "Register the image to MNI space" in str(caught.value)
        assert len(caught.value.findings) == 5


def test_lesion_masks_are_no_measurements(images, tmp_path):
    with pytest.raises(ImageError, match="a mask, no measurement"):
        read_images({"7": images / "ms_mni2mm/openms07_lesions.nii.gz"}, cache=tmp_path)


def test_maps_stored_left_to_right_on_another_grid(images, tmp_path):
    """SPM's 3 mm grid, LAS, big-endian or scaled integers; their mask ends at .90 of the brain."""
    files = {name: images / f"pet_group_maps/{name}.nii.gz"
             for name in ("CBF_ASL_MRI", "FDOPA_f18", "GABAa_FLUMAZENIL_c11")}
    plan = VolumePlan("grey_matter", resolution=3, smoothing=0, min_coverage=0.85)
    table = read_images(files, plan, cache=tmp_path)
    grey = {}
    for name, file in files.items():
        img = nib.load(file)
        assert nib.aff2axcodes(img.affine)[0] == "L"
        witness = resample_img(img, plan.space.affine, plan.space.shape, force_resample=True,
                               interpolation="linear", copy_header=True)
        row = table.select([name]).frame().to_numpy()[0]
        np.testing.assert_allclose(row, plan.space.values(witness), atol=2e-3)
        grey[name] = row
    # dopamine synthesis is highest in the striatum, on both sides
    where = plan.space.coordinates()[grey["FDOPA_f18"] > np.quantile(grey["FDOPA_f18"], 0.995)]
    assert np.abs(np.abs(where[:, 0]) - 24).mean() < 8 and 0.3 < (where[:, 0] < 0).mean() < 0.7
