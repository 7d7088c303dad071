"""What the pages hold: exact numbers, nobody's id, and everybody's page.

Witnesses: the tables that the pages were written from, the HTML specification's own reading of a
page (html.parser), and the SHA-256 of hashlib. How pages look was judged by eye.
"""
from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_figures import realistic_deviations
from test_report import Page

from normfuse import load_atlas
from normfuse.analyses import (Associations, MaxT, Report, StabilityPlan, VoxelFindings,
                               associations, compare_groups, extreme_counts, overlap, parcellate,
                               subtypes)
from normfuse.analyses.brain_viewer import scripts_of
from normfuse.analyses.data_tables import DataTable, Shown
from normfuse.analyses.ranking import most_deviant
from normfuse.analyses.voxel_regions import calibrates_voxels
from normfuse.citations import cite
from normfuse.deviations import ROLE, Reference
from normfuse.errors import CohortError, ComparisonError, ModelFileError, OutputExistsError
from normfuse.testing import tiny_deviations, tiny_voxel_deviations

SHUFFLES = MaxT(20, blocks=None, seed=0)


@pytest.fixture(scope="module")
def deviations():
    """Ids that no word of a page is made of, in notes too; p by rank and a clinical score."""
    made, rng = realistic_deviations(), np.random.default_rng(0)

    def named(part, letter):
        ids = {old: f"{letter}Q{k:03d}x" for k, old in enumerate(part.z.index)}
        tables = {name: table.rename(index=ids) for name, table in part.tables().items()}
        n = len(part)
        tables["distance"] = tables["distance"].assign(p_conformal=rng.uniform(0.1, 1, n).round(3))
        tables["subjects"] = tables["subjects"].assign(mmse=rng.normal(26, 3, n).round(1),
                                                       initials=list(ids.values()))
        return part.changed(**tables)

    people, controls = named(made, "P"), named(made.controls, "C")
    told = (f"t1 of {controls.z.index[3]}, gone-7 deviates 9.1 times as much as most healthy "
            "people's: look at these scans", f"PQ004x is odd; {people.z.index[11]}: not")
    return people.changed(controls=controls, reference=replace(people.reference, notes=told))


@pytest.fixture(scope="module")
def comparison(deviations):
    lacking = deviations.subjects["diagnosis"].where(deviations.subjects.index != "PQ001x")
    return compare_groups(deviations.changed(
        subjects=deviations.subjects.assign(diagnosis=lacking)), "diagnosis", adjust=["age"])


@pytest.fixture(scope="module")
def results(deviations, comparison):
    options = {"baseline": "CN", "shuffles": SHUFFLES}
    found = subtypes(deviations, plan=StabilityPlan(n_subsamples=4, n_null=3),
                     who="diagnosis != 'CN'")
    return [comparison, associations(deviations, ["mmse"], adjust=["age"]),
            overlap(deviations, "diagnosis", **options),
            extreme_counts(deviations, "diagnosis", thresholds=1.96, **options), found]


@pytest.fixture(scope="module")
def html(deviations, results):
    return Report(deviations, results, n_subjects=1).html()


def tables_of(html):
    """The JSON of every table by the name of its CSV."""
    found = re.findall(r'data-file="([^"]+)".*?<script type="application/json">(.*?)</script>',
                       html, re.S)
    return {name: json.loads(text) for name, text in found}


def frame_of(told):
    return pd.DataFrame(dict(zip(told["names"], told["data"])))


class TestIds:
    def test_none_is_in_a_page_nor_in_its_tables(self, deviations, results, html):
        assert any("PQ001x" in note for note in results[0].notes)
        ids = [*deviations.z.index, *deviations.controls.z.index, "gone-7"]
        pages = html + re.sub(r"\\u[0-9a-f]{4}", "", html)
        assert [i for i in ids if i in pages] == []
        assert "of some people deviates 9.1 times as much" in html
        assert "person 1<" in html and "left out 1 people without a value of diagnosis" in html

    def test_all_are_if_asked_for(self, deviations, comparison):
        page = Report(deviations, comparison, n_subjects=1, with_ids=True).html()
        assert [i for i in deviations.z.index if i not in page] == []
        assert "without a value of diagnosis (PQ001x)" in page

    def test_numbers_follow_the_pages_own_order(self, deviations, html):
        people = frame_of(tables_of(html)["people-table.csv"])
        order = most_deviant(deviations).index
        assert people["person"].tolist() == [f"person {k}" for k in range(1, 61)]
        np.testing.assert_array_equal(people["distance"], deviations.distance["distance"][order])
        np.testing.assert_array_equal(people["age"], deviations.subjects["age"][order])
        assert set(people) >= {"sex", "site", "diagnosis", "p_conformal", "measured_pet"}
        assert "initials" not in people and "mmse" not in people

    def test_nobody_is_named_by_voxels_that_people_are_shown_by(self):
        made = tiny_voxel_deviations()
        report = Report(made, voxels=VoxelFindings(deviations=made), n_subjects=1)
        page = report.html()
        assert "voxel by voxel" in page
        assert not re.search(r"new-\d\d|calibration-\d\d", page)


