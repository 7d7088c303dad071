"""People's anatomy: the template's tissues under smooth deformations, with lesions of two kinds."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.special import expit

from ..space import Space
from ..volumes.plan import tissue_probability
from ..volumes.sampling import FWHM_IN_SD

LABELS = {"tumour": {"core": 1, "oedema": 2, "enhancing": 3}, "sclerosis": {"lesion": 1}}
"""Label numbers of each kind of lesion, as in the Brain Tumour Segmentation challenge (but 3 for
what is 4 there)."""

DEFORMED_MM, DEFORMED_FWHM = 2.5, 40.0
"""Root mean square of each component of a displacement, and how smooth it is."""

OEDEMA_MM, CORE_SHARE, RIM_MM, RAGGED = (14.0, 26.0), (0.45, 0.65), (3.0, 5.0), 0.25
PLAQUES, PLAQUE_MM = 10, (3.0, 8.0)
"""Tumours: radius of the oedema, radius of the core as a share of it, width of the rim, how far
radii vary by direction. Plaques of multiple sclerosis: mean number, radii in mm."""

_ORDER = ("grey", "white", "fluid")


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Which tissues a person's voxels are made of.

    Attributes
    ----------
    shares : dict of ndarray, shape (n_voxels,)
        Tissue -> its share of each voxel; they sum to 1.
    labels : ndarray of uint8, shape (n_voxels,)
        0 healthy, else as in ``LABELS``.
    """

    shares: dict[str, np.ndarray]
    labels: np.ndarray


class Template:
    """The tissues of the ICBM 152 template that nilearn ships, on a grid.

    Parameters
    ----------
    space : Space

    Examples
    --------
    >>> from normfuse.volumes.plan import template_space
    >>> template = Template(template_space("brain", 8))
    >>> person = template.person(np.random.default_rng(0), lesion="tumour")
    >>> sorted(person.shares), np.unique(person.labels).tolist()
    (['core', 'enhancing', 'fluid', 'grey', 'oedema', 'white'], [0, 1, 2, 3])
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        whole = Space(np.ones(space.shape, bool), space.affine, space.name)
        grey, white = (np.clip(np.nan_to_num(tissue_probability(t, whole)), 0, 1)
                       for t in ("grey_matter", "white_matter"))
        grey = np.minimum(grey, 1 - white)
        self.maps = np.stack([grey, white, 1 - grey - white]).reshape(3, *space.shape)
        self.deep = distance_transform_edt(space.mask, space.voxel_size)

    def person(self, rng: np.random.Generator, lesion: str | None = None) -> Anatomy:
        """One person, without a lesion or with a ``"tumour"`` or ``"sclerosis"``."""
        where = self._displaced(rng)
        maps = np.stack([map_coordinates(m, where, order=1, mode="nearest") for m in self.maps])
        maps = np.clip(maps, 0, 1)
        maps /= maps.sum(0)
        tissues = dict(zip(_ORDER, maps[:, self.space.mask].astype(np.float32)))
        labels = np.zeros(self.space.n_voxels, dtype=np.uint8)
        if lesion is None:
            return Anatomy(tissues, labels)
        image = dict(zip(_ORDER, maps))
        weights = self._tumour(image, rng) if lesion == "tumour" else self._plaques(image, rng)
        inside = {name: w[self.space.mask].astype(np.float32) for name, w in weights.items()}
        rest = 1 - np.sum(list(inside.values()), axis=0)
        shares = {name: share * rest for name, share in tissues.items()} | inside
        numbers = dict(zip(inside, LABELS[lesion].values()))
        stacked = np.stack([rest, *inside.values()])
        order = np.array([0, *(numbers[name] for name in inside)], dtype=np.uint8)
        return Anatomy(shares, order[stacked.argmax(0)])

    def _displaced(self, rng: np.random.Generator) -> np.ndarray:
        """Voxel coordinates from which each voxel of a person comes."""
        size = np.array(self.space.voxel_size)
        grid = np.indices(self.space.shape, dtype=np.float32)
        for axis in range(3):
            grid[axis] += smooth(self.space, DEFORMED_FWHM, rng) * DEFORMED_MM / size[axis]
        return grid

    def _somewhere(self, chance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A voxel by chance, (3,) mm along the grid's own axes."""
        flat = (chance * self.space.mask).ravel().astype(np.float64)
        at = rng.choice(flat.size, p=flat / flat.sum())
        return np.array(np.unravel_index(at, self.space.shape)) * self.space.voxel_size

    def _distances(self, centre: np.ndarray, ragged: float, rng: np.random.Generator
                   ) -> np.ndarray:
        """mm from a centre, longer or shorter by direction and place."""
        grid = np.indices(self.space.shape, dtype=np.float32)
        away = grid * np.array(self.space.voxel_size)[:, None, None, None] \
            - centre[:, None, None, None]
        return np.sqrt((away**2).sum(0)) * np.exp(ragged * smooth(self.space, 20.0, rng))

    def _tumour(self, tissue: dict[str, np.ndarray], rng: np.random.Generator
                ) -> dict[str, np.ndarray]:
        """Necrotic core, enhancing rim around it, oedema in the white matter around that."""
        centre = self._somewhere(tissue["white"] * (self.deep > 15), rng)
        reach = rng.uniform(*OEDEMA_MM)
        core = reach * rng.uniform(*CORE_SHARE)
        width = min(rng.uniform(*RIM_MM), 0.7 * core)
        away = self._distances(centre, RAGGED, rng)
        edge = max(self.space.voxel_size) / 2
        spread = self._distances(centre, 1.5 * RAGGED, rng)
        wet = _below(spread, reach, 2 * edge) * np.clip(tissue["white"] + 0.3 * tissue["grey"],
                                                        0, 1)
        solid, inner = _below(away, core, edge), _below(away, core - width, edge)
        return {"core": inner, "oedema": wet * (1 - solid), "enhancing": solid - inner}

    def _plaques(self, tissue: dict[str, np.ndarray], rng: np.random.Generator
                 ) -> dict[str, np.ndarray]:
        """Plaques in white matter, most of them beside the ventricles."""
        near = gaussian_filter(tissue["fluid"] * (self.deep > 25),
                               6 / np.array(self.space.voxel_size))
        chance = tissue["white"] ** 2 * (0.02 + near)
        found = np.zeros(self.space.shape)
        for _ in range(1 + rng.poisson(PLAQUES - 1)):
            away = self._distances(self._somewhere(chance, rng), 0.2, rng)
            found = np.maximum(found, _below(away, rng.uniform(*PLAQUE_MM),
                                             max(self.space.voxel_size) / 2))
        return {"sclerosis": found * np.clip(1.2 * tissue["white"], 0, 1)}


def smooth(space: Space, fwhm: float, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian field of mean 0 and mean square 1 on the whole grid.

    Examples
    --------
    >>> from normfuse.volumes.plan import template_space
    >>> field = smooth(template_space("brain", 8), 40.0, np.random.default_rng(0))
    >>> round(float((field**2).mean()), 3)
    1.0
    """
    noise = rng.standard_normal(space.shape, dtype=np.float32)
    field = gaussian_filter(noise, fwhm / FWHM_IN_SD / np.array(space.voxel_size), mode="wrap")
    field -= field.mean()
    return field / np.sqrt((field**2).mean())


def _below(distance: np.ndarray, radius: float, edge: float) -> np.ndarray:
    """1 within a radius, 0 outside, over an edge of this width."""
    return expit((radius - distance) / (edge / 2))
