"""How probable other packages' multimodal VAEs find new people, on the problem of peer_problem.py.

Every model is trained by ../shared/peers/bench_mmvae.py as it stands (100 epochs, 2,000 people,
latent 32); what is measured on its 1,000 held-out people is computed here, for all packages alike:

* ``log_likelihood``  nats per person, joint over the three modalities, by importance sampling with
  K draws from the model's own joint posterior: log 1/K sum_k p(x, z_k) / q(z_k). From a mixture
  K/C draws (rounded up) come from each of the C components and q is the mixture's density
* ``refined``  the same model with a better q: the posterior mode and curvature of each person,
  found by Gauss-Newton. Both are lower bounds on average, so the larger is the nearer to log p(x)
* ``residual_sd``  both again after each feature's noise sd is set to the sd of the training
  residuals, and ``m_step_sd`` after three rounds of expectation maximisation of it: the most
  favourable readings of a package that fixes the noise or has not finished learning it
* ``package``  what the package's own routine says, where it has one
* ``z_sd``  sd of (x - reconstruction) / noise sd, and with the training residuals' sd
* ``joint``, ``cross``  R2 as bench_mmvae.py has them

Exact: -188.159 nats; factor analysis with 12 factors -188.895, with 32 -190.1 (peer_problem.py).
Each model is trained in its own process, one at a time. Prints JSON: the median over seeds and
each seed's values; models whose package is not installed are listed with what to install.
"""
from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

PEERS = Path(__file__).parents[1] / ".." / "shared" / "peers"

MODELS = (
    "floor-PoE-learned", "floor-PoEsub-learned", "floor-MoE-learned", "floor-MoPoE-learned",
    "floor-WB-learned",
    "multivae-MVAE", "multivae-MVAE-scale0.5", "multivae-MVAE-joint",
    "multivae-MVAE-joint-scale0.5", "multivae-MMVAE-K1normal", "multivae-MMVAE-K1normal-scale0.5",
    "multivae-MoPoE", "multivae-MoPoE-scale0.5", "multivae-MVTCAE", "multivae-MVTCAE-scale0.5",
    "multiviewae-mVAE", "multiviewae-mVAE-shuffled", "multiviewae-me_mVAE", "multiviewae-mmVAE",
    "multiviewae-MoPoEVAE", "multiviewae-MoPoEVAE-shuffled", "multiviewae-mvtCAE",
)

INSTALL = {
    "floor": "nothing beyond torch",
    "multivae": "pip install torch==2.13.0 multivae==1.0.3",
    "multiviewae": (
        "pip install --no-deps multiviewae==1.1.8; pip install hydra-core ordereddict schema "
        "tensorboard torchmetrics lightning-utilities pandas scipy matplotlib tqdm "
        "'setuptools<80'; pip install --no-deps --target FOLDER pytorch-lightning==1.9.5; "
        "MULTIVIEWAE_LIGHTNING=FOLDER in the environment (its own pin, pytorch-lightning "
        "1.5.10, no longer installs)"),
}

Blocks = list[Tensor]
LOG_2_PI = math.log(2 * math.pi)
CHUNK = 5_000
"""Values of z decoded at a time, to bound memory."""


@dataclass(frozen=True)
class Peer:
    """What is needed of a trained model; its prior is a standard normal.

    Attributes
    ----------
    posterior : callable
        Blocks of people to the means and sds (n_components, n_people, n_latent) of an equal
        mixture of normals.
    decode : callable
        z (n, n_latent) to the expected features (n, n_features) of all modalities side by side.
    sd : Tensor
        Noise sd of each feature, (n_features,).
    package : callable
        Blocks of people and K to the package's own mean log-likelihood, None if it has none.
    """

    posterior: Callable[[Blocks], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor], Tensor]
    sd: Tensor
    package: Callable[[Blocks, int], float | None]