class TestTables:
    def test_they_hold_every_digit_of_the_results(self, results, html):
        told = tables_of(html)
        comparison, scores, maps, counts, found = results
        for name, result, sorted_by in (("g1-1-table.csv", comparison, True),
                                        ("f1-table.csv", scores, True),
                                        ("f2-table.csv", maps, True),
                                        ("f3-table.csv", counts, False),
                                        ("f4-stability.csv", found.stability, False)):
            table = getattr(result, "table", result)
            if name.startswith("g1"):
                first = table.index.get_level_values("contrast")[0]
                table = table.xs(first, level="contrast")
            table = table.reset_index()
            shown = frame_of(told[name])
            assert list(shown) == list(table) and len(shown) == len(table), name
            if sorted_by:
                table = table.sort_values("p").reset_index(drop=True)
            for column in table:
                if pd.api.types.is_numeric_dtype(table[column]):
                    np.testing.assert_array_equal(
                        shown[column].astype(float), table[column].astype(float), column)
                else:
                    assert shown[column].tolist() == table[column].astype(str).tolist()

    def test_their_words_family_and_pictures_are_shown(self, results, html):
        page = Page(html)
        words = page.words.replace("−", "-")
        for result in results[1:]:
            for line in result.summary().splitlines():
                if not line.startswith("note: "):
                    assert " ".join(line.split()) in words
        alts = [image["alt"] for image in page.all("img")]
        for alt in ("Strongest correlations with mmse", "Overlap: AD − CN",
                    "Stability of the clusters", "Who falls together with whom"):
            assert alt in alts

    def test_correlations_can_be_read_from_their_folder(self, results, tmp_path):
        read = Associations.read(results[1].save(tmp_path / "scores"))
        pd.testing.assert_frame_equal(read.table, results[1].table, check_exact=True)
        assert read.summary() == results[1].summary()
        with pytest.raises(ModelFileError, match="not a folder that Associations.save wrote"):
            Associations.read(tmp_path)

    def test_infinity_and_nothing_can_be_written_and_read(self):
        frame = pd.DataFrame({"t": [np.inf, -np.inf, np.nan, 1 / 3], "n": [1, 2, 3, 4],
                              "who": ["=1+1", None, "</script><b>", "\u2028"]})
        table = DataTable("t", frame, (Shown("t", ("t",), "number"),), "")
        told = json.loads(table.data)
        assert told["data"] == [["inf", "-inf", None, 1 / 3], [1, 2, 3, 4],
                                ["=1+1", None, "</script><b>", "\u2028"]]
        assert "<" not in table.data and "\u2028" not in table.data

    def test_a_covariate_called_as_one_of_our_columns_stays(self, deviations):
        odd = deviations.changed(
            subjects=deviations.subjects.rename(columns={"age": "distance"}),
            controls=None, reference=replace(deviations.reference, covariates={
                "distance": deviations.reference.covariates["age"]}))
        people = frame_of(tables_of(Report(odd, n_subjects=0).html())["people-table.csv"])
        assert people["distance (covariate)"].between(55, 84).all()
        assert people["distance"].max() < 12


