"""Tables of ENIGMA, and what a BIDS participants.json says of the columns.

Witness of the names: the headers that ENIGMA's extraction scripts write (enigma.ini.usc.edu), and
the regions of the embedded atlas, which must know every name that is given.
"""
from __future__ import annotations

import json

import pandas as pd
import pytest
from input_forms import people, thickness, volumes, write

from normfuse import Cohort
from normfuse.checkup import examine
from normfuse.checkup_text import in_numbers, in_words
from normfuse.desikan import GYRI
from normfuse.errors import CohortError
from normfuse.tables.enigma import Enigma

SUBCORTEX = ("LLatVent,RLatVent,Lthal,Rthal,Lcaud,Rcaud,Lput,Rput,Lpal,Rpal,Lhippo,Rhippo,Lamyg,"
             "Ramyg,Laccumb,Raccumb,ICV").split(",")
CORTEX = [f"{side}_{gyrus}_thickavg" for side in "LR" for gyrus in GYRI]


def test_every_region_of_enigma_has_its_name_in_the_atlas():
    cortex = Enigma.of([*CORTEX, "LThickness", "RThickness", "LSurfArea", "RSurfArea", "ICV"])
    inside = Enigma.of(SUBCORTEX)
    assert (cortex.unit, len(cortex.names)) == ("mm", 68)
    assert (inside.unit, len(inside.names)) == ("mm3", 16)
    assert cortex.aside == ("LThickness", "RThickness", "LSurfArea", "RSurfArea", "ICV")
    assert len(set(cortex.names.values())) == 68 and inside.names["Raccumb"] == \
        "Right-Accumbens-area"
    assert Enigma.of([c.replace("thick", "surf") for c in CORTEX]).unit == "mm2"
    assert Enigma.of([*CORTEX, "Dx"]) is None and Enigma.of(["ICV"]) is None


def test_names_are_the_atlass():
    from normfuse import load_atlas

    known = set(load_atlas("dk").regions["name"])
    assert set(Enigma.of(CORTEX).names.values()) <= known
    assert set(Enigma.of(SUBCORTEX).names.values()) <= known


@pytest.fixture
def study(tmp_path):
    return write(tmp_path, "[modalities.t1]\ntable = \"t1.csv\"\n")


def enigma(study, **columns) -> None:
    thick = thickness(people()).rename(
        columns=lambda c: f"{c[0].upper()}_{c.split('_')[1]}_thickavg")
    thick.assign(ICV=volumes(people())["eTIV"], **columns).to_csv(
        study.parent / "t1.csv", index_label="SubjID")


def test_one_table(study):
    enigma(study)
    t1 = Cohort.read(study).modality("t1")
    assert t1.unit == "mm" and "ctx-rh-insula" in t1.features and len(t1.features) == 8
    text = study.read_text()
    study.write_text(text + "include = [\"ICV\"]\n")
    assert "ICV" in Cohort.read(study).modality("t1").features
    study.write_text(text + "names = \"file\"\nid = \"SubjID\"\n")
    assert "L_insula_thickavg" in Cohort.read(study).modality("t1").features


def test_of_any_other_column_it_is_an_ordinary_table(study):
    enigma(study, Dx=1.0)
    with pytest.raises(CohortError, match="has no id column 'participant_id'"):
        Cohort.read(study)


def test_units_and_levels_of_bids_are_shown(study):
    enigma(study)
    (study.parent / "participants.json").write_text(json.dumps({
        "age": {"Description": "at the scan", "Units": "years"},
        "sex": {"Levels": {"F": "female", "M": {"Description": "male"}}},
        "diagnosis": {"Levels": {"CN": "healthy"}}, "TermURL": "http://x", "hand": {"Levels": 3}}))
    found = examine(study)
    said, facts = in_words(found), in_numbers(found)
    assert found.fine and " years, median " in said
    assert "F (female) " in said and "M (male) " in said and "CN (healthy) 35" in said
    assert facts["covariates"]["age"]["unit"] == "years"
    assert facts["meanings"]["sex"] == {"F": "female", "M": "male"}
    assert [s for s in found.suspicious if "participants.json" in s] == [
        "diagnosis holds 'AD', which participants.json does not list; it lists 'CN'"]


def test_numbers_that_are_levels_are_listed_by_their_number(study):
    enigma(study)
    who = pd.read_csv(study.parent / "participants.tsv", sep="\t").assign(hand=[1] * 39 + [2])
    who.to_csv(study.parent / "participants.tsv", sep="\t", index=False)
    (study.parent / "participants.json").write_text('{"hand": {"Levels": {"1": "r", "2": "l"}}}')
    assert not any("participants.json" in text for text in examine(study).suspicious)


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "[" * 4000])
def test_a_damaged_description_is_said_and_not_used(study, text):
    enigma(study)
    (study.parent / "participants.json").write_text(text)
    found = examine(study)
    assert found.fine and found.described == {}
    assert any("participants.json cannot be understood" in note for note in found.notes)


def test_an_empty_reference_column_is_named(study):
    enigma(study)
    who = pd.read_csv(study.parent / "participants.tsv", sep="\t").assign(diagnosis="n/a")
    who.to_csv(study.parent / "participants.tsv", sep="\t", index=False)
    with pytest.raises(CohortError, match="diagnosis is empty for everybody"):
        Cohort.read(study).reference_subjects()
    assert any("diagnosis is empty for everybody" in text for text in examine(study).problems)