# ------------------------------------------------------------------ the three kinds of model
def floor(net: Any, bench: Any, kind: str) -> Peer:
    """The hand-written models of bench_mmvae.py."""
    names: list[str] = bench.NAMES

    def posterior(x: Blocks) -> tuple[Tensor, Tensor]:
        heads = [net.enc[m](block) for m, block in zip(names, x)]
        mu, lv = [h[0] for h in heads], [h[1] for h in heads]
        if kind == "WB":
            return torch.stack(mu).mean(0)[None], torch.stack(lv).div(2).exp().mean(0)[None]
        if kind == "MoE":
            return torch.stack(mu), torch.stack(lv).div(2).exp()
        subsets = [c for r in (1, 2, 3) for c in combinations(range(3), r)]
        used = subsets if kind == "MoPoE" else subsets[-1:]
        each = [bench.poe([mu[i] for i in s], [lv[i] for i in s], prior=len(s) == 3) for s in used]
        return torch.stack([e[0] for e in each]), torch.stack([e[1] for e in each]).div(2).exp()

    return Peer(posterior, lambda z: torch.cat([net.dec[m](z) for m in names], -1),
                torch.cat([net.dec[m].logvar.detach()[0] for m in names]).div(2).exp(),
                lambda x, draws: None)


def multivae(model: Any, bench: Any, kind: str) -> Peer:
    """multivae 1.0.3: MVAE, MMVAE (normal), MoPoE and MVTCAE."""
    from multivae.data.datasets.base import MultimodalBaseDataset

    names: list[str] = bench.NAMES

    def posterior(x: Blocks) -> tuple[Tensor, Tensor]:
        data = MultimodalBaseDataset(dict(zip(names, x)))
        if kind == "MVAE":
            mu, lv = model.compute_mu_log_var_subset(data, names)
        elif kind == "MVTCAE":
            mu, lv = model._inference(data)["joint"]
        elif kind == "MoPoE":
            found = model.inference(data)
            mu, lv = found["mus"], found["logvars"]
        else:
            heads = [model.encoders[m](block) for m, block in zip(names, x)]
            mu = torch.stack([h.embedding for h in heads])
            lv = torch.stack([h.log_covariance for h in heads])
        return (mu, lv.div(2).exp()) if mu.ndim == 3 else (mu[None], lv.div(2).exp()[None])

    def package(x: Blocks, draws: int) -> float:  # its LikelihoodsEvaluator: batches of 512
        batches = [MultimodalBaseDataset(dict(zip(names, part)))
                   for part in zip(*(block.split(512) for block in x))]
        return -float(sum(model.compute_joint_nll(b, draws) for b in batches)) / len(x[0])

    def sd(m: str) -> Tensor:  # the configuration forgets its scale, the density does not
        zero = torch.zeros(bench.DIMS[m])
        return torch.exp(-model.recon_log_probs[m](zero, zero) - 0.5 * LOG_2_PI)

    return Peer(posterior,
                lambda z: torch.cat([model.decoders[m](z).reconstruction for m in names], -1),
                torch.cat([sd(m) for m in names]), package)


def multiviewae(model: Any, bench: Any, kind: str) -> Peer:
    """multiviewae 1.1.8; its MoPoEVAE has the mixture only while it trains."""

    def posterior(x: Blocks) -> tuple[Tensor, Tensor]:
        model._training = kind == "MoPoEVAE"
        found = model.encode(x)
        model._training = False
        found = found[0] if kind == "MoPoEVAE" else found
        return torch.stack([q.loc for q in found]), torch.stack([q.scale for q in found])

    def package(x: Blocks, draws: int) -> float | None:
        if not hasattr(model, "calc_nll") or draws != 1000:  # its number of draws is fixed
            return None
        return -float(model.predict_nll(*[block.numpy() for block in x]))

    def decode(z: Tensor) -> Tensor:  # d(z).loc, which builds a distribution on every call
        expected = []
        for d in model.decoders:
            h = z
            for layer in d.decoder_layers:
                h = torch.relu(layer(h))
            expected.append(d.dec_mean_layer(h))
        return torch.cat(expected, -1)

    log_variance = torch.cat([d.logvar_out.detach()[0] for d in model.decoders])
    return Peer(posterior, decode, log_variance.div(2).exp(), package)


ADAPTERS: dict[str, Callable[[Any, Any, str], Peer]] = {
    "floor": floor, "multivae": multivae, "multiviewae": multiviewae}