class TestPages:
    def test_everybody_asked_for_has_one_that_the_index_leads_to(self, deviations, tmp_path):
        wanted = list(deviations.z.index[[5, 17]])
        report = Report(deviations)
        folder = report.write_subjects(tmp_path / "people", ids=wanted)
        order = list(most_deviant(deviations).index)
        names = {f"person-{order.index(who) + 1}.html": who for who in wanted}
        assert {f.name for f in folder.iterdir()} == {"index.html", *names}
        index = Page((folder / "index.html").read_text(encoding="utf-8"))
        assert {a["href"] for a in index.all("a") if "#" not in a["href"]} == set(names)
        for name, who in names.items():
            text = (folder / name).read_text(encoding="utf-8")
            assert not [i for i in deviations.z.index if i in text]
            told = frame_of(tables_of(text)["p1-features.csv"])
            z = deviations.z.loc[who].dropna()
            assert told["z"].abs().is_monotonic_decreasing and len(told) == len(z)
            keys = pd.MultiIndex.from_frame(told[["modality", "feature"]])
            np.testing.assert_array_equal(told["z"], z[keys])
            np.testing.assert_array_equal(told["observed"], deviations.observed.loc[who, keys])
            np.testing.assert_allclose(told["q"], stats.false_discovery_control(told["p"]))
            rank = deviations.distance.loc[who, "p_conformal"]
            assert f"by rank {rank:.3f}".replace("0.", ".") in Page(text).words
        with pytest.raises(OutputExistsError):
            report.write_subjects(tmp_path / "people", ids=wanted)

    def test_ids_name_files_only_if_asked_for_and_safe(self, deviations, tmp_path):
        who = deviations.z.index[0]
        Report(deviations, with_ids=True).write_subjects(tmp_path / "a", ids=[who])
        assert (tmp_path / "a" / f"{who}.html").exists()
        with pytest.raises(CohortError, match="no page can be written of nobody"):
            Report(deviations).write_subjects(tmp_path / "b", ids=["nobody"])
        odd = deviations.changed(controls=None, **{
            name: table.rename(index={who: "../up"}) for name, table in
            deviations.tables().items()})
        with pytest.raises(CohortError, match="cannot be used as a file name"):
            Report(odd, with_ids=True).write_subjects(tmp_path / "b", ids=["../up"])
        assert [f.name for f in tmp_path.iterdir()] == ["a"]

    def test_only_scripts_that_its_policy_names_by_their_hash_are_in_a_page(self):
        made = tiny_deviations()
        names = {"insula": "ctx-lh-insula", "cuneus": "ctx-rh-cuneus"}
        made = made.changed(**{t: getattr(made, t).rename(columns=names, level=1)
                               for t in ("z", "observed", "expected")})
        page = Report(made, atlas=load_atlas("dk"), n_subjects=2).html()
        policy = re.search(r'script-src ([^;]+);', page)[1].split()
        inside = [s for s, tag in zip(scripts_of(page), re.findall(r"<script([^>]*)>", page))
                  if "json" not in tag]
        pieces = json.loads(re.search(r'id="viewer-pieces">(.*?)</script>', page, re.S)[1])
        boxes = re.findall(r'data-viewer.*?<script type="application/json">(.*?)</script>', page,
                           re.S)
        assert len(boxes) == 2
        for html in [html for box in boxes for html in json.loads(box)]:
            whole = re.sub("\1(\\d+)\1", lambda found: pieces[int(found[1])], html)
            assert "<link" not in whole and whole.count("<canvas") == 1
            inside += scripts_of(whole)
        digests = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in inside}
        assert {f"'sha256-{digest}'" for digest in digests} == set(policy)

    def test_what_no_report_can_show_is_refused(self, deviations):
        with pytest.raises(ComparisonError, match="a report shows GroupComparison, Associations"):
            Report(deviations, [object()])
        with pytest.raises(ComparisonError, match="group 'dx' is not a column"):
            Report(deviations, group="dx")

    def test_groups_can_be_told_apart_without_a_comparison(self, deviations):
        page = Page(Report(deviations, group="diagnosis", n_subjects=0).html())
        assert "Groups are those of the column diagnosis" in page.words
        spread = {row[0] for row in page.rows if len(row) == 6 and "extreme" in row[1]}
        assert spread == {"AD", "CN", "MCI"}


class TestWhatChanceGives:
    def test_only_measured_features_count(self, deviations):
        z = deviations.z.copy()
        z.loc[:, ("dti", z["dti"].columns[20:])] = np.nan
        page = Page(Report(deviations.changed(z=z, controls=None), group="diagnosis",
                           n_subjects=1).html())
        rows = [row for row in page.rows if len(row) == 6 and row[1] == "extreme deviations, dti"]
        measured = z["dti"].notna().sum(axis=1)
        for row in rows:
            who = deviations.subjects.index[deviations.subjects["diagnosis"] == row[0]]
            n = measured[who]
            assert float(row[5]) == round(0.05 * n[n > 0].mean(), 1) == 1.0


