"""What leaves the model: derived quantities by hand, and tables that survive the disk."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from normfuse.deviations import Deviations
from normfuse.errors import CohortError, ModelFileError, OutputExistsError
from normfuse.testing import tiny_deviations

TABLES = ("z", "observed", "expected", "attribution", "latent", "distance", "subjects")


@pytest.fixture
def made():
    return tiny_deviations()


@pytest.fixture
def saved(made, tmp_path):
    return made.save(tmp_path / "deviations")


def renamed(made, ids, **columns):
    """The same people with other ids, and more columns in the subjects table."""
    tables = {name: getattr(made, name).set_axis(pd.Index(ids, name="participant_id"), axis=0)
              for name in TABLES}
    return replace(made, **{**tables, "subjects": tables["subjects"].assign(**columns)})


def test_a_reference_prints_in_a_line(made):
    assert len(repr(made.reference)) < 300 and "latent" in repr(made.reference)


class TestDisk:
    def test_what_is_read_is_what_was_written(self, made, saved):
        again = Deviations.read(saved)
        for name in TABLES:
            pd.testing.assert_frame_equal(getattr(again, name), getattr(made, name),
                                          check_exact=True)
        assert again.reference == made.reference and again.controls is None

    def test_every_digit_survives(self, made, tmp_path):
        z = made.z * np.pi * 1e-7
        again = Deviations.read(replace(made, z=z).save(tmp_path / "fine"))
        pd.testing.assert_frame_equal(again.z, z, check_exact=True)

    def test_codes_stay_text_and_groups_may_be_called_na(self, made, tmp_path):
        odd = renamed(made, ["007", "1e3"], diagnosis=["NA", "None"], visit=["01", "1"],
                      score=[29.0, np.nan], note=["n/a", None])
        again = Deviations.read(odd.save(tmp_path / "odd")).subjects
        assert again.index.tolist() == ["007", "1e3"]
        assert again["diagnosis"].tolist() == ["NA", "None"]
        assert again["visit"].tolist() == ["01", "1"]
        assert again["score"].iloc[0] == 29.0 and np.isnan(again["score"].iloc[1])
        assert again["note"].iloc[0] == "n/a" and pd.isna(again["note"].iloc[1])

    def test_a_category_written_in_digits_stays_one(self, made, tmp_path):
        reference = replace(made.reference, covariates={"site": {"kind": "site", "levels": {}}})
        coded = replace(renamed(made, ["a", "b"], site=["1", "2"]), reference=reference)
        assert Deviations.read(coded.save(tmp_path / "x")).subjects["site"].tolist() == ["1", "2"]

    def test_an_existing_folder_is_kept_unless_asked(self, made, saved):
        (saved / "mine").write_text("x")
        with pytest.raises(OutputExistsError, match="already there.*--overwrite"):
            made.save(saved)
        assert (saved / "mine").exists()
        with pytest.raises(OutputExistsError, match="also holds mine, which would be lost"):
            made.save(saved, overwrite=True)
        assert (saved / "mine").exists() and (saved / "z.csv").exists()
        (saved / "mine").unlink()
        made.save(saved, overwrite=True)

    @pytest.mark.parametrize("name", ["z.csv", "subjects.csv", "reference.json"])
    def test_a_missing_or_broken_file(self, saved, name):
        (saved / name).write_text("{")
        with pytest.raises(ModelFileError, match="deviations"):
            Deviations.read(saved)
        (saved / name).unlink()
        with pytest.raises(ModelFileError, match="is not a folder of deviations"):
            Deviations.read(saved)

    def test_a_table_that_lost_a_row(self, saved):
        lines = (saved / "z.csv").read_text().splitlines()
        (saved / "z.csv").write_text("\n".join(lines[:-1]) + "\n")
        with pytest.raises(ModelFileError, match="z.csv and subjects.csv do not list the same"):
            Deviations.read(saved)

    def test_provenance_of_another_kind(self, saved):
        facts = json.loads((saved / "reference.json").read_text())
        (saved / "reference.json").write_text(json.dumps({**facts, "planet": "Mars"}))
        with pytest.raises(ModelFileError, match="planet"):
            Deviations.read(saved)


class TestDerived:
    def test_p_is_two_sided(self, made):
        assert made.p.loc["sub-b", ("t1", "insula")] == pytest.approx(2 * stats.norm.cdf(-2.5))
        assert made.p.isna().equals(made.z.isna())

    def test_extremes_are_counted_per_modality_and_absent_is_not_zero(self, made):
        both = made.extreme(1.96)
        assert both.loc["sub-b"].tolist() == [1, 1, 2] and np.isnan(both.loc["sub-a", "pet"])
        assert made.extreme(1.96, direction="below").loc["sub-b", "total"] == 1
        assert made.extreme(1.96, direction="above").loc["sub-b", "pet"] == 1
        with pytest.raises(CohortError, match="both, below or above; got 'up'"):
            made.extreme(direction="up")

    def test_select_by_query_and_by_id(self, made):
        assert made.select("diagnosis == 'AD'").z.index.tolist() == ["sub-b"]
        assert made.select(["sub-a"]).latent.index.tolist() == ["sub-a"]
        with pytest.raises(CohortError, match="not among these deviations: sub-x"):
            made.select(["sub-x"])

    def test_controls_are_added_once(self, made):
        controls = renamed(made, ["sub-a", "sub-c"])
        everyone = replace(made, controls=controls).with_controls()
        assert everyone.z.index.tolist() == ["sub-b", "sub-a", "sub-c"]
        assert everyone.controls is None
        assert made.with_controls() is made

    def test_representations_never_fail(self, made):
        assert "2 subjects" in repr(made) and "<table" in made._repr_html_()
        assert made.select([])._repr_html_()
