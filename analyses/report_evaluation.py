"""The part of a report on how good the model is: rows for its tables."""
from __future__ import annotations

from typing import Any

from normfuse.evaluation import LENIENT, Evaluation, holds

# Metric -> what to call it, digits, and what a perfect model has.
METRICS = {
    "EXPV": ("explained variance (EXPV)", 3, "1"),
    "SMSE": ("standardised squared error (SMSE)", 3, "0"),
    "Rho": ("rank correlation with observed (Rho)", 3, "1"),
    "MSLL": ("mean standardised log loss (MSLL)", 3, "low"),
    "MACE": ("mean absolute centile error (MACE)", 4, "0"),
    "W": ("normality of z (Shapiro-Wilk W)", 3, "1"),
    "skew": ("skew of z", 2, "0"),
    "kurtosis": ("excess kurtosis of z", 2, "0"),
    "mean": ("mean of z", 3, "0"),
    "sd": ("sd of z", 3, "1"),
    "beyond_1.96": ("share of |z| beyond 1.96", 3, ".05"),
    "beyond_2.58": ("share of |z| beyond 2.58", 3, ".01"),
}
_WHO = {"calibration": "calibration people, each judged by what did not see them",
        "out_of_fold": "reference people, each judged by a model that did not see them",
        "new": "healthy people whom the model never saw"}


def evaluation_facts(evaluation: Evaluation) -> dict[str, Any]:
    """Rows and sentences; the template has the words around them."""
    beside = evaluation.beside_rival
    inside = evaluation.coverage.reset_index()
    beyond = evaluation.outer.reset_index()
    shares = [{**row, "what": f"inside the central {100 * row['nominal']:g} %"}
              for row in inside.to_dict("records")]
    shares += [{**row, "what": f"{row['side']} the {row['centile']:g} % centile"}
               for row in beyond.to_dict("records")]
    left = [{**row, "off": row["n_features"] > 0 or row["balanced_accuracy"] > row["chance_high"]}
            for row in evaluation.leftover.reset_index().to_dict("records")]
    return {
        "kind": evaluation.kind, "n_features": len(evaluation.features),
        "floor": evaluation.floor, "missed": evaluation.missed(),
        "behind": evaluation.behind(), "notes": evaluation.notes,
        "lenient": LENIENT if evaluation.is_lenient else "",
        "people": " and ".join(f"{n} {_WHO.get(role, role.replace('_', ' '))}"
                               for role, n in evaluation.people.items()),
        "metrics": [{"label": label, "digits": digits, "best": best,
                     "mine": beside.loc[name, evaluation.kind],
                     "spline": beside.loc[name, "spline"]}
                    for name, (label, digits, best) in METRICS.items() if name in beside.index],
        "shares": [{**row, "off": not holds(row)} for row in shares],
        "leftover": left, "sites": evaluation.sites.reset_index().to_dict("records")}
