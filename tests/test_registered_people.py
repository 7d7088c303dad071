"""Folders of people in one frame: what is written, what is resumed, what is refused."""
from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from known_motions import COARSE, ROUGH, motion
from typer.testing import CliRunner

from normfuse.cli import app
from normfuse.cli.registering import found as found_files
from normfuse.errors import BegunWorkError, CohortError
from normfuse.imaging import registered_people
from normfuse.imaging.bias_fields import BiasCorrected
from normfuse.imaging.likeness import LearnedLikeness
from normfuse.imaging.registered_people import RegistrationPlan, mni_template, register_people
from normfuse.imaging.registration import register
from normfuse.imaging.registration_search import near_starts
from normfuse.imaging.registration_work import begin, weights_of
from normfuse.imaging.representations import ContrastiveRepresentations
from normfuse.imaging.transform import SpatialTransform
from normfuse.imaging.volume_grids import signal
from normfuse.testing import tiny_head, tiny_images
from normfuse.training import TrainingPlan

BRIEF = TrainingPlan(max_epochs=1, warmup=0, batch_size=8, validation_draws=1)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Two people, one without T1w, with a file that is none and one that was cut off."""
    folder = tmp_path_factory.mktemp("raw")
    for k, who in enumerate(("sub-1", "sub-2")):
        for contrast in ("T1w", "T2w", "FA")[k:]:
            head = tiny_head(contrast, seed=k, resolution=6)
            moved = motion((3 * k, 4, 5)).resample(head, head)
            nib.save(moved, folder / f"{who}_{contrast}.nii.gz")
    scan = nib.load(folder / "sub-1_T2w.nii.gz")
    nib.save(nib.Nifti1Image((scan.get_fdata() > 0.5) * np.float32(2), scan.affine),
             folder / "sub-1_mask.nii.gz")
    (folder / "sub-2_PD.nii.gz").write_bytes(b"no image")
    whole = (folder / "sub-2_FA.nii.gz").read_bytes()
    (folder / "sub-2_FA.nii.gz").write_bytes(whole[:len(whole) // 2])
    return folder


PLAN = RegistrationPlan(by=ROUGH, resolution=6, carried={"FA": "T2w", "mask": "T2w"},
                        starts=(near_starts()[0],))  # heads are hardly turned


class TestPeople:
    @pytest.fixture(scope="class")
    def done(self, raw, tmp_path_factory):
        out = tmp_path_factory.mktemp("done") / "mni"
        return out, register_people(found_files(f"{raw}/{{id}}_{{modality}}.nii.gz"), out, PLAN)

    def test_everything_is_there(self, done):
        out, table = done
        assert len(table) == 7 and table["ok"].sum() == 5
        problems = table.set_index(["person", "modality"])["problems"]["sub-2"]
        for modality, said in (("FA", "ended before"), ("PD", "cannot be read")):
            assert f"sub-2_{modality}.nii.gz: the file" in problems[modality]
            assert said in problems[modality]
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
        assert table["shown"][table["modality"] != "mask"].dropna().between(0.93, 1).all()
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

    def test_labels_stay_labels(self, done):
        out, _ = done
        name = "sub-1/sub-1_space-MNI152NLin2009aSym_{}.nii.gz"
        mask, scan = (nib.load(out / name.format(c)).get_fdata() for c in ("mask", "T2w"))
        assert set(np.unique(mask)) == {0, 2}
        assert np.mean((scan > 0.5) == (mask == 2)) > 0.95

    def test_work_goes_on_with_other_people(self, tmp_path):
        template, everybody = mni_template(8), {"a": {"T1w": "x"}, "b": {"T1w": "y"}}
        begin(tmp_path, PLAN, everybody, template)
        for who in everybody:
            (tmp_path / who).mkdir()
        begin(tmp_path, PLAN, {"a": everybody["a"]}, template)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "begun.json"]

    def test_a_stopped_run_goes_on(self, raw, tmp_path, monkeypatch):
        images = found_files(f"{raw}/{{id}}_{{modality}}.nii.gz")
        images = {who: {of: images[who][of]} for who, of in (("sub-1", "T1w"), ("sub-2", "T2w"))}
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
        with pytest.raises(BegunWorkError, match="begun with other settings"):
            register_people(images, tmp_path / "mni", RegistrationPlan(by=ROUGH, resolution=8))
        table = register_people(images, tmp_path / "mni", PLAN)
        assert len(calls) == 3 and len(table) == 2

    def test_a_damaged_anchor(self, raw, tmp_path):
        """Whoever goes with it says so; what was mended since is registered, and nobody else."""
        whole = (raw / "sub-1_T1w.nii.gz").read_bytes()
        (tmp_path / "sub-1_T1w.nii.gz").write_bytes(whole[:len(whole) // 2])
        (tmp_path / "sub-1_T2w.nii.gz").write_bytes((raw / "sub-1_T2w.nii.gz").read_bytes())
        (tmp_path / "sub-2_T2w.nii.gz").write_bytes((raw / "sub-2_T2w.nii.gz").read_bytes())
        images = found_files(f"{tmp_path}/{{id}}_{{modality}}.nii.gz")
        table = register_people(images, tmp_path / "mni", PLAN)
        assert table["ok"].tolist() == [False, False, True]
        assert "goes with T1w, which cannot be used" in table["problems"][1]
        work, before = tmp_path / ".again.unfinished", []

        def seen(who, *args):
            before.append(who)
            if len(before) == 2:
                raise KeyboardInterrupt
            return person(who, *args)

        person = registered_people._person
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registered_people, "_person", seen)
            with pytest.raises(KeyboardInterrupt):
                register_people(images, tmp_path / "again", PLAN)
            assert (work / "sub-1" / "quality.json").exists()
            (tmp_path / "sub-1_T1w.nii.gz").write_bytes(whole)
            table = register_people(images, tmp_path / "again", PLAN)
        assert before == ["sub-1", "sub-2", "sub-1", "sub-2"]
        assert table["ok"].all()

    def test_other_representations_are_other_settings(self, tmp_path):
        """Their repr is the same; what they learned is not."""
        model = [ContrastiveRepresentations((4, 8), patch=4, plan=BRIEF, seed=k).fit(tiny_images())
                 for k in (0, 1)]
        by = [BiasCorrected(LearnedLikeness(one, "T2w", "T1w")) for one in (*model, model[0])]
        sums = [weights_of(one) for one in (*by, model[1], COARSE)]
        assert sums[0] == sums[2] != sums[1] == sums[3] and len(sums[0][0]) == 64
        assert sums[4] == []
        with pytest.raises(ValueError, match="know T1w, T2w, FLAIR; got 'T9'"):
            LearnedLikeness(model[0], "T9", "T1w")
        with pytest.raises(TypeError, match="ContrastiveRepresentations.load"):
            LearnedLikeness("folder", "T2w", "T1w")

    @pytest.mark.parametrize("carried, said", (
        ({"T1w": "T2w"}, "the anchor goes to the template"), ({"FA": "FA"}, "is carried itself"),
        ({"FA": "MD", "MD": "T2w"}, "FA cannot go where MD goes: MD is carried itself")))
    def test_circles(self, carried, said, tmp_path):
        images = {"a": dict.fromkeys(("T1w", "T2w", "FA", "MD"), "file")}
        with pytest.raises(CohortError, match=said):
            register_people(images, tmp_path / "mni", RegistrationPlan(carried=carried))

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
        (tmp_path / "sub-1_PD.nii.gz").write_bytes(b"no image")
        done = self.run(f"{tmp_path}/{{id}}_{{modality}}.nii.gz", "--out", tmp_path / "mni",
                        "--resolution", 6, "--carry", "FA=T1w", "--json")
        said = json.loads(done.stdout)
        counts = {"people": 1, "images": 1, "left_out": 1, "doubtful": 0}
        assert [p["modality"] for p in said["result"]["problems"]] == ["PD"]
        assert done.exit_code == 0 and said["counts"] == counts
        again = f"{tmp_path}/{{id}}_{{modality}}.nii.gz", "--out", tmp_path / "mni"
        refused = self.run(*again)
        assert refused.exit_code == 1 and "already there" in refused.stderr
        file = tmp_path / "mni" / "command.json"
        assert json.loads(file.read_text())["options"]["carry"] == ["FA=T1w"]
        refused = self.run("--config", file, "--anchor", "t1w", "--out", tmp_path / "new")
        assert refused.exit_code == 1 and "'t1w' is 'T1w'" in " ".join(refused.stderr.split())
        (tmp_path / "mni" / "sub-1" / "thesis.doc").write_text("mine")
        refused = self.run(*again, "--overwrite")
        assert refused.exit_code == 1 and (tmp_path / "mni/sub-1/thesis.doc").exists()

    @pytest.mark.slow
    def test_written_over(self, raw, tmp_path):
        (tmp_path / "sub-1_T1w.nii.gz").write_bytes((raw / "sub-1_T1w.nii.gz").read_bytes())
        asked = f"{tmp_path}/{{id}}_{{modality}}.nii.gz", "--out", tmp_path / "mni"
        for more in (("--resolution", 6), ("--resolution", 8, "--overwrite", "--correct-bias")):
            assert self.run(*asked, *more).exit_code == 0
        assert nib.load(next((tmp_path / "mni/sub-1").glob("*T1w.nii.gz"))
                        ).header.get_zooms()[0] == 8

    @pytest.mark.parametrize("pattern, said", (
        ("{id}.nii.gz", "lacks {modality}"), ("{id}_{modality}_{run}.nii", "names run"),
        ("nowhere/{id}_{modality}.nii", "there is no folder nowhere"),
        ("*_{modality}*.nii", "lacks {id}")))
    def test_patterns_that_cannot_be_meant(self, pattern, said, tmp_path):
        done = self.run(pattern, "--out", tmp_path / "mni")
        assert done.exit_code == 1 and said in " ".join(done.stderr.split())

    def test_sidecars_are_no_images(self, tmp_path):
        for name in ("a_T1w.nii.gz", "a_T1w.json"):
            (tmp_path / name).write_bytes(b"")
        found = found_files(f"{tmp_path}/{{id}}_{{modality}}.*")
        assert found == {"a": {"T1w": tmp_path / "a_T1w.nii.gz"}}

    def test_a_pattern_that_nearly_fits(self, raw, tmp_path):
        done = self.run(f"{raw}/{{id}}_{{modality}}.mgz", "--out", tmp_path / "mni")
        assert done.exit_code == 1 and "sub-1_FA.nii.gz" in done.stderr.replace("\n", "")

    def test_cut_images_are_named(self, raw, tmp_path, monkeypatch):
        head = tiny_head(resolution=6)
        values = np.asanyarray(head.dataobj).copy()
        values[:, :, :8] = 0
        nib.save(nib.Nifti1Image(values, head.affine), tmp_path / "a_T1w.nii.gz")
        monkeypatch.setattr(registered_people, "mni_template", lambda _: head)
        done = self.run(f"{tmp_path}/{{id}}_{{modality}}.nii.gz", "--out", tmp_path / "mni",
                        "--kind", "rigid")
        share = (values[np.asanyarray(head.dataobj) > 0] > 0).mean()
        said = re.search(r"a T1w shows (\d+)% of the template's brain", done.stdout)
        assert said and abs(int(said[1]) / 100 - share) < 0.05

    def test_nothing_that_can_be_used(self, raw, tmp_path):
        (tmp_path / "a_T1w.nii.gz").write_bytes(b"no image")
        done = self.run(f"{tmp_path}/{{id}}_{{modality}}.nii.gz", "--out", tmp_path / "mni")
        assert done.exit_code == 1 and "none of 1 images could be" in " ".join(done.stderr.split())
        assert [file.name for file in tmp_path.iterdir()] == ["a_T1w.nii.gz"]

    def test_no_template(self, raw, tmp_path):
        asked = f"{raw}/{{id}}_{{modality}}.nii.gz", "--out", tmp_path / "mni", "--template"
        for name in ("sub-2_FA.nii.gz", "nowhere.nii"):
            done = self.run(*asked, raw / name)
            assert done.exit_code == 1 and name in done.stderr.replace("\n", "")
        assert not list(tmp_path.iterdir())

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
