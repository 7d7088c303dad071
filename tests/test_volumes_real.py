"""Real images: those in MNI space are taken as they are, the others refused and named."""
from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template
from nilearn.image import resample_img, smooth_img

import normfuse as nf
from normfuse.errors import ImageError
from normfuse.volumes import VolumePlan, read_images, template_space, tissue_probability
from normfuse.volumes.one_image import read_image
from normfuse.volumes.sampling import sampled


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


PATIENTS = {"openms07": "ms_mni2mm", "openms19": "ms_mni2mm", "tcgadu7294": "glioma_mni2mm"}
SCANS = """
[modalities.{0}]
images = "{{scans}}_{0}.nii.gz"
mask = "brain"
resolution = 4
scaling = "white_matter"
"""


@pytest.fixture
def study(images, tmp_path):
    """Writes a ``cohort.toml`` of the patients, with what is said of their modalities."""
    rows = [f"{who},{images / folder / who}" for who, folder in PATIENTS.items()]
    (tmp_path / "people.csv").write_text("\n".join(["participant_id,scans", *rows]) + "\n")

    def write(*sections: str) -> Path:
        (tmp_path / "cohort.toml").write_text(
            '[subjects]\ntable = "people.csv"\n' + "".join(sections))
        return tmp_path / "cohort.toml"
    return write


def test_patients_as_a_cohort(study):
    """Read without a word; tissues are as bright as they should be, T1w is like the template."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cohort = nf.Cohort.read(study(*(SCANS.format(s) for s in ("T1w", "T1c", "T2w", "FLAIR"))))
    assert cohort.present.all(axis=None) and len(cohort) == 3
    space = template_space("brain", 4)
    white, grey = (tissue_probability(t, space) for t in ("white_matter", "grey_matter"))
    img = load_mni152_template(resolution=2)
    template = sampled(np.asarray(img.dataobj, dtype=np.float32), img.affine, space, fwhm=8)
    resembles = {}
    for modality in cohort.modalities:
        rows = cohort.features[modality.name].to_numpy()
        own, fluid = (np.median(rows[:, part], axis=1) for part in
                      (white > 0.9, white + grey < 0.2))
        # openms19 has 87 ml of lesions and wide ventricles, which smoothing brings in
        assert (np.abs(own[[0, 2]] - 1) < 0.15).all(), modality
        assert ((fluid > 1.5) if modality.name == "T2w" else (fluid < 0.8)).all(), modality
        resembles[modality.name] = np.array([np.corrcoef(row, template)[0, 1] for row in rows])
    assert (resembles["T1w"] > np.fmax(0.65, resembles["T2w"] + 0.4)).all()


def test_one_native_image_among_good_ones_is_named(study, images, tmp_path):
    native = images / "dti_native" / "ds000114_sub-01_FA.nii.gz"
    (tmp_path / "openms19_FA.nii.gz").symlink_to(native)
    with pytest.raises(ImageError) as caught:
        nf.Cohort.read(study(SCANS.format("T1w"), '[modalities.fa]\nimages = "{id}_FA.nii.gz"\n'))
    assert str(caught.value).startswith(
        "1 of 4 images cannot be used:\n* not in MNI space, or cut: the MNI brain should have "
        "signal in 90% of its voxels. Register the image to MNI space;")
    assert f"fa of openms19: 37.5% ({tmp_path / 'openms19_FA.nii.gz'})" in str(caught.value)
    assert str(caught.value).endswith("or go without fa, of which no image is left")


def test_group_maps_cut_by_a_mask_say_so_and_shifted_ones_stay_refused(images, tmp_path):
    """In MNI space, but cut: the message has both readings and the remedy of each."""
    files = {name: images / f"pet_group_maps/{name}.nii.gz"
             for name in ("CBF_ASL_MRI", "FDOPA_f18", "GABAa_FLUMAZENIL_c11")}
    with pytest.raises(ImageError) as caught:
        read_images(files, VolumePlan("brain"), name="pet", cache=tmp_path)
    assert {f.subject for f in caught.value.findings} < set(files)
    assert "if it shows only part of the brain, ask for less min_coverage" in str(caught.value)
    assert ": 89." in str(caught.value)
    generous = VolumePlan("brain", min_coverage=0.85)
    assert len(read_images(files, generous, cache=tmp_path).frame()) == 3
    img = nib.load(files["FDOPA_f18"])
    shift = np.eye(4)
    shift[1, 3] = 30  # mm
    nib.save(nib.Nifti1Image(np.asanyarray(img.dataobj), shift @ img.affine), tmp_path / "s.nii")
    with pytest.raises(ImageError, match="not in MNI space, or cut"):
        read_images({"shifted": tmp_path / "s.nii"}, generous, cache=tmp_path)
