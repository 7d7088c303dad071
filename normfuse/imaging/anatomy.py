"""People's anatomy: the template's tissues under smooth deformations, with lesions of two kinds.

All is drawn in mm, so that a person is nearly the same on every grid.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.special import expit

from ..space import Space
from ..volumes.plan import TEMPLATE_CORNER, TEMPLATE_MM, tissue_probability
from ..volumes.sampling import FWHM_IN_SD

LABELS = {"tumour": {"core": 1, "oedema": 2, "enhancing": 3}, "sclerosis": {"lesion": 1}}
"""Label numbers of each kind of lesion; a tumour's as in the Brain Tumour Segmentation challenge
since 2023 (before, enhancing was 4)."""

DEFORMED_MM, DEFORMED_FWHM = 2.5, 40.0
"""sd of each component of a displacement, and how smooth it is."""

YOUNG, WIDER_MM = 20.0, 4.5
"""Age from which ventricles widen, and by how much their steepest wall moves in 60 years."""

OEDEMA_MM, CORE_SHARE, RIM_MM, RAGGED = (16.0, 28.0), (0.5, 0.7), (2.5, 4.5), 0.25
PLAQUES, PLAQUE_MM, ANYWHERE = 10, (3.0, 8.0), 0.005
"""Tumours: radius of the oedema, radius of the core as a share of it, width of the rim, how far
radii vary by direction. Plaques of multiple sclerosis: mean number, radii in mm, how
likely white matter far from ventricles is, where 1 is inside one."""

TUMOUR_DEPTH, VENTRICLE_DEPTH = 15.0, 25.0
"""mm below the brain's surface: from where tumours begin, and fluid is a ventricle's."""

_TRIES = 2048
_ORDER = ("grey", "white", "fluid")


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Which tissues a person's voxels are made of.

    Attributes
    ----------
    shares : dict of ndarray, float32, shape (n_voxels,)
        Tissue -> its share of each voxel; they sum to 1.
    labels : ndarray of uint8, shape (n_voxels,)
        The largest part of a lesion, as in ``LABELS``, where it fills more than half of a voxel;
        else 0.
    """

    shares: dict[str, np.ndarray]
    labels: np.ndarray

    def at(self, voxels: np.ndarray) -> Anatomy:
        """Of some voxels only."""
        return Anatomy({name: share[voxels] for name, share in self.shares.items()},
                       self.labels[voxels])


