"""The report: read as HTML and compared with the tables it was written from.

Its looks have no witness here; screenshots and a printed copy were judged by eye.
"""
from __future__ import annotations

import base64
import re
import struct
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import stats
from test_figures import realistic_deviations, settings

from normfuse import Evaluation, NormativeModel, TrainingPlan, load_atlas, z_checks
from normfuse.analyses import compare_distances, compare_groups, write_report
from normfuse.analyses.ranking import most_deviant
from normfuse.deviations import ROLE
from normfuse.errors import ComparisonError, OutputExistsError
from normfuse.testing import tiny_cohort

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, the text under each kind of tag, and the rows of tables."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.sections: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "section":
            self.sections.append(dict(attrs)["id"])
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data
        if "tbody" in self.open and {"td", "th"} & {*self.open[-2:]}:
            self.rows[-1].append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.texts["main"]).split())


def written(tmp_path, deviations, **options):
    path = write_report(deviations, tmp_path / "report.html", **{"with_ids": True, **options})
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open
    return page


def number(text):
    return float(text.replace("−", "-"))


@pytest.fixture(scope="module")
def deviations():
    return realistic_deviations()


@pytest.fixture(scope="module")
def comparison(deviations):
    two = deviations.select("diagnosis != 'MCI'")
    return compare_groups(two, "diagnosis", adjust=["age", "sex"])


@pytest.fixture(scope="module")
def full(deviations, comparison, tmp_path_factory):
    """Everything there is: a comparison, an atlas, the most deviant person."""
    figures, before = plt.get_fignums(), settings()
    path = tmp_path_factory.mktemp("full") / "new" / "report.html"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write_report(deviations, path, comparison=comparison, atlas=load_atlas("dk"),
                            n_subjects=1, with_ids=True) == path
    assert plt.get_fignums() == figures
    assert settings() == before
    return path


@pytest.fixture(scope="module")
def page(full):
    return Page(full.read_text(encoding="utf-8"))


