"""BIDS sessions: one visit a person to fit, all of them to compare; who has none is said.

The witness is the table of visits that was written.
"""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from input_forms import people, thickness, write

from normfuse.analyses import compare_visits
from normfuse.cohort import Cohort
from normfuse.deviations import Deviations
from normfuse.errors import CohortError
from normfuse.testing.fixtures import tiny_reference

FIRST = 'sessions = "sessions.tsv"\nsession = "first"'
EACH = 'sessions = "{id}/{id}_sessions.tsv"\nsession = "ses-02"'
T1 = '[modalities.t1]\ntable = "t1.tsv"\n'


def visits(n: int = 40) -> pd.DataFrame:
    """Two visits, of which the last five people have the first only; rows in no order."""
    who = people(n)
    first = pd.DataFrame({"participant_id": who.index, "session_id": "ses-01",
                          "acq_time": "2019-05-01T10:00:00", "age": who["age"].to_numpy()})
    second = first.iloc[:-5].assign(session_id="ses-02", acq_time="2021-05-01T10:00:00")
    second["age"] += 2
    return pd.concat([second, first], ignore_index=True)


def scans(table: pd.DataFrame) -> pd.DataFrame:
    """One row a visit, columns participant_id and session_id first; values tell visits apart."""
    thick = thickness(people()).fillna(2.5)
    rows = thick.loc[table["participant_id"]].reset_index(drop=True)
    rows *= np.where(table["session_id"] == "ses-02", 1.1, 1.0)[:, None]
    return pd.concat([table[["participant_id", "session_id"]], rows], axis=1)


@pytest.fixture
def study(tmp_path):
    """A root sessions.tsv, one file a person, a table by session and one by joined id."""
    table = visits()
    table.to_csv(tmp_path / "sessions.tsv", sep="\t", index=False)
    for who, own in table.groupby("participant_id"):
        (tmp_path / who).mkdir()
        own.drop(columns="participant_id").to_csv(tmp_path / who / f"{who}_sessions.tsv",
                                                  sep="\t", index=False)
    rows = scans(table)
    rows.to_csv(tmp_path / "t1.tsv", sep="\t", index=False)
    joined = rows["participant_id"] + "_" + rows["session_id"]
    rows.drop(columns="session_id").assign(participant_id=joined).to_csv(
        tmp_path / "joined.tsv", sep="\t", index=False)
    return tmp_path


def read(study, subjects: str, modality: str = T1, session: str | None = None) -> Cohort:
    who = people().drop(columns="age")
    return Cohort.read(write(study, modality, subjects=subjects, who=who), session=session)


def refusal(study, subjects: str, **more) -> str:
    with pytest.raises(CohortError) as caught:
        read(study, subjects, **more)
    return str(caught.value)


class TestOneVisit:
    def test_the_first_is_by_its_date_and_brings_its_age(self, study):
        cohort = read(study, FIRST)
        assert cohort.ids.tolist() == people().index.tolist()
        np.testing.assert_array_equal(cohort.subjects["age"], people()["age"])
        assert set(cohort.subjects["session"]) == {"ses-01"}
        np.testing.assert_array_equal(cohort.features["t1"], thickness(people()).fillna(2.5))

    @pytest.mark.parametrize("modality", [T1, T1.replace("t1", "joined", 2).replace(
        "modalities.joined", "modalities.t1")])
    @pytest.mark.filterwarnings("ignore:joined.tsv. 40 rows of visits")
    def test_a_named_one_leaves_out_who_has_none(self, study, modality):
        with pytest.warns(UserWarning, match="left out 5 of 40 subjects without the session"):
            cohort = read(study, EACH, modality)
        assert len(cohort) == 35
        np.testing.assert_allclose(cohort.subjects["age"], people()["age"].iloc[:35] + 2)
        np.testing.assert_allclose(cohort.features["t1"],
                                   thickness(people()).fillna(2.5).iloc[:35] * 1.1)

    def test_of_a_subjects_table_with_a_row_a_visit(self, tmp_path):
        table = visits().merge(people().drop(columns="age"), on="participant_id")
        scans(table).rename(columns={"session_id": "wave"}).to_csv(tmp_path / "t1.tsv", sep="\t",
                                                                   index=False)
        file = write(tmp_path, T1 + 'session_column = "wave"\n',
                     subjects='session_column = "wave"\nsession = "first"')
        table.rename(columns={"session_id": "wave"}).to_csv(tmp_path / "participants.tsv",
                                                            sep="\t", index=False)
        cohort = Cohort.read(file)
        np.testing.assert_array_equal(cohort.subjects["age"].loc[people().index], people()["age"])

    @pytest.mark.parametrize("subjects, words", [
        ('sessions = "sessions.tsv"', "names sessions but not which of them"),
        ('sessions = "nowhere.tsv"\nsession = "first"', "there is no table"),
        ('sessions = "{id}/{id}_x.tsv"\nsession = "first"', "fits none of 40 people"),
        ('sessions = "t1.tsv"\nsession = "ses-9"', "nobody has session 'ses-9'; there are ses-02"),
        ('session = "first"', "needs a table of visits")])
    def test_what_cannot_be_chosen(self, study, subjects, words):
        assert words in refusal(study, subjects)

    def test_a_visit_twice_and_visits_of_strangers(self, study):
        table = visits()
        pd.concat([table, table.iloc[[3]]]).to_csv(study / "sessions.tsv", sep="\t", index=False)
        assert "has a visit twice: ses-02 of" in refusal(study, FIRST)
        table.replace("sub-003", "sub-999").to_csv(study / "sessions.tsv", sep="\t", index=False)
        assert "sessions of sub-999, who are not in" in refusal(study, FIRST)


class TestAllVisits:
    def test_are_rows_that_compare_visits_understands(self, study):
        cohort = read(study, FIRST, session="all")
        assert len(cohort) == 75
        assert set(cohort.ids) == {f"{p}_{s}" for p, s in zip(visits()["participant_id"],
                                                              visits()["session_id"])}
        z = cohort.features.frame()
        latent = pd.DataFrame({"z1": 0.0}, cohort.ids)
        distance = pd.DataFrame({"distance": 0.0, "p": 0.5}, cohort.ids)
        found = Deviations(z=z, latent=latent, distance=distance, subjects=cohort.subjects,
                           observed=z, expected=z, reference=tiny_reference())
        changes = compare_visits(found, ("ses-01", "ses-02"), controls="diagnosis == 'CN'")
        seen_twice = thickness(people()).fillna(2.5).iloc[:35]
        np.testing.assert_allclose(changes.change.loc[seen_twice.index], 0.1 * seen_twice)
        assert len(changes.change) == 35 and changes.subjects["control"].sum() == 35

    def test_images_and_folders_are_found_by_person_and_session(self, study):
        from input_forms import write_stats

        thick = thickness(people())
        for _, row in visits().iterrows():
            place = study / "fs" / f"{row['participant_id']}_{row['session_id']}"
            write_stats(place, thick.loc[row["participant_id"]], None)
        modality = ('[modalities.t1]\nfreesurfer = "fs/{id}_{session}"\n'
                    'stats = "aparc.thickness"\n')
        assert len(read(study, FIRST, modality)) == 40
        assert len(read(study, FIRST, modality, session="all")) == 75
