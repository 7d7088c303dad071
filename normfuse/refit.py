"""The last step of a fit: decoders and noise under the posteriors that scoring uses."""
from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .evidence import log_likelihood
from .expected_sums import FeatureSums, JointSums, Sums
from .fusion import sigma_points
from .inference import Inference
from .models import Batch, Vae
from .networks import MlpDecoder

ROUNDS = 10
"""Of expectation maximisation. Thirty gained nothing on simulated cohorts of 300 people."""

RIDGE, COVARIATE_RIDGE = 10.0, 1000.0
"""As if so many more people said that a feature has nothing to do with a latent, at first, and
with a covariate: the baseline has taken their effects out already, and learning them again cost
.01 nats a feature with 210 people."""

LEAST_RIDGE, MOST_RIDGE = 1.0, 1e6
"""Between which a modality's loadings say themselves how far a latent's are shrunk."""

ENOUGH = 500
"""People by whom to tell whether perceptrons pay; all of them take part in the fit itself."""

SHRINKAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
"""By which noise correlations may be multiplied by one minus; 1 leaves none."""

INFLATIONS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.65, 1.8, 2.0, 2.25, 2.5)
"""By which noise variances may be multiplied."""

FAR = 8.0
"""Robust standard deviations from the median beyond which a scan decides nothing."""

IMAGE_ROUNDS, IMAGE_DRAWS = 3, 10
"""Instead of ``ROUNDS``, and draws a person by which to compare, where convolutions decode images:
each costs as many decodings as there are people, and thousands of voxels leave little doubt."""

MOST_CORRELATED = 2000
"""Features of a modality whose noise may correlate: its matrix and the root take 64 MB then."""


def refit(vae: Vae, training: Batch, held_out: Batch, inference: Inference,
          rounds: int = ROUNDS, *, linear: bool = False) -> None:
    """Keep perceptrons and noise correlations only if they pay; set all the rest to its optimum.

    The decoders mu_m(z) = W_m [z, c, 1] + f_m(z, c) are refitted by :func:`maximise` to the
    training people, once with the perceptrons f_m and once without. Whichever makes the people of
    early stopping more probable (log p(x) by importance sampling) goes on: so do they decide on
    the noise correlations of each modality (:func:`choose_shrinkages`). What was decided on is
    then refitted to both groups together. So a model that bends, or whose noise correlates, is
    only ever kept where it beats the one that does not.

    Parameters
    ----------
    training, held_out : Batch
        The people the networks were trained on, and those early stopping looked at; float64.
    linear : bool
        Leave the perceptrons out without trying them, as decoders of voxels are linear.
    """
    some = training.take(torch.arange(min(len(training), ENOUGH)))
    judges = held_out.take(usual(vae, held_out, inference))
    bends = not all(decoder.is_straight for decoder in vae.decoders)
    tried = []
    for straight in (False, True) if bends and not linear else (bends,):
        candidate = copy.deepcopy(vae)
        maximise(candidate, some, inference, rounds, straighten=straight)
        score = _probable(candidate, judges, inference)
        tried.append((score, straight, candidate))
    _, straight, best = max(tried, key=lambda found: found[0])
    shrinkages = choose_shrinkages(best, training, judges, inference)
    inflations = choose_inflations(best, judges, inference)
    everybody = training.joined(held_out)
    maximise(vae, everybody, inference, rounds, straighten=straight)
    if min(shrinkages) < 1:
        maximise(vae, everybody, inference, rounds, shrinkages=shrinkages)
    for noise, inflation in zip(vae.noise, inflations):
        # what is missing shrinks with the number of people learned from
        noise.stretch((1 + (inflation - 1) * len(training) / len(everybody)) ** 0.5)


def usual(vae: Vae, people: Batch, inference: Inference) -> Tensor:
    """Positions of those whose scans are about as probable as most people's.

    A broken scan among those who decide would have all noise taken for larger than it is, and
    what new people's z are divided by with it: log p per measured cell is far below most people's
    there, by ``FAR`` of the usual distances or more. With fewer than five people, all.
    """
    if len(people) < 5:
        return torch.arange(len(people))
    cells = torch.stack([torch.full((len(x),), x.shape[1]) if known is None else known.sum(1)
                         for x, known in zip(people.x, people.measured)]).sum(0)
    mean = log_likelihood(vae, people, inference.quick(), 10) / cells.clamp_min(1)
    below = mean.median() - mean
    return torch.nonzero(below <= FAR * below.abs().median() / 0.6745).ravel()


