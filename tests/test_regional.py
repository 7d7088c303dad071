"""Deviations of named regions.

Witness: each number is looked up by hand in the tables that went in. The atlas here has labels
0, 2, 300 and more, in another order than the features.
"""
from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from normfuse.analyses import RegionalDeviations, compare_groups, parcellate
from normfuse.deviations import ROLE, Deviations
from normfuse.errors import AtlasError, CohortError
from normfuse.testing import tiny_deviations
from normfuse.testing.fixtures import tiny_reference

REGIONS = pd.DataFrame(
    {"name": ["L-insula", "R-insula", "L-cuneus", "R-cuneus", "ventricle"],
     "hemisphere": ["left", "right", "left", "right", "midline"],
     "tissue": ["cortex"] * 4 + ["csf"],
     "lobe": ["insula", "insula", "occipital", "occipital", None],
     "volume_ml": [6.0, 6.5, 3.0, 2.5, 20.0]}, index=[300, 7, 2, 41, 19])
ATLAS = SimpleNamespace(name="toy", regions=REGIONS)
COLUMNS = [("t1", "R-cuneus"), ("t1", "ICV"), ("t1", "L-insula"), ("t1", "ventricle"),
           ("pet", "L-insula"), ("pet", "R-insula"), ("pet", "cerebellum"), ("dti", "tract_3")]


def made(n: int, role: str, seed: int) -> Deviations:
    rng = np.random.default_rng(seed)
    index = pd.Index([f"{role}-{i}" for i in rng.permutation(n)], name="participant_id")
    columns = pd.MultiIndex.from_tuples(COLUMNS, names=["modality", "feature"])
    z = pd.DataFrame(rng.normal(size=(n, len(COLUMNS))).round(3), index, columns)
    z.iloc[1, 4:7] = np.nan
    z.iloc[0, 2] = np.nan
    expected = pd.DataFrame(rng.uniform(2, 9, z.shape), index, columns)
    far = pd.DataFrame({"distance": 1.0, "p": 0.5, "n_calibration": 20}, index)
    return Deviations(z=z, observed=expected + 0.1 * z, expected=expected, latent=far[["p"]],
                      distance=far, reference=tiny_reference(),
                      subjects=pd.DataFrame({"dx": "AD" if role == "new" else "CN", ROLE: role},
                                            index))


@pytest.fixture
def deviations() -> Deviations:
    return replace(made(6, "new", 0), controls=made(9, "calibration", 1))


@pytest.fixture
def regional(deviations) -> RegionalDeviations:
    with pytest.warns(UserWarning, match="3 of 8 features are not regions of atlas toy.*t1 ICV"):
        return parcellate(deviations, ATLAS)


def test_joined_by_name_and_the_rest_is_reported(deviations, regional):
    assert regional.unmatched == (("t1", "ICV"), ("pet", "cerebellum"), ("dti", "tract_3"))
    kept = [c for c in COLUMNS if c not in regional.unmatched]
    for name in ("z", "observed", "expected"):
        pd.testing.assert_frame_equal(getattr(regional, name), getattr(deviations, name)[kept])
    assert regional.modalities == ("t1", "pet") and len(regional) == 6
    assert deviations.z.shape == (6, 8)  # the input is as it was


def test_the_long_table_repeats_every_number_with_its_own_region(deviations, regional):
    table = regional.table
    assert list(table) == ["subject", "modality", "region", "label", "hemisphere", "tissue",
                           "lobe", "z", "observed", "expected"]
    assert len(table) == 6 * 5
    facts = REGIONS.assign(label=REGIONS.index).set_index("name")
    for row in table.itertuples():
        for name in ("z", "observed", "expected"):
            np.testing.assert_equal(
                getattr(row, name), getattr(deviations, name).loc[row.subject,
                                                                  (row.modality, row.region)])
        for name in ("label", "hemisphere", "tissue"):
            assert getattr(row, name) == facts.loc[row.region, name]
    assert table.loc[table["region"] == "ventricle", "lobe"].isna().all()


def test_tables_in_another_order_are_aligned(deviations):
    rng = np.random.default_rng(5)
    rows, columns = rng.permutation(6), rng.permutation(8)
    mixed = replace(deviations, observed=deviations.observed.iloc[rows, columns],
                    expected=deviations.expected.iloc[rows])
    with pytest.warns(UserWarning):
        one, two = parcellate(deviations, ATLAS), parcellate(mixed, ATLAS)
    pd.testing.assert_frame_equal(one.table, two.table)


def test_summaries_are_plain_means_over_measured_regions(regional):
    found = regional.summarise("lobe", threshold=0.5)
    assert list(found) == ["subject", "modality", "lobe", "mean_z", "share_extreme", "n_regions"]
    for row in found.itertuples():
        regions = REGIONS["name"][REGIONS["lobe"] == row.lobe]
        z = regional.z.loc[row.subject, row.modality]
        z = z[z.index.isin(regions)].dropna()
        assert row.n_regions == len(z) and row.mean_z == pytest.approx(z.mean())
        assert row.share_extreme == pytest.approx((z.abs() > 0.5).mean())
    without_pet = regional.z.index[1]
    assert set(found.loc[found["subject"] == without_pet, "modality"]) == {"t1"}
    sides = regional.summarise("hemisphere")
    assert sides["n_regions"].sum() == regional.z.notna().sum().sum()
    with pytest.raises(CohortError, match="lobe, tissue, hemisphere; got 'gyrus'"):
        regional.summarise("gyrus")


def test_an_atlas_without_a_single_region_is_refused(deviations):
    other = SimpleNamespace(name="tracts", regions=REGIONS.assign(name=list("abcde")))
    with pytest.raises(AtlasError, match="none of the 8 features is a region of atlas tracts.*"
                                         "R-cuneus.*a, b"):
        parcellate(deviations, other)


def test_controls_come_along_into_a_comparison(deviations, regional):
    assert regional.controls is not None and len(regional.controls) == 9
    assert regional.controls.z.shape == (9, 5)
    everyone = regional.with_controls()
    assert len(everyone) == 15 and everyone.controls is None
    found = compare_groups(regional, "dx")
    assert found.baseline == "CN" and found.n == {"CN": 9, "AD": 6} and len(found.table) == 5
    whole = compare_groups(deviations, "dx").table.loc[found.table.index]
    columns = ["difference", "g", "g_low", "t", "p", "raw_t", "n_case", "n_baseline"]
    pd.testing.assert_frame_equal(found.table[columns], whole[columns])


def test_selecting_people_and_showing(regional):
    who = list(regional.z.index[[4, 2]])
    assert list(regional.select(who).table["subject"].unique()) == who
    assert "6 subjects" in repr(regional) and "4 of 5 regions of toy" in repr(regional)
    shown = regional._repr_html_()
    assert "cortex" in shown and "<b>RegionalDeviations</b>" in shown
    assert regional.distance.shape == (6, 3) and regional.reference.n_latent == 2


def test_an_atlas_may_be_named():
    made = tiny_deviations()
    names = {"insula": "ctx-lh-insula", "cuneus": "ctx-lh-cuneus"}
    tables = {name: getattr(made, name).rename(columns=names, level=1)
              for name in ("z", "observed", "expected")}
    regional = parcellate(replace(made, **tables), "dk")
    assert regional.atlas == "dk" and set(regional.table["hemisphere"]) == {"left"}
