"""The report shows hostile names, groups, regions and notes as text and nothing else.

Witness: Python's HTML parser. Elements and attributes must be those of the same report of harmless
words, whatever is written in the data.
"""
from __future__ import annotations

import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuzzing import HOSTILE, refused, tries
from hypothesis import given
from hypothesis import strategies as st

from normfuse.analyses import compare_groups, write_report
from normfuse.deviations import ROLE, Deviations
from normfuse.testing.fixtures import tiny_reference

HARMLESS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


class Shape(HTMLParser):
    """Which elements with which attributes a page has, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, ...]] = set()
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {(tag,), *((tag, name) for name, _ in attrs)}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def deviations(words: list[str]) -> Deviations:
    """Twenty people whose ids, groups, regions, units and notes are these words."""
    modality, group, other, region, unit, note, subject, column = words
    rng = np.random.default_rng(1)
    ids = [f"{i}{subject}" for i in range(20)]
    columns = pd.MultiIndex.from_product([[modality], [f"{i}{region}" for i in range(3)]],
                                         names=["modality", "feature"])
    z = pd.DataFrame(rng.normal(size=(20, 3)), pd.Index(ids, name="participant_id"), columns)
    z.iloc[3] += 5
    people = pd.DataFrame({column: [f"1{group}", f"2{other}"] * 10, "age": rng.normal(60, 9, 20),
                           ROLE: "new"}, z.index)
    latent = pd.DataFrame(rng.normal(size=(20, 2)), z.index, ["z1", "z2"])
    distance = pd.DataFrame({"distance": 1.0, "p": rng.random(20), "n_calibration": 30}, z.index)
    reference = replace(tiny_reference(), fusion=note, notes=(note, "another"), meaning=note,
                        use=note, modalities={modality: {"unit": unit, "n_features": 3,
                                                         "n_present": 20}})
    return Deviations(z=z, observed=z, expected=z, latent=latent, distance=distance,
                      subjects=people, reference=reference)


def page(place: Path, words: list[str]) -> str:
    made, file = deviations(words), place / "out" / "report.html"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = refused(lambda: write_report(made, file, comparison=compare_groups(
            made, words[-1], adjust=["age"]), n_subjects=1), place, "out/")
    if said:
        assert not file.exists()
        return ""
    text = file.read_text(encoding="utf-8")
    assert [p.name for p in (place / "out").iterdir()] == ["report.html"]
    file.unlink()
    return text


@pytest.fixture(scope="module")
def harmless(tmp_path_factory) -> Shape:
    return Shape(page(tmp_path_factory.mktemp("harmless"), HARMLESS))


@tries(3)
@given(words=st.lists(st.sampled_from([w for w in HOSTILE if w.strip()]), min_size=8, max_size=8))
def test_no_element_and_no_attribute_comes_from_data(tmp_path_factory, harmless, words):
    text = page(tmp_path_factory.mktemp("report"), words)
    assert Shape(text).found <= harmless.found, words
    assert "{{ 7 * 7 }}" not in words or "{{ 7 * 7 }}" in text


MARKUP = ["<b>T1", "<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "</td><svg>",
          "{{ 7 * 7 }}mm", "</style><link href=x>", "sub-<i>&amp;", "dx\" onclick=\"x"]


def test_markup_is_shown_as_it_was_written(tmp_path, harmless):
    found = Shape(page(tmp_path, MARKUP))
    assert found.found <= harmless.found
    words = "".join(found.text)
    for word in MARKUP[:4]:
        assert word in words
    assert "{{ 7 * 7 }}mm" in words


def test_the_harmless_page_has_what_data_fill(harmless):
    words = "".join(harmless.text)
    assert all(word in words for word in ("alpha", "beta", "gamma", "delta", "zeta", "eta"))
    assert {("table",), ("td",), ("img", "src")} <= harmless.found