def choose_shrinkages(vae: Vae, training: Batch, held_out: Batch, inference: Inference
                      ) -> list[float]:
    """How far each modality's noise correlations C_m in training people are to be believed.

    R_m = (1 - a_m) C_m + a_m I. One modality after the other, a_m goes along ``SHRINKAGES`` for as
    long as that makes the held-out people more probable. Since latents that no longer need to
    explain what correlates inside a modality change, so does C_m: after some rounds of
    :func:`maximise` the choice is made once more. The model is left with the last of them.

    Returns
    -------
    list of float
        a_m of every modality; 1.0 for those with more than ``MOST_CORRELATED`` features.

    References
    ----------
    Schäfer and Strimmer (2005), Stat. Appl. Genet. Mol. Biol. 4(1), 32, doi
    10.2202/1544-6115.1175 (target D: unequal variances, no correlation); here with the shrinkage
    that predicts best, as in benchmarks/probabilistic_cca.py.
    """
    chosen = [1.0] * len(vae.names)
    if all(len(sd) > MOST_CORRELATED for sd in vae.noise_sd):
        return chosen

    def score(m: int, covariance: Tensor, shrinkage: float) -> float:
        vae.noise[m].set_shrunk(covariance, shrinkage)
        return _probable(vae, held_out, inference)

    for _ in range(2):
        sums = _expected(vae, training, inference.quick(), [0.0] * len(chosen))
        for m, found in enumerate(sums):
            if isinstance(found, JointSums):
                covariance = found.covariance(found.affine)
                chosen[m] = _climbed(partial(score, m, covariance), chosen[m], SHRINKAGES)
                vae.noise[m].set_shrunk(covariance, chosen[m])
        if min(chosen) == 1:
            break
        maximise(vae, training, inference, shrinkages=chosen)
    return chosen


def choose_inflations(vae: Vae, held_out: Batch, inference: Inference) -> list[float]:
    """By how much each modality's noise variance is too small, as held-out people see it.

    Loadings fit the people they were learned from, noise and all, so that what is left of those
    people is less than what is left of others: with 180 people and ten latents by a factor of 1.3.
    One modality after the other, the factor goes up ``INFLATIONS`` for as long as that makes the
    held-out people more probable. The model is left with it.
    """
    chosen = []
    for noise in vae.noise:
        sd = noise.sd.clone()

        def score(inflation: float) -> float:
            noise.stretch_to(sd * inflation ** 0.5)
            return _probable(vae, held_out, inference)

        chosen.append(_climbed(score, 1.0, INFLATIONS))
        noise.stretch_to(sd * chosen[-1] ** 0.5)
    return chosen


def _probable(vae: Vae, people: Batch, inference: Inference) -> float:
    """Mean log p(x)."""
    draws = IMAGE_DRAWS if vae.bends_images else 100
    return log_likelihood(vae, people, inference, draws).mean().item()


def _climbed(score: Callable[[float], float], start: float, grid: Sequence[float]) -> float:
    """From here along the grid to where the score is highest."""
    at, best = grid.index(start), score(start)
    for step in (1, -1):
        while 0 <= at + step < len(grid) and (value := score(grid[at + step])) > best:
            at, best = at + step, value
    return grid[at]


