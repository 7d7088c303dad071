"""The last step of a fit: decoders and noise under the posteriors that scoring uses."""
from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from .evidence import log_likelihood
from .fusion import sigma_points
from .inference import Inference
from .models import Batch, Vae
from .models.vae import NOISE_FLOOR
from .networks import MlpDecoder

ROUNDS = 10
"""Of expectation maximisation. Thirty gained nothing on simulated cohorts of 300 people."""

RIDGE, COVARIATE_RIDGE = 10.0, 1000.0
"""As if so many more people said that a feature has nothing to do with a latent, and with a
covariate: the baseline has taken their effects out already, and learning them again cost .01 nats
a feature with 210 people."""

ENOUGH = 500
"""People by whom to tell whether perceptrons pay; all of them take part in the fit itself."""

_CHUNK = 512


def refit(vae: Vae, training: Batch, held_out: Batch, inference: Inference,
          rounds: int = ROUNDS) -> None:
    """Keep the perceptrons only if they pay; then set linear paths and noise to their optimum.

    The decoders mu_m(z) = W_m [z, c, 1] + f_m(z, c) are refitted by :func:`maximise` to the
    training people, once with the perceptrons f_m and once without. Whichever makes the people of
    early stopping more probable (log p(x) by importance sampling) is then refitted to both groups
    together. So a model that bends is only ever kept where it beats the one that does not.

    Parameters
    ----------
    training, held_out : Batch
        The people the networks were trained on, and those early stopping looked at; float64.
    """
    straight = False
    if not all(decoder.is_straight for decoder in vae.decoders):
        found, some = [], training.take(torch.arange(min(len(training), ENOUGH)))
        for tried in (False, True):
            candidate = copy.deepcopy(vae)
            maximise(candidate, some, inference, rounds, straighten=tried)
            found.append(log_likelihood(candidate, held_out, inference).mean())
        straight = bool(found[1] > found[0])
    maximise(vae, training.joined(held_out), inference, rounds, straighten=straight)


def maximise(vae: Vae, batch: Batch, inference: Inference, rounds: int = ROUNDS, *,
             straighten: bool = False) -> None:
    """Set each decoder's linear path and each feature's noise by expectation maximisation.

    Each round takes q(z | x_S, c) of everybody by ``inference`` and then, for every feature j with
    w its row of W, y = [z, c, 1] and its f_j fixed,

    w <- (sum_i E_q[y y'] + ridge)^-1 sum_i E_q[y (x_j - f_j)],
    s_j^2 <- mean_i E_q[(x_j - mu_j)^2],    over the people i in whom j was measured.

    With linear decoders these are the steps of EM for factor analysis. Training cannot end there
    by itself: its encoders see people with features and modalities hidden, so that loadings come
    out too small, and the noise also holds what the hidden part would have told (1.27 times the
    true sd on a simulated problem with 2,000 people).

    Parameters
    ----------
    straighten : bool
        Leave f_m out from the first round on; W_m takes over what is linear in it.

    References
    ----------
    Rubin and Thayer (1982), Psychometrika 47(1), doi 10.1007/BF02293851 (EM for factor analysis).
    """
    inference = inference.quick()
    for _ in range(rounds):
        sums = [_Sums.zeros(batch, m, decoder) for m, decoder in enumerate(vae.decoders)]
        with torch.no_grad():
            for rows in torch.arange(len(batch)).split(_CHUNK):
                part = batch.take(rows)
                points, weights = sigma_points(inference.posterior(vae, part))
                for m, z in enumerate(vae.read_by_decoders(points)):
                    sums[m].add(part, m, vae.decoders[m], z, weights, straighten)
            for m, decoder in enumerate(vae.decoders):
                if straighten:
                    decoder.straighten()
                vae.noise_sd[m].data = sums[m].solve(decoder)


@dataclass
class _Sums:
    """Sums over people, for one modality.

    With f the number of inputs, p of features: ``gram`` (p or 1, f, f), ``cross`` (p, f), and
    ``squares`` (p,) of x - f_m(z, c); one gram matrix serves all features if all were measured in
    everybody.
    """

    gram: Tensor
    cross: Tensor
    squares: Tensor
    count: Tensor

    @classmethod
    def zeros(cls, batch: Batch, m: int, decoder: MlpDecoder) -> _Sums:
        p, f = decoder.affine().shape
        shared = 1 if batch.measured[m] is None else p
        return cls(*(batch.design.new_zeros(shape) for shape in
                     ((shared, f, f), (p, f), (p,), (shared,))))

    def add(self, part: Batch, m: int, decoder: MlpDecoder, z: Tensor, weights: Tensor,
            straighten: bool) -> None:
        """Some people, by the points (n_points, n_subjects, n_latent) of their posteriors."""
        linear, y = decoder.affine(), decoder.inputs(z, part.design)
        y = torch.cat([y, torch.ones_like(y[..., :1])], -1)[..., -linear.shape[1]:]
        bent = 0.0 if straighten else decoder(z, part.design) - y @ linear.mT
        left = (part.x[m] - bent).expand(*y.shape[:-1], part.x[m].shape[-1])
        gram = torch.einsum("sn,snf,sng->nfg", weights, y, y)
        cross = torch.einsum("sn,snf,snp->npf", weights, y, left)
        squares = torch.einsum("sn,snp->np", weights, left.square())
        measured = part.measured[m]
        seen = left.new_ones(len(part), 1) if measured is None else measured.to(left.dtype)
        if measured is not None:
            left = torch.where(measured, left, 0.0)
        self.gram += torch.einsum("np,nfg->pfg", seen, gram)
        self.cross += (seen[..., None] * cross).sum(0)
        self.squares += (seen * squares).sum(0)
        self.count += seen.sum(0)

    def solve(self, decoder: MlpDecoder) -> Tensor:
        """Set the linear path; the noise sds."""
        ridge = torch.full_like(self.gram[0, 0], COVARIATE_RIDGE)
        ridge[:decoder.n_latent] = RIDGE
        ridge[-1] = 1e-6  # the intercept is not pulled to 0
        gram = self.gram + torch.diag(ridge)
        w = torch.linalg.solve(gram, self.cross[..., None])[..., 0]
        explained = 2 * (w * self.cross).sum(-1) - torch.einsum("pf,pfg,pg->p", w,
                                                                self.gram.expand(len(w), -1, -1),
                                                                w)
        decoder.set_affine(w)
        variance = (self.squares - explained) / self.count.clamp_min(1)
        return variance.clamp_min(NOISE_FLOOR ** 2).sqrt()
