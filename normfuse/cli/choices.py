"""The words the command line knows: names for objects, and options that several verbs have."""
from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..calibration import CrossFit, HeldOut
    from ..fusion import Aggregator
    from normfuse.analyses import MaxT

    from ..deviations import Deviations
    from ..runners import Runner

Fusion = StrEnum("Fusion", ["wasserstein", "gwb", "poe", "gpoe", "moment", "moe", "mopoe",
                            "mwb"])

Deviation = StrEnum("Deviation", ["focal", "leave_modality_out", "covariates",
                                  "reconstruction"])
Statistic = StrEnum("Statistic", ["t", "extent", "mass", "tfce"])
Correction = StrEnum("Correction", ["fdr_bh", "fdr_by", "holm", "max_t"])
TestChoice = StrEnum("TestChoice", ["ols", "hc3", "welch"])
Method = StrEnum("Method", ["spearman", "pearson"])
# a member cannot be called two-sided in the functional form without its value
Alternative = StrEnum("Alternative", {"two_sided": "two-sided", "greater": "greater",
                                      "less": "less"})
Calibration = StrEnum("Calibration", {"cross_fit": "cross-fit", "held_out": "held-out"})
UnseenSite = StrEnum("UnseenSite", ["pooled"])

AGAINST = {
    Deviation.focal: "against the rest of the person's own brain; where it departs from itself",
    Deviation.leave_modality_out: "against the person's other modalities; what one scan shows and "
                                  "the others do not",
    Deviation.covariates: "against what is usual at that age, sex and site; spread changes, and "
                          "comparison with published normative models",
    Deviation.reconstruction: "against a reconstruction that has seen the value; patterns outside "
                              "anything healthy",
}

WHEN = {
    Fusion.wasserstein: "means and sds average; no modality can outvote the others. The default",
    Fusion.gwb: "the same for what is shared, beside a private part of each; modalities that each "
                "see much of their own",
    Fusion.poe: "precisions add; the sharpest, if every modality's confidence can be trusted",
    Fusion.gpoe: "precisions average with learned weights; modalities that know unequally much",
    Fusion.moment: "one Gaussian as wide as the modalities disagree; disagreement means doubt",
    Fusion.moe: "one modality at a time; when most people have a single one",
    Fusion.mopoe: "products of all subsets, mixed; people with many different sets of scans",
    Fusion.mwb: "Wasserstein barycenters of all subsets, mixed; the same, nobody outvoted",
}

CohortFile = Annotated[Path, typer.Argument(
    metavar="COHORT.TOML", help="Names the tables, covariates, modalities and who is healthy.")]
ModelFolder = Annotated[Path, typer.Argument(
    metavar="MODEL", help="A folder that `normfuse fit` or `normfuse adapt` wrote.")]
KindChoice = Annotated[Deviation | None, typer.Option(
    help="What a value is compared with; by default the first of the model's, focal.")]
SiteChoice = Annotated[UnseenSite | None, typer.Option(
    help="Take people of a site that the model does not know for people of any site; else they "
    "are refused. `normfuse adapt` is better.")]
CalibrationChoice = Annotated[Calibration | None, typer.Option(
    help="Who says what is normal: 30 % of the healthy people, held out; or all, each judged by a "
    "model of the others (eleven fits). By default below 150 people the latter.")]
Only = Annotated[str | None, typer.Option(
    metavar="QUERY", help="Only these people, as \"diagnosis == 'AD'\".")]
Session = Annotated[str | None, typer.Option(
    metavar="NAME", help="Which visit, in place of what the cohort file says: first, last, all or "
    "the name of one, as ses-01.")]
DeviationsFolder = Annotated[Path, typer.Argument(
    metavar="DEVIATIONS", help="A folder that `normfuse score` wrote.")]
Scheduler = Annotated[str | None, typer.Option(
    metavar="ADDRESS", help="A Dask scheduler whose workers do the voxels, as tcp://node1:8786; "
    "they must see the same files.")]
Workers = Annotated[int, typer.Option(
    min=1, help="Processes on this machine that do the voxels.")]
NewFolder = Annotated[Path, typer.Option(help="A new folder for the result.")]
Adjust = Annotated[str | None, typer.Option(
    metavar="NAMES", help="Covariates of the linear model, as age,sex; or none. By default all "
    "that the model knows.")]
CorrectionChoice = Annotated[Correction, typer.Option(
    help="Of p over all rows: false discovery rate (Benjamini-Hochberg, or Benjamini-Yekutieli "
    "for any dependence), or family-wise (Holm, or the largest t of people who change places).")]
AlternativeChoice = Annotated[Alternative, typer.Option(
    help="Both sides, or one: greater or less.")]
Permutations = Annotated[int, typer.Option(
    min=1, help="For max_t: how often people change places, within sites.")]
Seed = Annotated[int, typer.Option(min=0, help="Of permutations.")]
Overwrite = Annotated[bool, typer.Option(
    "--overwrite", help="Replace what an earlier run of normfuse left there.")]


def aggregator(name: Fusion) -> Aggregator:
    """The object that a name stands for."""
    from .. import fusion as f

    made: dict[Fusion, Aggregator] = {
        Fusion.wasserstein: f.WassersteinBarycenter(), Fusion.poe: f.ProductOfExperts(),
        Fusion.gwb: f.GeneralizedWassersteinBarycenter(),
        Fusion.moment: f.MomentMatchingBarycenter(),
        Fusion.gpoe: f.GeneralizedProductOfExperts(), Fusion.moe: f.MixtureOfExperts(),
        Fusion.mopoe: f.SubsetMixture(f.ProductOfExperts()),
        Fusion.mwb: f.SubsetMixture(f.WassersteinBarycenter())}
    return made[name]


def calibration_of(name: Calibration | None) -> CrossFit | HeldOut | None:
    """The object; None leaves it to the number of people."""
    from ..calibration import CrossFit, HeldOut

    if name is None:
        return None
    return CrossFit() if name is Calibration.cross_fit else HeldOut()


def sizes(levels: str, latent: int | None) -> tuple[int, ...]:
    """Latent sizes from the command line."""
    words = [word.strip() for word in levels.split(",")]
    if latent is not None:
        raise typer.BadParameter("give --latent for one latent vector, or --levels for several "
                                 "levels")
    if not all(word.isdecimal() and int(word) for word in words):
        raise typer.BadParameter("--levels is a list of whole numbers such as 16,6; got "
                                 f"{levels!r}")
    return tuple(map(int, words))


def names(listed: str | None) -> list[str] | None:
    """What stands between commas; ``none`` is nobody's name."""
    if listed is None:
        return None
    return [name.strip() for name in listed.split(",") if name.strip() not in ("", "none")]


def correction_of(name: Correction, deviations: Deviations, permutations: int, seed: int
                  ) -> str | MaxT:
    """The word, or the object that shuffles people within the site that the model knows."""
    if name is not Correction.max_t:
        return str(name)
    from normfuse.analyses import MaxT
    from normfuse.analyses.comparable import site_column

    return MaxT(permutations, blocks=site_column(deviations), seed=seed)


def runner(scheduler: str | None, workers: int) -> Runner:
    """Who does the pieces."""
    from ..cluster import OnDask
    from ..runners import one_after_the_other

    return OnDask(scheduler, workers) if scheduler or workers > 1 else one_after_the_other
