"""Normal range of a region by age, healthy people as points, and one patient marked.

    python docs/gallery/plot_centiles.py --out figures/

Writes ``centiles.png``.
"""
from __future__ import annotations

import warnings

from gallery_style import WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import normfuse as nf
from normfuse.analyses.figures import plot_centiles

FEATURE = "Left-Hippocampus"
REGIONS = [FEATURE, "Right-Hippocampus", "Left-Amygdala", "Right-Amygdala", "Left-Thalamus-Proper",
           "Right-Thalamus-Proper"]
AGES = range(48, 89, 2)
SHARES = (0.025, 0.25, 0.5, 0.75, 0.975)


def a_cohort() -> nf.Cohort:
    """Grey-matter volumes of a few regions, of simulated people."""
    made = nf.simulate_cohort(600, 120, seed=4).cohort
    kept = made.select(made.ids[made.present["t1"].to_numpy()])
    return nf.Cohort.from_frames(kept.subjects, {"t1": kept.features["t1"][REGIONS]},
                                 covariates=kept.covariates, reference=kept.reference,
                                 units={"t1": "mm3"})


def draw_centiles() -> Figure:
    """A panel a sex; curves of the average site, and the patient with the lowest centile."""
    cohort = a_cohort()
    plan = nf.TrainingPlan(max_epochs=4, warmup=1, progress=False)  # centiles need no network
    model = nf.NormativeModel(n_latent=2, plan=plan, seed=0).fit(cohort.reference_subjects())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        deviations = model.deviations(cohort, kind="covariates")
    lowest = deviations.select("diagnosis == 'AD'").centile["t1", FEATURE].idxmin()
    their_sex = deviations.subjects.loc[lowest, "sex"]
    table = model.centiles(FEATURE, age=AGES, sex=["F", "M"], shares=SHARES)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6), sharey=True, layout="constrained")
    for ax, sex in zip(axes, "FM"):
        plot_centiles(table.xs(sex, level="sex", drop_level=False), FEATURE, deviations,
                      subject=lowest if sex == their_sex else None, ax=ax)
        ax.set_title({"F": "women", "M": "men"}[sex], loc="left", weight="bold")
    axes[1].set_ylabel("")
    return figure


FIGURES = {"centiles": draw_centiles}

if __name__ == "__main__":
    main(__doc__, FIGURES)
