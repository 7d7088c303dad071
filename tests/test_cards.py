"""What notebooks show of objects: escaped, bounded, and anonymous.

Witness of escaping: Python's own HTML parser, which must find no element or attribute but those a
card is made of. How a card looks has no witness; it was judged by eye on a dark and a light page.
"""
from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import normfuse as nf
from normfuse.analyses import (Associations, BenjaminiHochberg, ExtremeCounts, GroupComparison,
                               MaxT, OlsT, OverlapMaps, StabilityPlan, Subtypes, VisitChanges,
                               VoxelComparison, VoxelFindings, VoxelTable, parcellate)
from normfuse.cards import Card, arguments, short, some
from normfuse.checkup import Checkup
from normfuse.deviations import ROLE, Deviations
from normfuse.fusion import Learned, ProductOfExperts, SubsetMixture, WassersteinBarycenter
from normfuse.simulate import SimulatedCohort, Truth
from normfuse.simulated_volumes import SimulatedVolumes
from normfuse.stored import StoredTable
from normfuse.testing import tiny_cohort, tiny_deviations, tiny_voxel_deviations
from normfuse.training import History, TrainingPlan

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;$x$\n</td>" + "y" * 3000
NAMED = "<img src=x onerror=alert(1)>\"&amp;$x$'>"  # as hostile as a modality's name may be
MOST = 20_000  # characters of HTML, of 5000 people as of two
MOST_TEXT = 1500
ELEMENTS = {"div", "b", "small", "table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"style", "scope", "class", "colspan", "rowspan", "valign", "halign"}
N = 5000


def people(n: int = N) -> pd.Index:
    return pd.Index([f"secret-{i}" for i in range(n)], name=HOSTILE)


def features(width: int = 3) -> pd.MultiIndex:
    return pd.MultiIndex.from_product([[HOSTILE, "pet"], [f"{k} {HOSTILE}" for k in range(width)]],
                                      names=["modality", "feature"])


def reference():
    rows = [{"quantity": "z all", "nominal": 0.05, "share": 0.06, "low": 0.05, "high": 0.07,
             "n_subjects": 9}]
    one = {"unit": HOSTILE, "n_features": 3, "n_present": 5}
    many = {f"{k} {HOSTILE}": one for k in range(40)}
    return replace(tiny_deviations().reference, fusion=HOSTILE, model=HOSTILE, created=HOSTILE,
                   kind=HOSTILE, meaning=HOSTILE, notes=(HOSTILE,) * 30, calibration=rows,
                   modalities={HOSTILE: one, **many},
                   covariates={HOSTILE: {"kind": HOSTILE}}, n_subjects={HOSTILE: 100})


def deviations() -> Deviations:
    rng = np.random.default_rng(0)
    z = pd.DataFrame(rng.normal(size=(N, 6)), people(), features())
    z.iloc[:, 3:] = np.nan  # a modality of nobody
    subjects = pd.DataFrame({HOSTILE: HOSTILE, ROLE: "new"}, people())
    return replace(tiny_deviations(), z=z, observed=z, expected=z, latent=z.iloc[:, :2],
                   attribution=None, subjects=subjects, reference=reference(),
                   distance=pd.DataFrame({"distance": 1.0, "p": 0.01}, people()))


def cohort() -> nf.Cohort:
    z = deviations().z
    subjects = pd.DataFrame({HOSTILE: "a", "age": 50.0}, people())
    return nf.Cohort(subjects, {NAMED: z[HOSTILE], "pet": z["pet"]},
                     (nf.Modality(NAMED, tuple(z[HOSTILE]), HOSTILE),
                      nf.Modality("pet", tuple(z["pet"]))), {HOSTILE: "categorical"}, HOSTILE)


def results_table(first: str, **columns) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([[HOSTILE], *features(40).levels],
                                       names=[first, "modality", "feature"])
    rng = np.random.default_rng(1)
    known = ("g", "g_low", "g_high", "r", "r_low", "r_high", "p", "q", "p_fwe", "difference",
             "share_case")
    return pd.DataFrame({**{name: rng.uniform(size=len(index)) for name in known}, "n": 9,
                         "n_case": 5, "n_baseline": 7, "reason": HOSTILE, HOSTILE: 1.0, **columns},
                        index)


def of_voxels() -> VoxelComparison:
    space = nf.Space(np.ones((2, 3, 4), bool), np.eye(4) * 2, HOSTILE)
    t = np.linspace(-9, 9, 24)
    maps = dict(t=t, q=np.full(24, 0.01), g=t / 9, n_case=np.full(24, 5.0),
                n_baseline=np.full(24, 7.0), reason=np.zeros(24))
    return VoxelComparison(maps, space, HOSTILE, HOSTILE, "b" + HOSTILE, (HOSTILE,), HOSTILE, True,
                           HOSTILE, {HOSTILE: 5, "b" + HOSTILE: 7}, notes=(HOSTILE,) * 30)


def evaluation() -> nf.Evaluation:
    both = [f"{name}{end}" for name in ("EXPV", "MSLL", "MACE") for end in ("", "_spline")]
    share = dict(share=0.9, low=0.8, high=0.95, nominal=0.95, side=HOSTILE, n=50)
    leftover = dict(test=HOSTILE, n_features=3, n_tested=9, smallest_q=0.01, balanced_accuracy=0.9,
                    chance=0.5, chance_high=0.6)
    return nf.Evaluation(
        pd.DataFrame({name: 0.5 for name in both}, features()),
        pd.DataFrame(share, [0.95]).drop(columns="side").assign(nominal=0.95),
        pd.DataFrame(share, pd.Index([2.5], name="centile")),
        pd.DataFrame(leftover, pd.Index([HOSTILE], name="covariate")),
        pd.DataFrame({"n": 5, "mean": 0.1, "sd": 1.0}, [f"{k}{HOSTILE}" for k in range(200)]),
        0.03, HOSTILE, {HOSTILE: 5}, (HOSTILE,) * 30)


def subtypes() -> Subtypes:
    table = pd.DataFrame({"subtype": 1, "candidate": 1, "consensus": 0.9, "silhouette": 0.1},
                         people())
    names = [f"{a}{b}" for a in ("silhouette", "stability")
             for b in ("", "_null", "_low", "_high")]
    stability = pd.DataFrame({name: [0.5] for name in names}, pd.Index([2], name="n_clusters"))
    square = pd.DataFrame(np.zeros((2, 2)))
    return Subtypes(table, stability, square, square, square, square, 1, 2, 0.4, 0.05, HOSTILE,
                    HOSTILE, (HOSTILE,) * 30, HOSTILE)


def extremes() -> ExtremeCounts:
    index = pd.MultiIndex.from_product(
        [[HOSTILE], ["both"], [1.96], ["total", HOSTILE]],
        names=["contrast", "direction", "threshold", "modality"])
    numbers = ("case_mean", "baseline_mean", "expected", "auc", "auc_low", "auc_high", "p", "q",
               "p_permuted")
    table = pd.DataFrame({name: 0.5 for name in numbers}, index)
    return ExtremeCounts(table, table, pd.Series(), HOSTILE, HOSTILE, HOSTILE, {HOSTILE: 5})


def changes() -> VisitChanges:
    z = deviations().z.iloc[:60]
    subjects = pd.DataFrame({"control": np.arange(60) < 30}, z.index)
    controls = pd.DataFrame({"n": 30, "mean": 0.1, "sd": 1.0}, z.columns)
    return VisitChanges(z, z, controls, subjects, (HOSTILE, HOSTILE))


def regional():
    regions = pd.DataFrame({"name": features().levels[1], "hemisphere": "left", "tissue": HOSTILE,
                            "lobe": HOSTILE}, [1, 2, 3])

    class Named:
        name, labels, space = HOSTILE, regions, "MNI"

    Named.regions = regions
    return parcellate(deviations(), Named())


def stored(folder) -> StoredTable:
    return StoredTable.create(folder / "z", people(9), [f"{k}{HOSTILE}" for k in range(20)])


def atlas() -> nf.Atlas:
    labels = nib.Nifti1Image(np.arange(1, 9, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    regions = pd.DataFrame({"name": [f"{k}{HOSTILE}" for k in range(8)], "hemisphere": "",
                            "tissue": [f"{k}{HOSTILE}" for k in range(8)], "lobe": HOSTILE,
                            "volume_ml": 0.001}, range(1, 9))
    return nf.Atlas(HOSTILE, labels, regions, HOSTILE, HOSTILE, HOSTILE)


SPACE = nf.Space(np.ones((7, 8, 9), bool), np.eye(4) * 3, HOSTILE)
NOUNS = {
    "Cohort": lambda tmp: cohort(),
    "Modality": lambda tmp: cohort().modalities[0],
    "Modality of voxels": lambda tmp: nf.Modality(NAMED, SPACE.features, HOSTILE, space=SPACE),
    "NormativeModel": lambda tmp: nf.NormativeModel(),
    "Deviations": lambda tmp: deviations(),
    "Deviations of voxels": lambda tmp: tiny_voxel_deviations(),
    "Reference": lambda tmp: reference(),
    "Atlas": lambda tmp: atlas(),
    "Space": lambda tmp: SPACE,
    "Evaluation": lambda tmp: evaluation(),
    "Checkup": lambda tmp: Checkup(tmp / "cohort.toml", (HOSTILE,) * 30, (HOSTILE,),
                                   cohort=cohort()),
    "StoredTable": stored,
    "Truth": lambda tmp: Truth(deviations().z > 0, *[deviations().z] * 3, pd.Series()),
    "SimulatedCohort": lambda tmp: SimulatedCohort(cohort(), NOUNS["Truth"](tmp)),
    "SimulatedVolumes": lambda tmp: SimulatedVolumes(
        tmp / "a<b>c", pd.DataFrame({"participant_id": [HOSTILE]}), SPACE),
    "SimulatedImages": lambda tmp: nf.simulate_images(
        N, lesions={"tumour": 0.5, "sclerosis": 0.5}, ids=people()),
    "Segmentations": lambda tmp: nf.Segmentations(
        tuple(people(9)), np.ones((9, SPACE.n_voxels)), SPACE,
        {f"{k} {HOSTILE}": k for k in range(1, 200)}, notes=(HOSTILE,) * 30),
    "History": lambda tmp: History(pd.DataFrame({"epoch": range(1, 900), HOSTILE: 1.0}), 300),
    "TrainingPlan": lambda tmp: TrainingPlan(patience=9),
    "HeldOut": lambda tmp: nf.HeldOut(),
    "CrossFit": lambda tmp: nf.CrossFit(),
    "Ladder": lambda tmp: nf.Ladder(levels=(16, 6)),
    "fusion": lambda tmp: SubsetMixture(ProductOfExperts()),
    "fusion, sized": lambda tmp: WassersteinBarycenter(weights=Learned()).sized(3, 5),
    "WeightedMean": lambda tmp: nf.WeightedMean(weights=np.ones(10**6)),
    "RobustMean": lambda tmp: nf.RobustMean(),
    "GroupComparison": lambda tmp: GroupComparison(
        results_table("contrast"), HOSTILE, HOSTILE, (HOSTILE,), HOSTILE, {HOSTILE: 5},
        (HOSTILE,) * 30, HOSTILE),
    "Associations": lambda tmp: Associations(
        results_table("score"), (HOSTILE,), "spearman", (HOSTILE,), HOSTILE,
        n={HOSTILE: 5}, notes=(HOSTILE,) * 30),
    "OverlapMaps": lambda tmp: OverlapMaps(
        results_table("group"), results_table("contrast"), HOSTILE, HOSTILE, HOSTILE, HOSTILE,
        {HOSTILE: 5}, (HOSTILE,) * 30),
    "ExtremeCounts": lambda tmp: extremes(),
    "Subtypes": lambda tmp: subtypes(),
    "VisitChanges": lambda tmp: changes(),
    "RegionalDeviations": lambda tmp: regional(),
    "VoxelComparison": lambda tmp: of_voxels(),
    "VoxelTable": lambda tmp: VoxelTable.of(tiny_voxel_deviations(), "t1"),
    "VoxelFindings": lambda tmp: VoxelFindings({HOSTILE: of_voxels()}, deviations(),
                                               {HOSTILE: HOSTILE}),
    "MaxT": lambda tmp: MaxT(100, blocks=HOSTILE[:60]), "OlsT": lambda tmp: OlsT(),
    "BenjaminiHochberg": lambda tmp: BenjaminiHochberg(),
    "StabilityPlan": lambda tmp: StabilityPlan(),
}


class Seen(HTMLParser):
    """Elements, attributes and text of a page; refuses what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements, self.attributes, self.open, self.text = set(), set(), [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", NOUNS)
def test_card_is_escaped_bounded_and_readable_on_any_page(name, tmp_path):
    noun = NOUNS[name](tmp_path)
    html = noun._repr_html_()
    seen = Seen(html)
    assert seen.elements <= ELEMENTS | ({"br"} if "<br" in html else set())
    assert seen.attributes <= ATTRIBUTES
    assert type(noun).__name__ in seen.text or name == "SimulatedCohort"
    assert len(html) < MOST
    assert "secret-" not in html
    styles = " ".join(re.findall(r'style="([^"]*)"', html))
    assert not re.search(r"(^|[; ])color:|background:(?!none)", styles)


@pytest.mark.parametrize("name", NOUNS)
def test_text_is_bounded(name, tmp_path):
    text = repr(NOUNS[name](tmp_path))
    assert len(text) < MOST_TEXT and "secret-" not in text


def test_every_public_noun_has_a_card():
    import normfuse.analyses as analyses

    nouns = {name: getattr(home, name) for home in (nf, analyses) for name in home.__all__}
    without = {name for name, noun in nouns.items() if isinstance(noun, type)
               and not issubclass(noun, Exception) and not hasattr(noun, "_repr_html_")}
    assert without == set()


def test_cards_say_what_is_so():
    made = tiny_cohort()
    html = made._repr_html_()
    complete = int(made.present.all(axis=1).sum())
    assert f"{complete} of 40 people" in html and "diagnosis == &#x27;CN&#x27;" in html
    text = Seen(tiny_deviations()._repr_html_()).text
    assert "of 2 people" in text and "p &lt; .05" not in text and "p < .05 in 0 of 2" in text
    assert "25.0%" in text and "100.0%" in text  # 1 of 4 values of t1, 1 of 1 of pet
    assert "100 healthy people (60 training, 15 early stop, 25 calibration)" in text
    unfitted = nf.NormativeModel(ProductOfExperts(), seed=3)._repr_html_()
    assert "not fitted yet" in unfitted and "ProductOfExperts()" in unfitted


def test_a_card_of_deviations_on_disk_reads_nothing(tmp_path, monkeypatch):
    tiny_voxel_deviations().save(tmp_path / "d")
    found = Deviations.read(tmp_path / "d")
    monkeypatch.setattr(StoredTable, "values", None)
    assert "of 6 people" in found._repr_html_() and "2828" in repr(found)


def test_texts_are_shortened():
    assert short("a" * 10**8, 20) == "a" * 12 + "…" + "a" * 7
    assert some("abcdefg", 2) == "a, b, … (7 in all)"
    assert arguments(MaxT(7))["n_permutations"] == "7"
    assert Card("x", notes=["n"] * 9).html().count("<small>") == 6