@contextmanager
def caught(bench: Any, package: str) -> Iterator[list[Any]]:
    """The models that bench_mmvae.py makes meanwhile: it returns only their figures."""
    models: list[Any] = []

    def keeping(original: Callable[..., Any], of_result: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            models.append(result if of_result else arguments[0])
            return result
        return call

    if package == "floor":
        target, attribute = bench, "build_nets"
    elif package == "multivae":
        target, attribute = importlib.import_module("multivae.trainers"), "BaseTrainer"
    else:
        sys.path.insert(0, os.environ["MULTIVIEWAE_LIGHTNING"])
        target = importlib.import_module("multiviewae.base.base_model").BaseModelAE
        attribute = "fit"
    changed = keeping(getattr(target, attribute), of_result=package == "floor")
    with mock.patch.object(target, attribute, changed):
        yield models


# ------------------------------------------------------------------ what is measured
def log_density(z: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    """log of an equal mixture of normals (n_components, n, d) at z (n_draws, n, d)."""
    each = [-0.5 * (((z - m) / s).square() + 2 * s.log() + LOG_2_PI).sum(-1)
            for m, s in zip(means, sds)]
    return torch.logsumexp(torch.stack(each), 0) - math.log(len(each))


def evidence(peer: Peer, x: Tensor, z: Tensor, log_q: Tensor, sds: list[Tensor]) -> list[Tensor]:
    """log p(x, z) - log q(z) of draws (n_draws, n_people), for each noise sd in turn."""
    residual = x - peer.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    base = -0.5 * (z.square() + LOG_2_PI).sum(-1) - log_q
    squares = residual.square_().flatten(0, 1)
    return [base + (-0.5 * (squares @ sd.square().reciprocal()).view(base.shape)
                    - (sd.log() + 0.5 * LOG_2_PI).sum()) for sd in sds]


def summary(log_w: Tensor) -> tuple[Tensor, Tensor]:
    """log-mean-exp over draws and the effective number of draws, of each person."""
    share = torch.softmax(log_w, 0)
    return torch.logsumexp(log_w, 0) - math.log(len(log_w)), 1 / share.square().sum(0)


def by_own_posterior(peer: Peer, blocks: Blocks, draws: int, sds: list[Tensor]
                     ) -> list[tuple[Tensor, Tensor]]:
    """log p(x) of each person for each noise sd, from draws of the model's own posterior."""
    means, scales = peer.posterior(blocks)
    each = -(-draws // len(means))
    found = []
    for rows in torch.arange(means.shape[1]).split(max(1, CHUNK // draws)):
        m, s = means[:, rows], scales[:, rows]
        z = (m + s * torch.randn(each, *m.shape)).transpose(0, 1).flatten(0, 1)
        x = torch.cat([block[rows] for block in blocks], -1)
        found.append([summary(w) for w in evidence(peer, x, z, log_density(z, m, s), sds)])
    return [(torch.cat([f[k][0] for f in found]), torch.cat([f[k][1] for f in found]))
            for k in range(len(sds))]


def slopes(decode: Callable[[Tensor], Tensor], z: Tensor, step: float = 0.1) -> Tensor:
    """d decode / d z by central differences, (n, n_features, n_latent); wide, across the kinks."""
    n, d = z.shape
    away = step * torch.eye(d)
    up, down = ((z[:, None] + sign * away).view(n * d, d) for sign in (1, -1))
    return ((decode(up) - decode(down)) / (2 * step)).view(n, d, -1).transpose(1, 2)


@dataclass(frozen=True)
class Mode:
    """Posterior mode, lower triangle L of covariance L L', and slopes there, of some people."""

    z: Tensor
    root: Tensor
    slope: Tensor


def find_mode(peer: Peer, x: Tensor, z: Tensor, sd: Tensor, rounds: int = 6) -> Mode:
    """Gauss-Newton, each person's step halved whenever it did not help that person."""
    def loss(z: Tensor) -> Tensor:
        return (((x - peer.decode(z)) / sd).square().sum(-1) + z.square().sum(-1)) / 2

    best, size = loss(z), torch.ones(len(z), 1)
    for _ in range(rounds):
        slope = slopes(peer.decode, z)
        scaled = slope / sd[:, None]
        precision = torch.eye(z.shape[1]) + scaled.mT @ scaled
        pull = scaled.mT @ ((x - peer.decode(z)) / sd)[..., None] - z[..., None]
        moved = z + size * torch.linalg.solve(precision, pull)[..., 0]
        value = loss(moved)
        better = (value < best)[:, None]
        z, best = torch.where(better, moved, z), torch.minimum(value, best)
        size = torch.where(better, size, size / 2)
    slope = slopes(peer.decode, z)
    scaled = slope / sd[:, None]
    covariance = torch.linalg.inv((torch.eye(z.shape[1]) + scaled.mT @ scaled).double())
    return Mode(z, torch.linalg.cholesky(covariance).float(), slope)


def by_mode(peer: Peer, blocks: Blocks, draws: int, sd: Tensor, wider: float = 1.1
            ) -> tuple[Tensor, Tensor]:
    """log p(x) of each person, from draws around that person's posterior mode."""
    start = peer.posterior(blocks)[0].mean(0)
    found = []
    for rows in torch.arange(len(start)).split(max(1, CHUNK // draws)):
        x = torch.cat([block[rows] for block in blocks], -1)
        mode = find_mode(peer, x, start[rows], sd)
        noise, root = torch.randn(draws, *mode.z.shape), wider * mode.root
        z = mode.z + (root @ noise[..., None])[..., 0]
        log_q = (-0.5 * (noise.square() + LOG_2_PI).sum(-1)
                 - root.diagonal(dim1=-2, dim2=-1).log().sum(-1))
        found.append(summary(evidence(peer, x, z, log_q, [sd])[0]))
    return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])


def residual_sd(peer: Peer, blocks: Blocks) -> Tensor:
    """sd of x - decode(posterior mean), per feature."""
    residual = torch.cat(blocks, -1) - peer.decode(peer.posterior(blocks)[0].mean(0))
    return residual.square().mean(0).sqrt()


def m_step_sd(peer: Peer, blocks: Blocks, sd: Tensor, rounds: int = 3) -> Tensor:
    """s_j^2 <- mean of (x_j - f_j(z))^2 + slope_j C slope_j' at the people's posterior modes."""
    x, z = torch.cat(blocks, -1), peer.posterior(blocks)[0].mean(0)
    for _ in range(rounds):
        squares, moved = torch.zeros(len(sd)), []
        for rows in torch.arange(len(x)).split(500):
            mode = find_mode(peer, x[rows], z[rows], sd, rounds=2)
            squares += (x[rows] - peer.decode(mode.z)).square().sum(0)
            squares += (mode.slope @ mode.root).square().sum((0, -1))
            moved.append(mode.z)
        z, sd = torch.cat(moved), (squares / len(x)).sqrt()
    return sd


def figures(log_p: Tensor, effective: Tensor) -> dict[str, float]:
    """Mean over people, its standard error, and the median effective number of draws."""
    return {"mean": float(log_p.double().mean()), "se": float(log_p.std() / len(log_p) ** 0.5),
            "effective_draws": float(effective.median())}


def likelihoods(peer: Peer, train: Blocks, test: Blocks, draws: int) -> dict[str, Any]:
    """log_likelihood, refined, and the same with the noise of the training residuals."""
    sds = {"as_trained": peer.sd, "residual_sd": residual_sd(peer, train)}
    sds["m_step_sd"] = m_step_sd(peer, train, sds["residual_sd"])
    own = by_own_posterior(peer, test, draws, list(sds.values()))
    report: dict[str, Any] = {}
    for (label, sd), found in zip(sds.items(), own):
        start = time.process_time()
        report[label] = {"noise_sd": float(sd.mean()), "log_likelihood": figures(*found),
                         "refined": figures(*by_mode(peer, test, draws, sd)),
                         "refined_cpu_seconds": time.process_time() - start}
    return report


def measure(name: str, seed: int, folder: Path, draws: int, epochs: int) -> dict[str, Any]:
    """Train one model and measure it. bench_mmvae.py changes the working directory."""
    sys.path.insert(0, str(folder.resolve()))
    bench = importlib.import_module("bench_mmvae")
    package, kind = name.split("-")[:2]
    torch.set_num_threads(1)
    train, test, *_ = bench.make_data()
    with caught(bench, package) as models:
        found = bench.configs()[name](None, train, test, epochs, 256, seed)
    peer = ADAPTERS[package](models[-1], bench, kind)
    known, new = ([torch.from_numpy(data[m]) for m in bench.NAMES] for data in (train, test))
    torch.manual_seed(seed)
    np.random.seed(seed)  # multivae's MMVAE draws its component with it
    with torch.no_grad():
        report = likelihoods(peer, known, new, draws)
        start = time.process_time()
        own = peer.package(new, draws)
        seconds = time.process_time() - start
        after = residual_sd(peer, known)
    residual = torch.cat([block - torch.from_numpy(found["joint"][m])
                          for block, m in zip(new, bench.NAMES)], -1)
    return {"model": name, "seed": seed, "epochs": epochs, "draws": draws,
            "n_train": len(known[0]), "n_new": len(new[0]), **report,
            "package": own, "package_cpu_seconds": seconds,
            "z_sd": float((residual / peer.sd).std()),
            "z_sd_residual": float((residual / after).std()),
            "joint": list(bench.r2(test, found["joint"]).values()),
            "cross": list(bench.r2(test, found["cross"]).values()),
            "fit_cpu_seconds": found["cpu_s"], "cpu_seconds": time.process_time()}


# ------------------------------------------------------------------ one process a model
def missing(package: str) -> bool:
    """Whether a package cannot be imported here."""
    if package == "multiviewae" and "MULTIVIEWAE_LIGHTNING" not in os.environ:
        return True
    return package != "floor" and importlib.util.find_spec(package) is None


def in_own_process(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """A measured row, or the error that came instead; what the packages write is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, "--first-seed", str(seed), "--draws",
             str(arguments.draws), "--epochs", str(arguments.epochs), "--peers",
             str(arguments.peers.resolve())],
            capture_output=True, text=True, cwd=scratch,
            env=os.environ | {"TMPDIR": scratch, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        return {"model": name, "seed": seed, "error": done.stderr[-2000:]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def median(rows: list[Any]) -> Any:
    """The median of equal structures, number by number."""
    first = rows[0]
    if isinstance(first, dict):
        return {key: median([row[key] for row in rows]) for key in first}
    if isinstance(first, list):
        return [median(list(values)) for values in zip(*rows)]
    numbers = isinstance(first, (int, float))
    return round(statistics.median(rows), 4) if numbers else first


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, metavar="NAME",
                        help="default: all that can be imported; " + ", ".join(MODELS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--one", choices=MODELS, metavar="NAME",
                        help="measure in this process and print one line")
    return parser.parse_args()


def main() -> None:
    arguments = options()
    if not (arguments.peers / "bench_mmvae.py").is_file():
        sys.exit(f"--peers must be the folder of bench_mmvae.py; {arguments.peers} has none")
    if arguments.one:
        row = measure(arguments.one, arguments.first_seed, arguments.peers, arguments.draws,
                      arguments.epochs)
        print("\n" + json.dumps(row))
        return
    absent = {p: f"not installed: {INSTALL[p]}" for p in ADAPTERS if missing(p)}
    wanted = {name.split("-")[0] for name in arguments.models or ()}
    if wanted & set(absent):
        sys.exit("\n".join(f"{p} is {absent[p]}" for p in sorted(wanted & set(absent))))
    names = arguments.models or [n for n in MODELS if n.split("-")[0] not in absent]
    rows = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for name in names:
            rows.append(in_own_process(name, seed, arguments))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    done = {n: [r for r in rows if r["model"] == n and "error" not in r] for n in names}
    print(json.dumps({"exact": -188.159, "not_measured": absent,
                      "median": {n: median(found) for n, found in done.items() if found},
                      "each": rows}, indent=1))


if __name__ == "__main__":
    main()