class TestRegionsOfVoxels:
    @pytest.fixture
    def regional(self):
        made = tiny_voxel_deviations(n_controls=60)
        rows = [{"quantity": f"z {m}", "nominal": 0.05, "share": 0.31, "low": 0.3, "high": 0.32,
                 "n_subjects": 60, "n_values": 9, "mean": 0.0, "sd": 1.0} for m in ("t1", "all")]
        made = made.changed(reference=replace(made.reference, calibration=rows))
        with pytest.warns(UserWarning):
            return made, parcellate(made, "dk").deviations

    def test_calibration_is_of_the_regions(self, regional):
        _, found = regional
        row = next(r for r in found.reference.calibration
                   if r["quantity"] == "z t1" and r["nominal"] == 0.05)
        z = found.controls.z["t1"].dropna(axis=1, how="all")
        each = (z.abs() > stats.norm.isf(0.025)).mean(axis=1)
        assert row["share"] == pytest.approx(each.mean()) and row["n_subjects"] == 60
        low, high = stats.t.interval(0.95, 59, each.mean(), stats.sem(each))
        assert (row["low"], row["high"]) == pytest.approx((max(low, 0), high))
        assert not calibrates_voxels(found.reference)
        assert "31.0 %" not in Report(found, n_subjects=0).html()

    def test_of_a_folder_of_old_it_is_not_shown(self, regional):
        made, found = regional
        old = found.changed(reference=replace(found.reference,
                                              calibration=made.reference.calibration))
        page = Report(old, n_subjects=0).html()
        assert "The reference holds that of the voxels" in page and "31.0 %" not in page


class TestMethods:
    def test_what_was_used_is_named_with_its_sources(self, deviations, results):
        found = Report(deviations, results, atlas=load_atlas("dk")).citation()
        keys = [source.key for source in found.sources]
        assert len(keys) == len(set(keys))
        for key in ("kingma2014", "agueh2011", "benjamini1995", "hedges1981", "wolfers2018",
                    "mann1947", "abraham2014"):
            assert key in keys and f"{{{key}," in found.bibtex
        assert "cao2014" not in keys and "holm1979" not in keys
        assert all(found.text.count(source.short) == 1 for source in found.sources)
        assert found.text.count("Benjamini and Hochberg (1995)") == 4
        assert found.bibtex.count("@article{") == len(keys)

    def test_an_atlas_without_any_of_the_features_is_not_named(self, deviations):
        other = Report(deviations, atlas=replace(load_atlas("dk"), regions=load_atlas(
            "dk").regions.assign(name=lambda r: "x" + r["name"])))
        assert "atlas" not in other.citation().text
        assert "Desikan" not in other.html()

    @pytest.mark.parametrize("fusion, key, other", [
        ("GeneralizedWassersteinBarycenter()", "delon2021", "qiu2025"),
        ("SubsetMixture(ProductOfExperts())", "sutter2021", "hinton2002"),
        ("GeneralizedProductOfExperts()", "cao2014", "wu2018_")])
    def test_fusions_are_told_apart(self, fusion, key, other):
        keys = [s.key for s in cite(replace(tiny_deviations().reference, fusion=fusion)).sources]
        assert key in keys and other not in keys

    def test_a_reference_of_old_said_less(self):
        old = tiny_deviations().reference.to_dict()
        del old["choices"]
        read = Reference.from_dict(old)
        assert read.choices == {} and "refined" not in cite(read).text
        said = replace(read, choices={"inference": "Refined(steps=6)"})
        assert "refined" in cite(said).text


def test_how_many_healthy_people_have_anything_within_themselves_is_said(deviations, html):
    found = Report(deviations, group=None)._contents()
    least = found.order["feature"] < 0.05
    who = found.people.subjects["normfuse_people"].reindex(least.index)
    for kind, of in least.groupby(who):
        assert f"{of.sum()} of {len(of)} {kind}" in " ".join(html.split())


def test_people_seen_in_training_are_in_no_table(deviations):
    seen = most_deviant(deviations).index[:3]
    role = deviations.subjects[ROLE].where(~deviations.subjects.index.isin(seen), "training")
    page = Report(deviations.changed(subjects=deviations.subjects.assign(**{ROLE: role})),
                  n_subjects=0).html()
    assert len(frame_of(tables_of(page)["people-table.csv"])) == 57


def test_the_python_lines_of_the_guide(deviations, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    guide = Path(__file__).resolve().parents[1] / "docs" / "guide" / "report.md"
    code = re.search(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.S)[1]
    # without maps, which other tests draw
    exec(compile(code.replace(', atlas=load_atlas("dk")', ""), guide.name, "exec"),
         {"deviations": deviations})
    assert capsys.readouterr().out.startswith("Deviations were computed with normfuse")
    assert {f.name for f in tmp_path.iterdir()} == {"report.html", "people"}
