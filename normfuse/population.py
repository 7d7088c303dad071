"""A made-up population: what each region measures in health, and how people differ.

Written for :mod:`normfuse.simulate`. Levels, ageing and variation follow the literature only
roughly; nothing here is meant as a norm for real people.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .atlas import Atlas

SITES = ("A", "B", "C", "D")
YOUNGEST, OLDEST = 45.0, 90.0
N_SHARED, N_PRIVATE = 3, 2
# Half of what covariates leave unexplained is measurement and region noise; the other half is
# shared by all modalities or by the regions of one, in equal parts.
SHARE_SHARED, SHARE_PRIVATE = 0.25, 0.25
SATURATION = 0.5  # of tanh: at 2 SD the response is 24 % below a straight line
REACH_MM = 30.0  # regions this far apart correlate 0.61 in any smooth field
SIDEDNESS = 0.03  # share of a smooth field's variance that tells left from right
KINSHIP = 0.5  # correlation between modalities of a shared factor's loadings in one place

# Lowest and highest value of a region's parameter, as fractions of the region's level: the
# between-subject SD, linear and quadratic change from 45 to 90 years, and men minus women.
RANGES = {
    "t1": {"sd": (0.08, 0.12), "linear": (-0.10, -0.02), "quadratic": (-0.10, -0.02),
           "male": (0.04, 0.10)},
    "dti": {"sd": (0.05, 0.08), "linear": (-0.06, -0.01), "quadratic": (-0.08, -0.02),
            "male": (-0.01, 0.01)},
    "pet": {"sd": (0.05, 0.08), "linear": (0.01, 0.04), "quadratic": (0.01, 0.06),
            "male": (-0.015, 0.005)},
}
FA_RANGE, FA_CALLOSAL, SUVR_RANGE = (0.28, 0.48), 0.10, (1.02, 1.28)
SITE_SD = 0.35  # of a site's offsets, in SD of a feature; half the variance is common to regions


@dataclass(frozen=True, eq=False)
class Population:
    r"""Norms and variation of every feature; the healthy value of subject i, feature r is

    .. math:: x_{ir} = E_{ir} + \sigma_r\left(\sqrt{h}\,g(s_{ir}) + \sqrt{1-h}\,\epsilon_{ir}
              \right), \quad
              E_{ir} = b_r(1 + l_r t_i + q_r t_i^2 + m_r\,[\text{male}]) + \sigma_r o_{r,site(i)}

    with :math:`t = (\text{age} - 45) / 45`, factor scores :math:`f \sim N(0, I)`,
    :math:`s_{ir} = w_r \cdot f_i` with :math:`\|w_r\| = 1`, the saturating response
    :math:`g(s) = \tanh(s/2) / \text{sd}(\tanh(s/2))`, and :math:`h = 0.5`. So what is added to
    :math:`E` has mean 0 and standard deviation :math:`\sigma_r` in the population.

    Attributes
    ----------
    norms : DataFrame, shape (n_features, 5 + n_sites)
        Index (modality, feature). ``level`` (b) and ``sd`` in the modality's unit; ``linear``,
        ``quadratic``, ``male`` as fractions of the level; ``site_A`` … the offsets o, in SD.
    loadings : DataFrame, shape (n_features, n_factors)
        Rows of length 1; a private factor is 0 outside its modality.

    Examples
    --------
    >>> from normfuse.atlas import load_atlas
    >>> made_up = Population.draw(load_atlas("dk"), np.random.default_rng(0))
    >>> made_up.norms.groupby("modality").size().to_dict()
    {'dti': 75, 'pet': 82, 't1': 82}
    """

    norms: pd.DataFrame
    loadings: pd.DataFrame

    @classmethod
    def draw(cls, atlas: Atlas, rng: np.random.Generator) -> Population:
        """A population with smooth, nearly bilateral regional differences."""
        features = _features(atlas)
        smooth = _covariance(features)
        norms = _norms(features, smooth, rng)
        return cls(norms, _loadings(features, smooth, rng))

    def expected(self, people: pd.DataFrame) -> pd.DataFrame:
        """Normative expectation given ``age`` (years), ``sex`` (F, M) and ``site``.

        Returns
        -------
        DataFrame, shape (n_people, n_features), in each modality's unit
        """
        n = self.norms
        t = ((people["age"] - YOUNGEST) / (OLDEST - YOUNGEST)).to_numpy()[:, None]
        male = (people["sex"] == "M").to_numpy(dtype=float)[:, None]
        change = (n["linear"].to_numpy() * t + n["quadratic"].to_numpy() * t**2
                  + n["male"].to_numpy() * male)
        offsets = n[[f"site_{s}" for s in people["site"]]].to_numpy().T
        values = n["level"].to_numpy() * (1 + change) + n["sd"].to_numpy() * offsets
        return pd.DataFrame(values, index=people.index, columns=n.index)

    def variation(self, factors: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        """What covariates do not explain, in SD: mean 0 and variance 1 over people."""
        explained = SHARE_SHARED + SHARE_PRIVATE
        response = np.tanh(SATURATION * factors.to_numpy() @ self.loadings.to_numpy().T)
        noise = rng.standard_normal(response.shape)
        values = np.sqrt(explained) * response / _tanh_sd() + np.sqrt(1 - explained) * noise
        return pd.DataFrame(values, index=factors.index, columns=self.norms.index)


def _features(atlas: Atlas) -> pd.DataFrame:
    """Atlas regions that each modality measures, with place (mm), tissue and volume."""
    regions = atlas.regions.join(atlas.centroids())
    # FreeSurfer's "ventral diencephalon" mixes nuclei and tracts: neither grey matter nor tract.
    grey = regions[regions["tissue"].isin(["cortex", "subcortex"])
                   & ~regions["name"].str.endswith("VentralDC")]
    white = regions[regions["tissue"] == "white matter"]
    features = pd.concat({"t1": grey, "dti": white, "pet": grey}, names=["modality"])
    return features.rename(columns={"name": "feature"}).reset_index("modality").set_index(
        ["modality", "feature"])


def _covariance(features: pd.DataFrame) -> np.ndarray:
    place = features[["x", "y", "z"]].to_numpy()
    folded = np.column_stack([np.abs(place[:, 0]), place[:, 1:]])

    def squared_exponential(points: np.ndarray) -> np.ndarray:
        squares = ((points[:, None] - points[None]) ** 2).sum(axis=-1)
        return np.exp(-squares / (2 * REACH_MM**2))

    return ((1 - SIDEDNESS) * squared_exponential(folded)
            + SIDEDNESS * squared_exponential(place))


def _fields(covariance: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian fields of unit variance, shape (n, n_features)."""
    # The small diagonal keeps the factor real where two features share a place.
    root = np.linalg.cholesky(covariance + 1e-8 * np.eye(len(covariance)))
    return rng.standard_normal((n, len(covariance))) @ root.T