def test_it_is_one_file_that_loads_nothing(full, page):
    assert [file.name for file in full.parent.iterdir()] == ["report.html"]
    assert full.stat().st_size < 6e6
    assert not page.open
    assert not {tag for tag, _ in page.tags} & {"link", "object", "base", "form", "embed"}
    for tag, attributes in page.tags:
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert tag != "iframe" or attributes["sandbox"] == "allow-scripts"
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") or name == "srcset" for name in attributes)
    css = "".join(page.texts["style"])
    assert "url(" not in css and "@import" not in css
    assert "@media print" in css
    policy, = (a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    runs = policy.split("script-src ")[1].split(";")[0].split()
    assert all(re.fullmatch(r"'sha256-[\w+/]{43}='", allowed) for allowed in runs)


def test_images_are_embedded_sharp_and_described(page):
    images = page.all("img")
    # missing, training, calibration, qq; forest and 3 maps; extremes, distances; person and 3 maps
    assert len(images) == 4 + (1 + 3) + 2 + (1 + 3)
    for image in images:
        png = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        width, _ = struct.unpack(">II", png[16:24])
        assert width / int(image["width"]) == pytest.approx(150 / 96, rel=0.01)
        assert len(image["alt"]) > 10


def test_contents_lead_to_every_section(page):
    ids = [attributes["id"] for tag, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"].removeprefix("#") for attributes in page.all("a")]
    assert set(links) == set(page.sections)
    assert [title.split(":")[0] for title in page.texts["h2"]] == [
        "Summary", "What was modelled", "Training", "Calibration on held-out controls", "Groups",
        "Extreme deviations and latent distance", "Everybody scored", "The most deviant people",
        "Provenance", "Methods, to be quoted", "Limits, and how to cite"]


def test_the_summary_says_who_was_scored_against_whom(page, comparison):
    assert "60 people were scored against 302 reference people" in page.words
    assert "210 of them; 52 told it when to stop; and 40 whom it never saw" in page.words
    best = comparison.table.sort_values("p").iloc[0]
    hits = (comparison.table["q"] < 0.05).sum()
    assert f"AD − CN: {hits} of 218 features differ at q < .05" in page.words
    assert f"g = {best['g']:.2f}".replace("-", "−") in page.words


def test_the_group_table_shows_z_and_raw_side_by_side(page, comparison):
    hits = comparison.significant()
    assert 3 < len(hits) < 218
    rows = [row for row in page.rows if len(row) == 9 and "+" in row[2]][:len(hits)]
    assert len(rows) == min(len(hits), 25)
    for row, (_, wanted) in zip(rows, hits.iterrows()):
        assert row[2] == f"{wanted['n_case']:.0f} + {wanted['n_baseline']:.0f}"
        for cell, name in ((row[3], "g"), (row[6], "raw_g")):
            shown = [number(part) for part in re.findall(r"[−\d.]+", cell)]
            np.testing.assert_allclose(
                shown, [wanted[c] for c in (name, f"{name}_low", f"{name}_high")], atol=0.0051)
    assert any(row[3] != row[6] for row in rows)
    assert comparison.family in page.words
    assert f"Deviations of kind {comparison.kind}. q:" in page.words
    assert all(note in page.words for note in comparison.notes)


def test_extremes_and_distance_are_tested_between_the_same_groups(page, deviations, comparison):
    test = compare_distances(deviations.select("diagnosis != 'MCI'"), "diagnosis")
    row, = (row for row in page.rows if row[:2] == ["AD − CN", "latent distance"])
    assert row[2] == "15 + 55"
    assert number(row[4].split()[0]) == pytest.approx(test.table["auc"].iloc[0], abs=0.0051)
    groups = {row[0] for row in page.rows if len(row) == 6 and row[1].startswith("extreme")}
    assert groups == {"AD", "CN"}


def test_the_most_deviant_person_has_a_page(page, deviations):
    subject = deviations.distance["p"].idxmin()
    assert page.texts["h3"][-1] == subject
    tiles = dict(zip(page.texts["dt"], page.texts["dd"]))
    assert tiles["age"] == f"{deviations.subjects.loc[subject, 'age']:g}"
    counts = deviations.extreme(1.96).loc[subject]
    assert tiles["t1, |z| > 1.96"] == f"{counts['t1']:.0f} of 82, 4.1 by chance"
    assert tiles["latent distance"].startswith(f"{deviations.distance['distance'][subject]:.2f}")


def test_people_are_ordered_by_distance_or_strongest_feature_whichever_is_rarer(deviations):
    distance = deviations.distance.copy()
    distance.loc[distance.index[[2, 7]]] = np.nan
    z = deviations.z.copy()
    z.iloc[[7, 30]] = np.nan  # of 7 nothing at all is known
    z.iloc[12, 5] = -6.0
    found = most_deviant(replace(deviations, z=z, distance=distance))
    wanted = {}
    for who, row in z.iterrows():
        p = 2 * stats.norm.sf(np.abs(row.dropna()))
        feature = stats.false_discovery_control(p).min() if len(p) else np.nan
        wanted[who] = np.fmin(feature, distance.loc[who, "p"])
        np.testing.assert_allclose(found["feature"].get(who, np.nan), feature)
        np.testing.assert_equal(found["latent"].get(who, np.nan), distance.loc[who, "p"])
    wanted = pd.Series(wanted).dropna()
    assert len(found) == len(wanted) == 59
    np.testing.assert_allclose(found["p"], wanted[found.index])
    assert found["p"].is_monotonic_increasing
    assert set(np.sign(found["latent"] - found["feature"]).dropna()) == {-1, 1}


def test_among_equals_the_farthest_come_first(deviations):
    z = deviations.z.copy()
    for row, value in ((20, 41.0), (4, -45.0), (50, 39.0)):  # their p is 0 to the last bit
        z.iloc[row, 8] = value
    assert most_deviant(replace(deviations, z=z)).index[:3].tolist() == list(z.index[[4, 20, 50]])


def test_a_focal_deviation_is_shown_although_the_whole_brain_is_ordinary(deviations, tmp_path):
    focal = deviations.distance["p"].idxmax()
    z = deviations.z.copy()
    z.loc[focal, ("t1", "Left-Hippocampus")] = -7.3
    page = written(tmp_path, replace(deviations, z=z), n_subjects=2)
    assert page.texts["h3"] == [focal, deviations.distance["p"].idxmin()]
    assert page.words.index("Chosen by the strongest feature") < \
        page.words.index("Chosen by the latent distance")
    assert page.texts["dd"][page.texts["dt"].index("smallest q of a feature")] == "< .001"
    assert "Strongest feature: L hippocampus in t1." in page.words
    assert "By the smaller of two p: that of the latent distance" in page.words
    assert "smallest Benjamini-Hochberg p over the person's own features" in page.words
    assert "nor for the 60 people it was chosen from" in page.words


def test_a_person_without_a_distance_can_be_the_most_deviant(deviations, tmp_path):
    who = deviations.z.index[9]
    z, distance = deviations.z.copy(), deviations.distance.copy()
    z.loc[who, ("t1", "Right-Amygdala")] = 6.5
    distance.loc[who, ["distance", "p"]] = np.nan
    page = written(tmp_path, replace(deviations, z=z, distance=distance), n_subjects=1)
    assert page.texts["h3"] == [who]
    assert "The latent distance is not known." in page.words


def test_provenance_and_kind_are_told(page, deviations):
    for told in ("WassersteinBarycenter()", "2025-01-02T03:04:05+00:00", "3.11.9", "dk in MNI152",
                 *deviations.reference.notes):
        assert told in page.words
    assert "own scan was in the encoder" in page.words
    assert "Desikan" in page.words


def test_calibration_says_in_words_when_a_share_is_off(deviations, tmp_path):
    rows = [{**row, "share": 0.12, "low": 0.09, "high": 0.15}
            if (row["quantity"], row["nominal"]) == ("z pet", 0.05) else row
            for row in deviations.reference.calibration]
    bad = replace(deviations, reference=replace(deviations.reference, calibration=rows))
    page = written(tmp_path, bad, n_subjects=0)
    assert ("z pet beyond the 5 % threshold in 12.0 % [9.0 % to 15.0 %], so deviations are "
            "overstated") in page.words
    marked = [attributes for tag, attributes in page.tags if attributes.get("class") == "marked"]
    assert len(marked) == 1


def test_ids_and_labels_are_text_and_nothing_else(deviations, tmp_path):
    attack, label = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'
    names = {deviations.distance["p"].idxmin(): attack}
    tables = {name: getattr(deviations, name).rename(index=names)
              for name in ("z", "observed", "expected", "latent", "distance", "subjects")}
    tables["subjects"]["diagnosis"] = tables["subjects"]["diagnosis"].replace("AD", label)
    odd = replace(deviations, **tables)
    page = written(tmp_path, odd, comparison=compare_groups(odd, "diagnosis"), n_subjects=1)
    assert all(tag.get("type") in (None, "application/json") for tag in page.all("script"))
    assert all(image["src"].startswith("data:image/png") for image in page.all("img"))
    assert page.texts["h3"][-1] == attack
    assert f"{label} − CN" in page.words
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert attack not in html and label not in html


def test_an_existing_file_is_kept_unless_it_may_be_replaced(deviations, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("yesterday's")
    with pytest.raises(OutputExistsError, match="already there"):
        write_report(deviations, path)
    assert path.read_text() == "yesterday's"
    write_report(deviations, path, n_subjects=0, overwrite=True)
    assert "60 people" in path.read_text(encoding="utf-8")


def test_a_refused_comparison_leaves_nothing_behind(deviations, comparison, tmp_path):
    ranks = compare_distances(deviations, "diagnosis")
    elsewhere = replace(comparison, group="syndrome")
    other = replace(comparison, kind="focal")
    for wrong, message in ((ranks, "made by compare_groups"), (elsewhere, "'syndrome' is not"),
                           (other, "of kind 'focal', the people were scored with kind 'reconstr")):
        with pytest.raises(ComparisonError, match=message):
            write_report(deviations, tmp_path / "report.html", comparison=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_of_old_did_not_say_its_kind(deviations, comparison, tmp_path):
    page = written(tmp_path, deviations, comparison=replace(comparison, kind=""), n_subjects=0)
    assert "does not say of which kind its deviations are" in page.words


def test_without_a_comparison_scored_people_stand_beside_controls(deviations, tmp_path):
    page = written(tmp_path, deviations, n_subjects=1)
    assert "#groups" not in [a["href"] for a in page.all("a")]
    assert "Mann-Whitney" not in page.words
    assert "no atlas was given" in page.words
    assert {row[0] for row in page.rows if len(row) == 6} == {"scored people", "held-out controls"}


def test_features_that_are_no_regions_have_no_map(deviations, comparison, tmp_path):
    atlas = load_atlas("dk")
    names = {feature: f"net{k}" for k, feature in
             enumerate(deviations.z.columns.get_level_values(1).unique())}
    tables = {name: getattr(deviations, name).rename(columns=names, level=1)
              for name in ("z", "observed", "expected")}
    page = written(tmp_path, replace(deviations, **tables, controls=None), atlas=atlas,
                   n_subjects=1)
    assert "There are no brain maps: none of the 218 features is a region" in page.words
    assert len(page.all("img")) == 4 + 2 + 1


def test_one_modality_and_controls_only(deviations, tmp_path):
    controls = deviations.controls
    columns = controls.z.columns[controls.z.columns.get_level_values(0) == "pet"]
    one = replace(controls, **{name: getattr(controls, name)[columns]
                               for name in ("z", "observed", "expected")})
    page = written(tmp_path, one, n_subjects=2)
    assert "40 people were scored" in page.words
    assert "a held-out control, scored against the others" in page.words
    assert {row[0] for row in page.rows if len(row) == 6} == {"held-out controls"}


def test_missing_modalities_and_distances_are_said(deviations, tmp_path):
    first, second = deviations.distance["p"].nsmallest(2).index
    z, distance = deviations.z.copy(), deviations.distance.copy()
    z.loc[first, "dti"] = np.nan
    z.loc[second] = np.nan
    distance.loc[distance.index[-3:]] = np.nan
    page = written(tmp_path, replace(deviations, z=z, distance=distance), n_subjects=2)
    assert re.search(r"Not measured: dti", page.words)
    assert "Not measured: t1, dti, pet. 0 of 0" in page.words
    assert "of 57 people" in page.words


def test_people_seen_in_training_are_counted_and_left_out(deviations, tmp_path):
    seen = deviations.distance["p"].nsmallest(7).index
    subjects = deviations.subjects.copy()
    subjects.loc[seen, ROLE] = "training"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = written(tmp_path, replace(deviations, subjects=subjects), n_subjects=1)
    assert "7 of the scored people were seen in training" in page.words
    assert page.texts["h3"][-1] == most_deviant(deviations).drop(seen).index[0]
    assert "of 53 people" in page.words


def test_nobody_left_and_a_reference_that_kept_nothing(deviations, tmp_path):
    bare = replace(deviations.reference, history=[], calibration=[], quantiles={}, notes=(),
                   versions={}, created="", covariates={})
    everyone = deviations.subjects.assign(**{ROLE: "early_stop"})
    page = written(tmp_path, replace(deviations, subjects=everyone, reference=bare, controls=None))
    assert "Nobody is left to show" in page.words
    assert "Calibration: unknown" in page.words
    assert "keeps no training history" in page.words
    assert not page.all("img")


def test_people_outside_the_reference_are_named(deviations, tmp_path):
    subjects = deviations.subjects.copy()
    old, new = subjects.index[[4, 9]]
    subjects.loc[old, "age"], subjects.loc[new, "site"] = 93.0, "east"
    page = written(tmp_path, replace(deviations, subjects=subjects), n_subjects=0)
    assert f"age of 1 people ({old}); site of 1 people ({new})" in page.words


def test_it_says_the_same_twice(deviations, tmp_path):
    texts = [write_report(deviations, tmp_path / name, n_subjects=1).read_text(encoding="utf-8")
             for name in ("one.html", "two.html")]
    one, two = (re.sub(r"Written by [^.]+\.[^.]+\.[^.]+ on [^U]+UTC", "", text) for text in texts)
    assert one == two


@pytest.fixture(scope="module")
def evaluation(deviations):
    """Of the held-out controls, as if of kind reconstruction; the spline regression invented."""
    controls = deviations.controls
    rows = [z_checks.of_feature(controls.observed[c], controls.observed[c] - 0.2 * controls.z[c],
                                controls.z[c]) for c in controls.z]
    table = pd.DataFrame(rows, controls.z.columns).assign(MSLL=-0.1)
    worse = (1.1 * table).drop(columns="n").add_suffix("_spline")
    return Evaluation(pd.concat([table, worse], axis=1), z_checks.coverage(controls.z),
                      z_checks.outer_centiles(controls.z), z_checks.leftover(controls),
                      z_checks.by_site(controls), 0.041, "reconstruction",
                      {"calibration": 30, "new": 10})


@pytest.fixture(scope="module")
def good(deviations, evaluation, tmp_path_factory):
    return written(tmp_path_factory.mktemp("good"), deviations, evaluation=evaluation,
                   n_subjects=0)


class TestHowGoodTheModelIs:
    def row(self, page, first, n_cells):
        row, = (row for row in page.rows if row and row[0] == first and len(row) == n_cells)
        return row

    def test_the_spline_regression_stands_beside_the_model(self, good, evaluation):
        assert "How good is the model" in good.texts["h2"]
        assert "#evaluation" in [a["href"] for a in good.all("a")]
        row = self.row(good, "explained variance (EXPV)", 4)
        mean = evaluation.features["EXPV"].mean()
        assert number(row[1]) == pytest.approx(mean, abs=0.00051)
        assert number(row[2]) == pytest.approx(1.1 * mean, abs=0.00051)
        assert "0.0410 with so many people" in good.words
        assert "Bear in mind that calibration people were judged by each other" in good.words
        assert "30 calibration people, each judged by what did not see them and 10 healthy " \
            "people whom the model never saw" in good.words

    def test_every_share_and_its_interval(self, good, evaluation):
        for at, what in ((0.5, "below the 0.5 % centile"), (97.5, "above the 97.5 % centile")):
            row, wanted = self.row(good, what, 5), evaluation.outer.loc[at]
            assert row[2] == f"{100 * wanted['share']:.1f} %"
            assert row[3] == f"{100 * wanted['low']:.1f} % to {100 * wanted['high']:.1f} %"
        assert self.row(good, "inside the central 95 %", 5)[1] == "95.0 %"

    def test_covariates_and_sites(self, good, evaluation):
        row, wanted = self.row(good, "site", 6), evaluation.leftover.loc["site"]
        assert row[1:3] == ["ANOVA", f"{wanted['n_features']} of 218"]
        assert number(row[4]) == pytest.approx(wanted["balanced_accuracy"], abs=0.0051)
        assert row[5].startswith("0.33 (")
        for site, facts in evaluation.sites.iterrows():
            assert number(self.row(good, site, 4)[3]) == pytest.approx(facts["sd"], abs=0.0051)

    def test_what_is_off_is_said_first(self, deviations, evaluation, tmp_path):
        off = replace(evaluation, coverage=evaluation.coverage.assign(low=0.96, high=0.97))
        page = written(tmp_path, deviations, evaluation=off, n_subjects=0)
        assert "Off, by a 95 % interval" in page.words and "inside the central 80 %" in page.words
        ahead = evaluation.features.assign(EXPV=1.0, MSLL=-9.0)
        fine = replace(evaluation, coverage=evaluation.coverage.assign(low=0, high=1),
                       features=ahead,
                       outer=evaluation.outer.assign(low=0, high=1),
                       leftover=evaluation.leftover.assign(n_features=0, chance_high=1))
        page = written(tmp_path / "fine", deviations, evaluation=fine, n_subjects=0)
        assert "Every interval below holds its nominal value" in page.words
        assert "Behind the spline" not in page.words
        behind = replace(fine, notes=("9 people of sites",), features=ahead.assign(
            EXPV=ahead["EXPV_spline"] - 0.1))
        page = written(tmp_path / "behind", deviations, evaluation=behind, n_subjects=0)
        assert f"knows covariates only: {behind.behind()[0]}." in page.words
        assert "(lower in " in page.words and "9 people of sites." in page.words

    def test_of_another_kind_is_refused(self, deviations, evaluation, tmp_path):
        with pytest.raises(ComparisonError, match="of kind 'focal'.*kind 'reconstruction'"):
            write_report(deviations, tmp_path / "report.html",
                         evaluation=replace(evaluation, kind="focal"))
        assert list(tmp_path.iterdir()) == []

    def test_names_of_sites_are_text_and_nothing_else(self, deviations, evaluation, tmp_path):
        label = '"><script>alert(1)</script>'
        odd = replace(evaluation, sites=evaluation.sites.rename(index={"north": label}))
        page = written(tmp_path, deviations, evaluation=odd, n_subjects=0)
        assert self.row(page, label, 4)
        assert label not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_kind_is_told_in_words_near_the_top(deviations, tmp_path):
    said = replace(deviations.reference, kind="covariates", meaning="how far <from> usual",
                   use="for changes & more")
    page = written(tmp_path, replace(deviations, reference=said), n_subjects=1)
    sentence = "of kind covariates: how far <from> usual. This kind is meant for changes & more."
    assert 0 < page.words.index(sentence) < page.words.index("What was modelled")
    assert "from>" not in {tag for tag, _ in page.tags}
    strongest = deviations.z.loc[page.texts["h3"][-1]]
    end = "below the 1st" if strongest.loc[strongest.abs().idxmax()] < 0 else "above the 99th"
    assert f"{end} centile: fewer than 1 in 100 comparable healthy people" in page.words


def test_the_sentence_comes_from_the_model():
    cohort = tiny_cohort(180, seed=2)
    plan = TrainingPlan(max_epochs=2, warmup=1, progress=False)
    model = NormativeModel(n_latent=2, plan=plan).fit(cohort.reference_subjects())
    for kind in model.kinds:
        reference = model.deviations(cohort.select("diagnosis == 'AD'"), kind=kind).reference
        assert (reference.kind, reference.meaning, reference.use) == (
            kind.name, kind.meaning, kind.use)
    said = model.citation()
    assert reference.choices == {"inference": "Refined()"} and "was refined" in said.text
    assert f"{sum(reference.n_subjects.values())} reference people" in said.text
    assert "@article{bingham2019," in said.bibtex
