"""The command line: kinds of deviation, sites that a model does not know, and how good it is."""
from __future__ import annotations

import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli import contents, refusal, run

import normfuse as nf
from normfuse.cli import AGAINST, Deviation
from normfuse.inference import Refined
from normfuse.kinds import default_kinds
from normfuse.simulate import write_cohort
from normfuse.testing import tiny_cohort

SCORE = "score {home}/model {home}/elsewhere/cohort.toml --out {out}"
ADAPT = "adapt {home}/model {home}/elsewhere/cohort.toml --out {out}"
EVALUATE = "evaluate {home}/model {home}/unseen/cohort.toml --out {out}"

pytestmark = pytest.mark.filterwarnings("ignore:age of")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model of two sites; people there whom it has not seen, and people of a third."""
    place = tmp_path_factory.mktemp("work folder")
    everybody = tiny_cohort(360, seed=2)
    near, far = everybody.split("site != 'west'")
    write_cohort(near.select(near.ids[:170]), place / "cohort")
    write_cohort(near.select(near.ids[170:]), place / "unseen")
    write_cohort(far, place / "elsewhere")
    result = run("fit {home}/cohort/cohort.toml --out {home}/model --latent 2 --epochs 6",
                 home=shlex.quote(str(place)))
    assert result.exit_code == 0, result.output
    return place


@pytest.fixture
def home(place):
    return shlex.quote(str(place))


def test_kinds_are_the_librarys():
    assert [*Deviation] == [kind.name for kind in default_kinds(Refined())] == [*AGAINST]


class TestScore:
    @pytest.mark.parametrize("kind", [*Deviation])
    def test_every_kind_can_be_asked_for(self, kind, place, home, tmp_path):
        line = SCORE.replace("elsewhere", "unseen") + f" --kind {kind}"
        result = run(line, home=home, out=tmp_path / "d")
        assert result.exit_code == 0, result.output
        found = nf.Deviations.read(tmp_path / "d")
        model = nf.NormativeModel.load(place / "model")
        people = nf.Cohort.read(place / "unseen" / "cohort.toml")
        np.testing.assert_allclose(found.z, model.deviations(people, kind=kind).z)
        assert found.reference.kind == kind and found.reference.meaning in result.stdout

    def test_it_says_nothing_of_its_insides(self, home, tmp_path):
        """As of a read-only array that torch was given: a note to a stranger would be noise."""
        torch.set_warn_always(True)  # else once a process, and the fit was here before
        try:
            result = run(SCORE.replace("elsewhere", "unseen"), home=home, out=tmp_path / "d")
        finally:
            torch.set_warn_always(False)
        assert result.exit_code == 0 and "tensor" not in result.stderr

    def test_kinds_are_listed_with_what_they_are_for(self):
        said = " ".join(run("score --help").stdout.split())
        for name, what in AGAINST.items():
            assert f"{name}: {what}" in said

    def test_an_unknown_kind_is_refused_with_the_known_ones(self, home, tmp_path):
        result = run(SCORE + " --kind local", home=home, out=tmp_path / "d")
        assert result.exit_code == 2 and "leave_modality_out" in result.stderr

    def test_an_unseen_site_is_refused_unless_pooled(self, home, tmp_path):
        words = refusal(SCORE, home=home, out=tmp_path / "d")
        assert "site 'west'" in words and "normfuse adapt" in words
        assert "--unseen-site pooled" in words
        result = run(SCORE + " --unseen-site pooled", home=home, out=tmp_path / "d")
        assert result.exit_code == 0, result.output
        assert set(nf.Deviations.read(tmp_path / "d").subjects["site"]) == {"west"}


class TestAdapt:
    def test_an_adapted_model_knows_the_site_and_keeps_the_others(self, place, home, tmp_path):
        result = run(ADAPT + " --subjects \"age < 70\"", home=home, out=tmp_path / "adapted")
        assert result.exit_code == 0, result.output
        assert contents(tmp_path / "adapted") == {
            "model.json", "weights.safetensors", "command.json"}
        people = nf.Cohort.read(place / "elsewhere" / "cohort.toml").reference_subjects()
        taught = len(people.select("age < 70"))
        assert f"site west was added with {taught} healthy people" in result.stdout
        line = SCORE.replace("{home}/model", str(tmp_path / "adapted"))
        result = run(line + " --subjects \"age >= 70\"", home=home, out=tmp_path / "d")
        assert result.exit_code == 0, result.output
        before, after = (nf.NormativeModel.load(m) for m in (place / "model",
                                                             tmp_path / "adapted"))
        known = nf.Cohort.read(place / "unseen" / "cohort.toml")
        pd.testing.assert_frame_equal(after.deviations(known).z, before.deviations(known).z)

    @pytest.mark.parametrize("change, words", [
        (" --subjects \"age < 22\"", "10 at least are needed"),
        (" --subjects \"diagnosis == 'AD'\"", "selects nobody"),
        (("elsewhere", "unseen"), "the model knows site north, south already"),
        (("home}/model", "home}/modle"), "is not a saved model"),
    ])
    def test_refusals(self, change, words, home, tmp_path):
        line = ADAPT + change if isinstance(change, str) else ADAPT.replace(*change)
        assert words in refusal(line, home=home, out=tmp_path / "adapted")
        assert not list(tmp_path.iterdir())

    def test_a_model_is_not_replaced_by_itself(self, home):
        assert "is already there" in refusal(ADAPT.replace("{out}", "{home}/model"), home=home)


class TestEvaluate:
    def test_it_writes_what_the_library_says(self, place, home, tmp_path):
        result = run(EVALUATE + " --kind covariates", home=home, out=tmp_path / "e")
        assert result.exit_code == 0, result.output
        assert contents(tmp_path / "e") == {"command.json", "features.csv", "coverage.csv",
                                            "outer.csv", "leftover.csv", "sites.csv",
                                            "evaluation.json"}
        found = nf.Evaluation.read(tmp_path / "e")
        people = nf.Cohort.read(place / "unseen" / "cohort.toml").reference_subjects()
        wanted = nf.evaluate(nf.NormativeModel.load(place / "model"), people, kind="covariates")
        pd.testing.assert_frame_equal(found.features, wanted.features, check_dtype=False)
        assert wanted.summary() in result.stdout
        assert found.people == {"new": len(people)}

    def test_a_report_shows_it_if_it_is_of_the_same_kind(self, home, tmp_path):
        unseen = SCORE.replace("elsewhere", "unseen")
        lines = [unseen.replace("{out}", "{out}/d"), EVALUATE.replace("{out}", "{out}/e"),
                 EVALUATE.replace("{out}", "{out}/other") + " --kind covariates",
                 "report {out}/d --evaluation {out}/e --out {out}/report.html"]
        for line in lines:
            result = run(line, home=home, out=tmp_path)
            assert result.exit_code == 0, result.output
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "How good is the model" in page and "explained variance (EXPV)" in page
        assert "of kind 'covariates'" in refusal(
            "report {out}/d --evaluation {out}/other --out {out}/no.html", out=tmp_path)
        assert "is not a folder that `normfuse evaluate`" in refusal(
            "report {out}/d --evaluation {out}/d --out {out}/no.html", out=tmp_path)

    def test_people_of_an_unseen_site_if_they_are_asked_for(self, place, home, tmp_path):
        line = EVALUATE.replace("unseen/", "elsewhere/") + " --unseen-site pooled"
        result = run(line, home=home, out=tmp_path / "e")
        assert result.exit_code == 0, result.output
        found, n = nf.Evaluation.read(tmp_path / "e"), len(
            nf.Cohort.read(place / "elsewhere" / "cohort.toml").reference_subjects())
        assert found.people == {"new": n} and found.sites.index.tolist() == ["west"]
        assert f"note: {n} people of sites that the model does not know" in result.stdout

    @pytest.mark.parametrize("change, words", [
        (" --subjects \"age < 22\"", "are left to evaluate with; bring 10"),
        (("unseen", "elsewhere"), "site 'west'"),
        (("unseen", "nowhere"), "there is no file"),
    ])
    def test_refusals(self, change, words, home, tmp_path):
        line = EVALUATE + change if isinstance(change, str) else EVALUATE.replace(*change)
        assert words in refusal(line, home=home, out=tmp_path / "e")
        assert not list(tmp_path.iterdir())

    def test_nothing_is_replaced_unasked(self, home, tmp_path):
        (tmp_path / "thesis.doc").write_text("years of work")
        assert "is already there" in refusal(EVALUATE, home=home, out=tmp_path)
        assert "was not written by this command" in refusal(EVALUATE + " --overwrite", home=home,
                                                            out=tmp_path)