def _norms(features: pd.DataFrame, smooth: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    from scipy.special import ndtr

    of = features.index.get_level_values("modality")
    tissue, name = features["tissue"], features.index.get_level_values("feature")
    apart = smooth * (of.to_numpy()[:, None] == of.to_numpy()[None])  # modalities independent

    def between(lows: float | np.ndarray, highs: float | np.ndarray) -> np.ndarray:
        return lows + (highs - lows) * ndtr(_fields(apart, 1, rng)[0])

    norms = pd.DataFrame(index=features.index)
    fa = between(*FA_RANGE) + FA_CALLOSAL * name.str.startswith("CC_")
    suvr = between(*SUVR_RANGE)
    norms["level"] = np.select([of == "t1", of == "dti"],
                               [1000 * features["volume_ml"], fa], default=suvr)
    for part in ("sd", "linear", "quadratic", "male"):
        low, high = np.array([RANGES[m][part] for m in of]).T
        norms[part] = between(low, high)
    # The medial temporal lobe shrinks faster in old age, in health as in disease.
    early = (of == "t1") & tissue.eq("subcortex") & name.str.contains("Hippocampus|Amygdala")
    norms.loc[early, "quadratic"] -= 0.05
    norms["sd"] *= norms["level"]
    for site in SITES:
        common = pd.Series(rng.standard_normal(len(RANGES)), index=list(RANGES))[of].to_numpy()
        norms[f"site_{site}"] = SITE_SD * (common + _fields(apart, 1, rng)[0]) / np.sqrt(2)
    return norms


def _loadings(features: pd.DataFrame, smooth: np.ndarray,
              rng: np.random.Generator) -> pd.DataFrame:
    of = features.index.get_level_values("modality").to_numpy()
    same = of[:, None] == of[None]
    shared = _fields(smooth * np.where(same, 1.0, KINSHIP), N_SHARED, rng)
    # The first factor is general: who has more volume has more FA and takes up less tracer.
    shared[0] += np.where(of == "pet", -1.0, 1.0)
    shared /= np.linalg.norm(shared, axis=0)
    blocks = {f"shared-{k + 1}": np.sqrt(SHARE_SHARED) * row for k, row in enumerate(shared)}
    private = _fields(smooth, N_PRIVATE * len(RANGES), rng).reshape(len(RANGES), N_PRIVATE, -1)
    private /= np.linalg.norm(private, axis=1, keepdims=True)
    for modality, rows in zip(RANGES, private):
        blocks |= {f"{modality}-{k + 1}": np.sqrt(SHARE_PRIVATE) * row * (of == modality)
                   for k, row in enumerate(rows)}
    loadings = pd.DataFrame(blocks, index=features.index)
    return loadings / np.sqrt(SHARE_SHARED + SHARE_PRIVATE)


def _tanh_sd() -> float:
    """Standard deviation of tanh(SATURATION s) for standard normal s, by quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    return float(np.sqrt((weights * np.tanh(SATURATION * points) ** 2).sum() / weights.sum()))