class Template:
    """The tissues of the ICBM 152 template that nilearn ships, on a grid.

    Parameters
    ----------
    space : Space
        On a grid along the template's axes, as :func:`normfuse.volumes.template_space` gives it.

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
        self.size = np.array(space.voxel_size, dtype=np.float32)
        whole = Space(np.ones(space.shape, bool), space.affine, space.name)
        grey, white = (np.clip(np.nan_to_num(tissue_probability(t, whole)), 0, 1)
                       for t in ("grey_matter", "white_matter"))
        grey = np.minimum(grey, 1 - white)
        self.maps = np.stack([grey, white, 1 - grey - white]).reshape(3, *space.shape)
        deep = distance_transform_edt(space.mask, self.size)
        # how near the ventricles are, and the way to them
        self.near = gaussian_filter(self.maps[2] * (deep > VENTRICLE_DEPTH), 6 / self.size)
        inwards = np.stack(np.gradient(self.near, *self.size))[:, space.mask]
        self.inwards = inwards / np.linalg.norm(inwards, axis=0).max()
        self.deep = deep[space.mask]
        self.centres = space.coordinates().astype(np.float32)
        self._row = np.full(space.shape, -1)
        self._row[space.mask] = np.arange(space.n_voxels)

    def person(self, rng: np.random.Generator, lesion: str | None = None, age: float = YOUNG
               ) -> Anatomy:
        """One person, without a lesion or with a ``"tumour"`` or ``"sclerosis"``.

        What is not the lesion is the same with and without it.
        """
        body, sick = rng.spawn(2)
        where = self._displaced(body, age)
        maps = np.stack([map_coordinates(m, where, order=1, mode="nearest") for m in self.maps])
        maps = np.clip(maps, 0, 1)
        maps /= maps.sum(0)
        tissues = dict(zip(_ORDER, maps.astype(np.float32)))
        if lesion is None:
            return Anatomy(tissues, np.zeros(self.space.n_voxels, dtype=np.uint8))
        inside = self._tumour(tissues, sick) if lesion == "tumour" else \
            self._plaques(tissues, where, sick)
        parts = np.stack(list(inside.values()))
        numbers = np.array(list(LABELS[lesion].values()), dtype=np.uint8)
        rest = 1 - parts.sum(0)
        return Anatomy({name: share * rest for name, share in tissues.items()} | inside,
                       np.where(rest < 0.5, numbers[parts.argmax(0)], 0).astype(np.uint8))

    def _displaced(self, rng: np.random.Generator, age: float) -> np.ndarray:
        """Voxel coordinates in the template from which each voxel of a person comes."""
        moved = np.stack([DEFORMED_MM * smooth(self.space, DEFORMED_FWHM, rng)[self.space.mask]
                          for _ in range(3)])
        moved += WIDER_MM * max(age - YOUNG, 0) / 60 * self.inwards
        return self.space.indices.T + moved / self.size[:, None]

    def _somewhere(self, chance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A place by chance (a value a voxel), (3,) mm; by rejection, and so mostly the same on
        every grid."""
        low, high = np.array(TEMPLATE_CORNER), np.array(TEMPLATE_CORNER) + TEMPLATE_MM
        back = np.linalg.inv(self.space.affine)
        while True:
            spots, luck = rng.uniform(low, high, (_TRIES, 3)), rng.random(_TRIES)
            at = np.rint(spots @ back[:3, :3].T + back[:3, 3]).astype(int)
            at = np.clip(at, 0, np.array(self.space.shape) - 1)
            rows = self._row[tuple(at.T)]
            fit = (rows >= 0) & (luck * chance.max() < chance[rows])
            if fit.any():
                return spots[fit.argmax()]

    def _distances(self, centre: np.ndarray, ragged: np.ndarray) -> np.ndarray:
        """mm from a centre, longer or shorter by place."""
        return np.sqrt(((self.centres - centre) ** 2).sum(1)) * np.exp(ragged)

    def _ragged(self, by: float, rng: np.random.Generator) -> np.ndarray:
        return by * smooth(self.space, 20.0, rng)[self.space.mask]

    def _tumour(self, tissue: dict[str, np.ndarray], rng: np.random.Generator
                ) -> dict[str, np.ndarray]:
        """Necrotic core, enhancing rim around it, oedema in the white matter around that."""
        centre = self._somewhere(tissue["white"] * (self.deep > TUMOUR_DEPTH), rng)
        reach = rng.uniform(*OEDEMA_MM)
        core = reach * rng.uniform(*CORE_SHARE)
        width = min(rng.uniform(*RIM_MM), 0.7 * core)
        away = self._distances(centre, self._ragged(RAGGED, rng))
        spread = self._distances(centre, self._ragged(1.5 * RAGGED, rng))
        edge = max(self.space.voxel_size) / 2
        wet = _below(spread, reach, 2 * edge) * np.minimum(tissue["white"] + 0.3 * tissue["grey"],
                                                           1)
        solid, inner = _below(away, core, edge), _below(away, core - width, edge)
        return _single({"core": inner, "oedema": wet * (1 - solid), "enhancing": solid - inner})

    def _plaques(self, tissue: dict[str, np.ndarray], where: np.ndarray, rng: np.random.Generator
                 ) -> dict[str, np.ndarray]:
        """Plaques in white matter, most of them beside the ventricles."""
        near = map_coordinates(self.near, where, order=1, mode="nearest")
        chance = tissue["white"] ** 2 * (ANYWHERE + near)
        found, ragged = np.zeros(self.space.n_voxels), self._ragged(0.2, rng)
        for one in rng.spawn(1 + rng.poisson(PLAQUES - 1)):
            reach = one.uniform(*PLAQUE_MM)
            away = self._distances(self._somewhere(chance, one), ragged)
            found = np.maximum(found, _below(away, reach, max(self.space.voxel_size) / 2))
        return _single({"sclerosis": found * np.minimum(1.2 * tissue["white"], 1)})


def smooth(space: Space, fwhm: float, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian field of mean 0 and variance 1 on the whole grid, float32.

    White noise on a lattice of its own, in mm, under a Gaussian kernel: the same field on every
    grid, and much faster than filtering noise voxel by voxel.

    Examples
    --------
    >>> from normfuse.volumes.plan import template_space
    >>> coarse, fine = (smooth(template_space("brain", mm), 40.0, np.random.default_rng(0))
    ...                 for mm in (8, 4))
    >>> np.allclose(coarse[:20, :20, :20], fine[:40:2, :40:2, :40:2], atol=1e-4)
    True
    """
    along = _kernels(space, fwhm)
    noise = rng.standard_normal([k.shape[1] for k in along], dtype=np.float32)
    return np.tensordot(along[0], along[1] @ (noise @ along[2].T), 1)


@lru_cache(maxsize=32)
def _kernels(space: Space, fwhm: float) -> tuple[np.ndarray, ...]:
    """Of each axis, shape (n_voxels, n_nodes); squares of a row sum to 1.

    Nodes are one sd apart, where the variance between them ripples by 1e-4.
    """
    sd, found = fwhm / FWHM_IN_SD, []
    for axis, (length, start, side) in enumerate(zip(space.shape, TEMPLATE_CORNER, TEMPLATE_MM)):
        at = space.affine[axis, axis] * np.arange(length) + space.affine[axis, 3]
        nodes = np.arange(start - 3 * sd, start + side + 4 * sd, sd)
        k = np.exp(-((at[:, None] - nodes) / sd) ** 2 / 2)
        found.append((k / np.linalg.norm(k, axis=1, keepdims=True)).astype(np.float32))
    return tuple(found)


def _below(distance: np.ndarray, radius: float, edge: float) -> np.ndarray:
    """1 within a radius, 0 outside, over an edge of this width."""
    return expit((radius - distance) / (edge / 2))


def _single(shares: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: share.astype(np.float32) for name, share in shares.items()}
