"""Damaged and hostile models, deviations and results: refused with an error of ours, or read.

Check sums are made good again after every change: they guard against accidents, not malice.
Witness: none of ours; whatever hypothesis comes up with (``make fuzz`` tries thousands).
"""
from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fuzzing import altered, changes, damaged, edits, instead, refused, tries
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save

import normfuse as nf
from normfuse import z_checks
from normfuse.analyses import (Associations, GroupComparison, VoxelComparison, associations,
                               compare_groups)
from normfuse.analyses.kept_work import KeptWork
from normfuse.checkpoint import Checkpoint
from normfuse.model_file import JSON_NAME
from normfuse.signed import WEIGHTS_NAME, digest
from normfuse.models import OneLatent
from normfuse.space import Space
from normfuse.testing import tiny_cohort, tiny_deviations, tiny_voxel_deviations


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with everything that normfuse writes and reads again."""
    place = tmp_path_factory.mktemp("fuzz")
    nf.NormativeModel(model=OneLatent(n_latent=2, hidden=(4,)), calibration=nf.HeldOut(),
                      plan=nf.TrainingPlan(max_epochs=1, warmup=1, progress=False)
                      ).fit(tiny_cohort(70).reference_subjects()).save(place / "model")
    tiny_deviations().save(place / "deviations")
    voxels = tiny_voxel_deviations(3, 5)
    voxels.save(place / "voxels")
    rng, people = np.random.default_rng(0), tiny_cohort(60).subjects
    z = pd.DataFrame(rng.normal(size=(60, 3)), people.index, tiny_deviations().z.columns)
    d = replace(tiny_deviations(), z=z, observed=z, expected=z, subjects=people, latent=z[[]],
                distance=z[[]], attribution=None)
    compare_groups(d, "diagnosis", adjust=["age"]).save(place / "groups")
    scored = replace(d, subjects=people.assign(mmse=rng.normal(size=60)))
    associations(scored, "mmse", adjust=["age"]).save(place / "scores")
    rows = pd.DataFrame({"n": 60, "MACE": 0.03, "EXPV": 0.3, "EXPV_spline": 0.2, "MSLL": -0.1,
                         "MSLL_spline": -0.2}, z.columns)
    nf.Evaluation(rows, z_checks.coverage(z), z_checks.outer_centiles(z), z_checks.leftover(d),
                  z_checks.by_site(d), 0.04, "covariates", {"new": 60}).save(place / "evaluation")
    space = Space(np.ones((2, 3, 4), bool), np.diag([4.0, 4, 4, 1]), "MNI152NLin2009aSym")
    maps = {name: rng.random(24) for name in ("t", "q", "g", "n_case", "n_baseline", "reason")}
    VoxelComparison(maps, space, "dx", "AD", "CN", (), "OLS t", True, "BH", {"AD": 9, "CN": 8}
                    ).save(place / "compared")
    KeptWork(place / "work", {"seed": 1}).save("piece", t=rng.random(9))
    Checkpoint(place / "training.pt", 0.0).save("it", {"epoch": 3, "w": torch.ones(4)}, last=True)
    return place


def model(place: Path) -> object:
    found = nf.NormativeModel.load(place / "model")
    return repr(found), repr(found.fitted.reference), found.history


def deviations(place: Path, name: str = "deviations") -> object:
    d = nf.Deviations.read(place / name)
    parts = d.tables(), d.p, d.centile, d.extreme(2.0), repr(d.reference), len(d)
    return repr(d), d._repr_html_(), d.select(d.subjects.index[:1]).q, parts


READERS = {
    "model": model, "deviations": deviations,
    "voxels": lambda place: deviations(place, "voxels"),
    "groups": lambda place: (g := GroupComparison.read(place / "groups"), repr(g),
                             g._repr_html_()),
    "scores": lambda place: (a := Associations.read(place / "scores"), repr(a), a._repr_html_()),
    "evaluation": lambda place: (e := nf.Evaluation.read(place / "evaluation"), repr(e),
                                 e._repr_html_()),
    "compared": lambda place: (v := VoxelComparison.read(place / "compared"), repr(v),
                               v._repr_html_()),
    "work": lambda place: KeptWork(place / "work", {"seed": 1}).load("piece"),
    "training.pt": lambda place: Checkpoint(place / "training.pt").load("it")}


def files(place: Path, kinds: tuple[str, ...]) -> list[str]:
    """Those worth damaging, by their path."""
    return sorted(str(p.relative_to(place)) for p in place.rglob("*")
                  if p.name.endswith(kinds) and p.is_file())


def sign(place: Path, content: dict) -> bytes:
    """``model.json`` with check sums that fit."""
    content = {k: v for k, v in content.items() if k != "sha256"}
    content["weights_sha256"] = hashlib.sha256(
        (place / "model" / WEIGHTS_NAME).read_bytes()).hexdigest()
    return json.dumps({**content, "sha256": digest(content)}).encode()


def look(place: Path, name: str) -> str:
    reader = Path(name).parts[0]
    return refused(lambda: READERS[reader](place), place)


@pytest.mark.parametrize("name", READERS)
def test_all_are_read_as_they_are(place, name):
    assert look(place, name) == ""


@tries(80)
@given(data=st.data(), plan=edits)
def test_damaged_files(place, data, plan):
    name = data.draw(st.sampled_from(files(place, (
        ".json", ".csv", ".tsv", ".nii.gz", ".npz", ".pt", ".safetensors"))))
    with instead(place / name, damaged((place / name).read_bytes(), plan)):
        look(place, name)


@tries(80)
@given(data=st.data(), plan=changes)
def test_altered_facts(place, data, plan):
    name = data.draw(st.sampled_from(files(place, (".json",))))
    content = altered(json.loads((place / name).read_text()), plan)
    text = sign(place, content) if name == f"model/{JSON_NAME}" and isinstance(content, dict) \
        else json.dumps(content).encode()
    with instead(place / name, text):
        look(place, name)


@tries(25)
@given(plan=st.lists(st.tuples(st.integers(0, 10 ** 6), st.sampled_from(
    ["drop", "flat", "wide", "nan", "half", "name"])), min_size=1, max_size=3))
def test_altered_weights(place, plan):
    file = place / "model" / WEIGHTS_NAME
    tensors = load_file(file)
    for which, what in plan:
        key = sorted(tensors)[which % len(tensors)]
        t = tensors[key]
        change = {"flat": lambda: t.flatten(), "wide": lambda: torch.cat([t, t]),
                  "nan": lambda: torch.full_like(t.double(), torch.nan), "half": lambda: t.half()}
        if what in ("drop", "name"):
            tensors[f"{key}/../x"] = tensors.pop(key)
        else:
            tensors[key] = change[what]().contiguous()
    with instead(file, save(tensors)), instead(
            place / "model" / JSON_NAME, sign(place, json.loads(
                (place / "model" / JSON_NAME).read_text()))):
        look(place, "model")


def test_a_model_larger_than_its_weights_is_not_made(place):
    """It would take 60 GB, and be refused only then."""
    content = json.loads((place / "model" / JSON_NAME).read_text())
    content["model"]["options"]["hidden"] = [60_000, 60_000]
    with instead(place / "model" / JSON_NAME, sign(place, content)):
        assert "is of another size than the weights" in look(place, "model")


@tries(25)
@given(plan=edits)
def test_damaged_weights_with_a_good_check_sum(place, plan):
    file = place / "model" / WEIGHTS_NAME
    content = file.read_bytes()
    with instead(file, damaged(content[:3000], plan) + content[3000:]), instead(
            place / "model" / JSON_NAME, sign(place, json.loads(
                (place / "model" / JSON_NAME).read_text()))):
        look(place, "model")
