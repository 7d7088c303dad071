"""Tables of real people, read as they come. What is found in them is for ``benchmarks/``."""
from __future__ import annotations

import pytest

import normfuse as nf
from normfuse.errors import CohortError
from normfuse.models import OneLatent

NSPN = """
[subjects]
table = "{folder}/nspn/cohort_nspn.csv"
id = "nspn_id"
[covariates]
age = "continuous"
sex = "categorical"
site = "site"
[modalities.thickness]
table = "{folder}/nspn/cohort_nspn.csv"
id = "nspn_id"
prefix = "CT_"
unit = "mm"
exclude = ["CT_lh_unknown_part1_thickness", "CT_rh_unknown_part1_thickness"]
[modalities.mt]
table = "{folder}/nspn/cohort_nspn.csv"
id = "nspn_id"
prefix = "MT_"
"""
ALS = """
[subjects]
table = "{folder}/als_tractometry/cohort_als.csv"
id = "subjectID"
[covariates]
age = "continuous"
sex = "categorical"
[reference]
query = "diagnosis == '{healthy}'"
[modalities.fa]
table = "{folder}/als_tractometry/cohort_als.csv"
id = "subjectID"
prefix = "FA_"
[modalities.md]
table = "{folder}/als_tractometry/cohort_als.csv"
id = "subjectID"
prefix = "MD_"
"""
pytestmark = pytest.mark.filterwarnings("ignore:age of .* lies outside")
QUICK = {"model": OneLatent(n_latent=3, hidden=(16,)),
         "plan": nf.TrainingPlan(max_epochs=8, warmup=3)}


@pytest.fixture
def read(shared_data, tmp_path):
    def reader(text: str, **words: str) -> nf.Cohort:
        (tmp_path / "cohort.toml").write_text(
            text.format(folder=(shared_data / "tables").as_posix(), **words))
        return nf.Cohort.read(tmp_path / "cohort.toml")
    return reader


def test_one_wide_table_of_two_modalities(read):
    cohort = read(NSPN)
    assert len(cohort) == 297 and list(cohort.subjects)[:4] == ["age", "sex", "site", "discovery"]
    assert "CT_lh_unknown_part1_thickness" not in cohort.modality("thickness").features
    assert cohort.present.all(axis=None)
    found = nf.NormativeModel(**QUICK).fit(cohort).deviations(cohort, include_seen=True)
    assert found.z.notna().all(axis=None) and len(found) == 297
    held_out = found.select("normfuse_role == 'calibration'").z
    assert 0.03 < (held_out.abs() > 1.96).mean(axis=None) < 0.07


def test_tracts_that_were_not_found_are_missing_values(read):
    with pytest.raises(CohortError, match="selects nobody of 48 subjects; diagnosis holds"):
        read(ALS, healthy="CN").reference_subjects()
    groups = read(ALS, healthy="CN").subjects["diagnosis"].value_counts()
    assert sorted(groups) == [24, 24]
    cohort = read(ALS, healthy=str(next(g for g in groups.index if g != "ALS")))
    assert len(cohort.reference_subjects()) == 24 and cohort.present.all(axis=None)
    assert cohort.features["fa"].isna().any(axis=None)