def maximise(vae: Vae, batch: Batch, inference: Inference, rounds: int = ROUNDS, *,
             straighten: bool = False, shrinkages: Sequence[float] | None = None,
             relevance: bool = True) -> None:
    """Set each decoder's linear path and each modality's noise by expectation maximisation.

    Each round takes q(z | x_S, c) of everybody by ``inference`` and then sets W_m and Psi_m to
    what the expected moments say: :class:`~normfuse.expected_sums.FeatureSums` where noise is
    independent, :class:`~normfuse.expected_sums.JointSums` where it correlates.

    With linear decoders these are the steps of EM for factor analysis, and with correlations those
    of probabilistic CCA. (For 0 < a < 1 the shrunk covariance is no maximum, so that a round may
    lower the likelihood.) Training cannot end there by itself: its encoders see people with
    features and modalities hidden, so that loadings come out too small, and the noise also holds
    what the hidden part would have told (1.27 times the true sd on a simulated problem with 2,000
    people).

    Parameters
    ----------
    straighten : bool
        Leave f_m out from the first round on; W_m takes over what is linear in it.
    shrinkages : sequence of float, optional
        a_m of every modality; by default 1, without correlations.
    relevance : bool
        After each round, let every modality's loadings say how far each latent's are shrunk
        (automatic relevance determination); otherwise all by ``RIDGE``.

    References
    ----------
    Klami et al. (2015), IEEE Trans. Neural Netw. Learn. Syst. 26(9), doi
    10.1109/TNNLS.2014.2376974 (relevance of each latent to each modality);
    Rubin and Thayer (1982), Psychometrika 47(1), doi 10.1007/BF02293851 (EM for factor analysis);
    Bach and Jordan (2005), TR 688, Department of Statistics, University of California, Berkeley.
    """
    inference = inference.quick()
    ridges = [_ridge(decoder) for decoder in vae.decoders]
    for _ in range(min(rounds, IMAGE_ROUNDS) if vae.bends_images and not straighten else rounds):
        wanted = [1.0] * len(vae.names) if shrinkages is None else shrinkages
        for m, sums in enumerate(_expected(vae, batch, inference, wanted, straighten)):
            if straighten:
                vae.decoders[m].straighten()
            sums.solve(ridges[m])
            if relevance:
                ridges[m] = _relevance(vae, m, sums, ridges[m])


def _expected(vae: Vae, batch: Batch, inference: Inference, shrinkages: Sequence[float],
              straighten: bool = False) -> list[Sums]:
    """The sums of every modality over these people; joint ones for shrinkages below 1."""
    sums: list[Sums] = []
    for m, (decoder, noise, shrinkage) in enumerate(zip(vae.decoders, vae.noise, shrinkages)):
        joint = shrinkage < 1 and len(noise.sd) <= MOST_CORRELATED
        sums.append(JointSums(m, decoder, noise, straighten, shrinkage) if joint
                    else FeatureSums(m, decoder, noise, straighten))
    with torch.no_grad():
        for rows in torch.arange(len(batch)).split(vae.people_at_once):
            part = batch.take(rows)
            points, weights = sigma_points(inference.posterior(vae, part))
            for found, z in zip(sums, vae.read_by_decoders(points)):
                found.add(part, z, weights)
    return sums


def _relevance(vae: Vae, m: int, sums: Sums, ridge: Tensor) -> Tensor:
    """The ridge of each latent that modality m's loadings themselves call for.

    Loadings w_jk ~ N(0, s_j^2 / ridge_k); ridge_k^-1 <- mean_j E[w_jk^2 / s_j^2], their variance
    included: a latent that a modality has nothing to do with is shrunk away.
    """
    n = vae.decoders[m].n_latent
    gram = sums.gram if sums.gram.dim() == 2 else sums.gram.mean(0)
    spread = torch.linalg.inv(gram + torch.diag(ridge)).diagonal()[:n]
    w = vae.decoders[m].affine()
    if w.shape[1] <= n:
        return ridge
    scaled = (w[:, :n] / vae.noise[m].sd[:, None]).square().mean(0)
    found = ridge.clone()
    found[:n] = (1 / (scaled + spread)).clamp(LEAST_RIDGE, MOST_RIDGE)
    return found


def _ridge(decoder: MlpDecoder) -> Tensor:
    """What is added to the sum of y y', one value an input."""
    ridge = torch.full_like(decoder.affine()[0], COVARIATE_RIDGE)
    ridge[:decoder.n_latent] = RIDGE
    ridge[-1] = 1e-6  # the intercept is not pulled to 0
    return ridge
