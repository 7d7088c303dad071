"""The noise of each feature, once the networks are trained."""
from __future__ import annotations

import torch

from .fusion import sigma_points
from .inference import Inference
from .models import Batch, Vae
from .models.vae import NOISE_FLOOR

ROUNDS = 3
"""On the problem of benchmarks/peer_problem.py later rounds change no sd by 1 %."""

_CHUNK = 512


def refit_noise(vae: Vae, batch: Batch, inference: Inference, rounds: int = ROUNDS) -> None:
    """Set every feature's noise sd to its optimum under the posteriors that scoring uses.

    s_j^2 <- mean over subjects of E_q[(x_j - mu_j(z))^2] = (x_j - E[mu_j])^2 + Var[mu_j],

    the M-step of expectation maximisation, q being renewed between rounds. During training the
    encoders see people with features and modalities hidden from them, so that the noise of the
    last epoch also holds what the hidden part would have told: 1.27 times the true sd on a
    simulated problem with 2,000 people, which made a person's posterior too vague and z too small.

    Parameters
    ----------
    batch : Batch
        The people the networks were trained on.

    References
    ----------
    Dempster, Laird and Rubin (1977), JRSS B 39(1), doi 10.1111/j.2517-6161.1977.tb01600.x.
    """
    for _ in range(rounds):
        sums = [torch.zeros(2, len(sd), dtype=sd.dtype) for sd in vae.noise_sd]
        with torch.no_grad():
            for rows in torch.arange(len(batch)).split(_CHUNK):
                _add_squares(vae, batch.take(rows), inference, sums)
        for sd, (squares, count) in zip(vae.noise_sd, sums):
            optimum = (squares / count.clamp_min(1)).sqrt().clamp_min(NOISE_FLOOR)
            sd.data = torch.where(count > 0, optimum, sd)


def _add_squares(vae: Vae, part: Batch, inference: Inference, sums: list[torch.Tensor]) -> None:
    points, weights = sigma_points(inference.posterior(vae, part))
    for k, decoded in enumerate(vae.decode(points, part.design)):
        squares = (weights[..., None] * (part.x[k] - decoded) ** 2).sum(0)
        measured = part.measured[k]
        sums[k][0] += (squares if measured is None else squares * measured).sum(0)
        sums[k][1] += len(part) if measured is None else measured.sum(0)
