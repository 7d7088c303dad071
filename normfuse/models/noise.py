"""What is left of a modality's features once the latents are known, and how it correlates."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .measured_noise import Correlated, Independent, MeasuredNoise

NOISE_FLOOR = 1e-2
"""Smallest noise sd, in units of a feature's residual sd. A duplicated feature would else drive
its noise to 0 and the likelihood to infinity."""


class Noise(nn.Module):
    """e ~ N(0, Psi),  Psi = D^1/2 R D^1/2,  D = diag s^2: the noise of one modality.

    Regions of one modality correlate beyond what a few latents shared with other modalities hold;
    R keeps that, so that the latents need not.

    Attributes
    ----------
    sd : Parameter, shape (n_features,)
        s, in units of a feature's residual sd. Takes no gradient.
    correlation : Tensor, shape (n_features, n_features), or (0, 0)
        R, with a diagonal of ones; (0, 0) stands for the identity, as in training.
    inverse_root : Tensor of the same shape
        L^-1 with R = L L', lower triangular.

    Examples
    --------
    >>> noise = Noise(2)
    >>> noise.set(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.6], [0.6, 1.0]]))
    >>> seen = noise.among(torch.tensor([[True, True], [True, False]]))
    >>> white = seen.whiten(torch.tensor([[1.0, 2.0], [1.0, torch.nan]]))
    >>> white.square().sum(-1)
    tensor([1.2500, 1.0000])
    >>> seen.log_det.exp()
    tensor([2.5600, 1.0000])
    """

    correlation: Tensor
    inverse_root: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.sd = nn.Parameter(torch.ones(n_features), requires_grad=False)
        self.register_buffer("correlation", torch.empty(0, 0))
        self.register_buffer("inverse_root", torch.empty(0, 0), persistent=False)

    @property
    def is_correlated(self) -> bool:
        return len(self.correlation) > 0

    def set(self, sd: Tensor, correlation: Tensor | None = None) -> None:
        """Take these sds and this correlation matrix; None: features are independent."""
        self.sd.data = sd
        self._correlate(sd.new_empty(0, 0) if correlation is None else correlation)

    def stretch_to(self, sd: Tensor) -> None:
        """Take these sds; correlations stay."""
        self.sd.data = sd

    def stretch(self, factor: float) -> None:
        """Multiply all sds."""
        self.stretch_to(self.sd.detach() * factor)

    def set_shrunk(self, covariance: Tensor, shrinkage: float) -> None:
        """Its variances and, of its correlations C and the shrinkage a, R = (1 - a) C + a I."""
        sd = covariance.diagonal().clamp_min(NOISE_FLOOR ** 2).sqrt()
        if shrinkage == 1:
            return self.set(sd)
        correlation = (1 - shrinkage) * covariance / (sd[:, None] * sd)
        self.set(sd, correlation.fill_diagonal_(1.0))

    def _correlate(self, correlation: Tensor) -> None:
        unit = torch.eye(len(correlation)).to(correlation)
        self.correlation = correlation
        self.inverse_root = torch.linalg.solve_triangular(
            torch.linalg.cholesky(correlation), unit, upper=False)

    def among(self, measured: Tensor | None) -> MeasuredNoise:
        """The noise of some people's measured cells; ``measured`` (n_subjects, n_features)."""
        if self.is_correlated:
            return Correlated(self.sd, self.inverse_root, measured)
        return Independent(self.sd, measured)

    def sample(self, shape: torch.Size) -> Tensor:
        """Draws of e, shape (..., n_features)."""
        white = torch.randn(shape, dtype=self.sd.dtype)
        if self.is_correlated:
            white = torch.linalg.solve_triangular(self.inverse_root.mT, white, upper=True,
                                                  left=False)
        return self.sd * white

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # whether features correlate is known only once they have been learned from
        found = state_dict.get(prefix + "correlation")
        if found is not None and found.shape != self.correlation.shape:
            self.correlation = torch.empty_like(found).to(self.sd.dtype)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._correlate(self.correlation)
