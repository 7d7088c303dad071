"""t of few degrees of freedom as the t of more that is as improbable: one scale for a brain."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .effects import Array

_EXACT_BELOW = 3.0  # degrees of freedom; from there on Hill's z is off by less than .5 %
_STEPS, _MANY, _MORE_STEPS = 3, 20, 40
"""To the inverse of Hill's z, from 20 degrees on and below: set, as a test of convergence would
let other voxels move the last bit."""
_FAR = 300.0  # of a logarithm: beyond lies no t

TIE = 2e-6
"""Of a correlation: as far as sums in single precision may put one and the same apart. Of t that
is little where t is small and much where t is large: t = r sqrt(df / (1 - r²))."""


@dataclass(frozen=True, eq=False)
class Heights:
    """What was seen, on the scale of one number of degrees of freedom: what shuffles are held to.

    Attributes
    ----------
    seen : ndarray, shape (n_voxels,)
        NaN where nothing was tested.
    least : ndarray, shape (n_voxels,)
        Nearer to zero: what the same people dealt out in the same way give in single precision, at
        least.
    df : float
    """

    seen: Array
    least: Array
    df: float

    @classmethod
    def of(cls, t: Array, df: Array, size: Array, size_df: Array, to: float) -> Heights:
        """``size``, ``size_df``: of the least, without its sign."""
        return cls(equivalent_t(t, df, to),
                   equivalent_t(np.sign(t) * np.maximum(size, 0), size_df, to), to)


def equivalent_t(t: Array, df: Array | float, to: float) -> Array:
    r"""The t of ``to`` degrees of freedom whose p is that of t of ``df``, with its sign.

    .. math:: t' = T_{to}^{-1}(T_{df}(t))

    by Hill's expansion of z; t of ``to`` degrees stays as it is, bit for bit. NaN stays.

    References
    ----------
    Hill (1970), doi:10.1145/355598.355599; below 3 degrees exactly, by SciPy.

    Examples
    --------
    >>> equivalent_t(np.array([3.182, 3.182, -12.71]), np.array([3, 58, 1]), 58).round(3).tolist()
    [2.002, 3.182, -2.002]
    """
    df = np.broadcast_to(df, t.shape)
    other = (df != to) & np.isfinite(t)
    if not other.any():
        return t
    found = np.array(t)
    found[other] = np.sign(t[other]) * _of_normal(
        _normal(np.abs(t[other]).astype(np.float64), df[other]), float(to))
    return found


def _normal(t: Array, df: Array) -> Array:
    """z >= 0 as improbable as t >= 0."""
    z = _hill(np.sqrt((df - 0.5) * np.log1p(t * t / df)), df)
    few = df < _EXACT_BELOW
    if few.any():
        z[few] = stats.norm.isf(stats.t.sf(t[few], df[few]))
    return z


def _of_normal(z: Array, df: float) -> Array:
    """The inverse, of one number of degrees of freedom."""
    if df < _EXACT_BELOW:
        return stats.t.isf(stats.norm.sf(z), df)
    root, b = z, 48 * (df - 0.5)**2
    for _ in range(_STEPS if df >= _MANY else _MORE_STEPS):
        root = root - (_hill(root, df) - z) / (1 + 3 * (root * root + 1) / b)
    return np.sqrt(df * np.expm1(np.minimum(root * root / (df - 0.5), _FAR)))


def _hill(w: Array, df: Array | float) -> Array:
    """z of the root of (df - 1/2) log(1 + t²/df)."""
    b = 48 * (df - 0.5)**2
    s = w * w
    first = w * (s + 3) / b
    second = w * (((4 * s + 33) * s + 240) * s + 855) / (10 * b * (b + 0.8 * s * s + 100))
    return w + first - second
