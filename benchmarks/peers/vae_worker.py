"""One multimodal VAE of another package on standardised blocks; runs in .venv-peers.

    python vae_worker.py PACKAGE-MODEL IN.npz OUT.npz --seed 0 --latent 16 --epochs 300

IN has ``training/M``, ``early_stop/M`` and ``G/M`` of every other group G to be answered for,
float32 without NaN, M a modality. OUT gets ``G/joint/M``, M from all modalities, ``G/cross/M``,
M from all others. Prints CPU seconds of fitting and predicting (imports left out) as JSON.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

Blocks = dict[str, np.ndarray]
HIDDEN = (256, 128)
"""Units of both packages' encoders, mirrored in the decoders."""


class MultiVae:
    """MVAE, MoPoE and MVTCAE of multivae; the best epoch by the early-stopping people is kept."""

    settings: dict[str, dict[str, Any]] = {
        "MVAE": {}, "MVAEjoint": {"use_subsampling": False}, "MoPoE": {},
        "MVTCAE": {"alpha": 0.5, "beta": 1.0}}

    def __init__(self, kind: str, dims: dict[str, int], options: argparse.Namespace) -> None:
        import multivae.models as models

        name, self.options = kind.removesuffix("joint"), options
        config = getattr(models, f"{name}Config")(
            n_modalities=len(dims), latent_dim=options.latent,
            input_dims={m: (d,) for m, d in dims.items()},
            decoders_dist={m: "normal" for m in dims},
            decoder_dist_params={m: {"scale": 1.0} for m in dims}, **self.settings[kind])
        encoder, decoder = _networks(options.latent)
        self.model = getattr(models, name)(config, {m: encoder(d) for m, d in dims.items()},
                                           {m: decoder(d) for m, d in dims.items()})

    def fit(self, training: Blocks, early_stop: Blocks) -> None:
        from multivae.trainers import BaseTrainer, BaseTrainerConfig

        options = self.options
        config = BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=options.batch,
            per_device_eval_batch_size=1000, num_epochs=options.epochs, learning_rate=1e-3,
            optimizer_cls="Adam", seed=options.seed, no_cuda=True)
        trainer = BaseTrainer(self.model, train_dataset=self.data(training),
                              eval_dataset=self.data(early_stop), training_config=config)
        trainer.train()
        self.model = trainer._best_model.eval()

    def predict(self, blocks: Blocks, given: list[str], wanted: str) -> np.ndarray:
        torch.manual_seed(0)
        with torch.no_grad():
            found = self.model.predict(
                self.data(blocks), cond_mod="all" if len(given) == len(blocks) else given,
                gen_mod=[wanted], return_mean=True)
        return found[wanted].numpy()

    @staticmethod
    def data(blocks: Blocks) -> Any:
        from multivae.data.datasets.base import MultimodalBaseDataset

        return MultimodalBaseDataset({m: torch.from_numpy(x) for m, x in blocks.items()})


class MultiViewAE:
    """mVAE, MoPoEVAE and mvtCAE of multiviewae, the best epoch by its own validation people.

    It takes those by itself, 10 % of training and early-stopping people together. Noise starts at
    the sd of standardised features: from its usual start it is still too small when training ends.
    """

    settings: dict[str, dict[str, Any]] = {
        "mVAE": {}, "MoPoEVAE": {}, "mvtCAE": {"alpha": 0.5, "beta": 1}}

    def __init__(self, kind: str, dims: dict[str, int], options: argparse.Namespace) -> None:
        import multiviewae
        import yaml

        self.names, self.options = list(dims), options
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "own.yaml").write_text(
            "# @package _global_\n" + yaml.safe_dump(self.config(kind)))
        model = getattr(multiviewae, kind)
        # it ends by pickling itself, which Lightning 1.9 does not allow; the best epoch is saved
        model.on_train_end = lambda _: None
        self.model = model(cfg=str(self.folder / "own.yaml"), input_dim=list(dims.values()))

    def config(self, kind: str) -> dict[str, Any]:
        """What differs from the package's defaults."""
        shared = {"bias": True, "non_linear": True}
        normal = {"_target_": "multiviewae.base.distributions.Normal"}
        place = "multiviewae.architectures.mlp.Variational"
        return {
            "model": {"seed": self.options.seed, "z_dim": self.options.latent,
                      "learning_rate": 1e-3, **self.settings[kind]},
            "encoder": {"default": {"_target_": f"{place}Encoder", "enc_dist": normal, **shared,
                                    "hidden_layer_dim": list(HIDDEN)}},
            "decoder": {"default": {"_target_": f"{place}Decoder", "dec_dist": normal, **shared,
                                    "hidden_layer_dim": list(HIDDEN[::-1]), "init_logvar": 0}},
            "out_dir": str(self.folder / "out")}

    def fit(self, training: Blocks, early_stop: Blocks) -> None:
        rng = np.random.default_rng(self.options.seed)
        n = len(next(iter(training.values()))) + len(next(iter(early_stop.values())))
        order = rng.permutation(n)
        both = [np.vstack([training[m], early_stop[m]])[order] for m in self.names]
        self.model.fit(*both, max_epochs=self.options.epochs, batch_size=self.options.batch)
        best, = (self.folder / "out").glob("epoch=*.ckpt")
        self.model.load_state_dict(torch.load(best, weights_only=False)["state_dict"])

    def predict(self, blocks: Blocks, given: list[str], wanted: str) -> np.ndarray:
        places = [self.names.index(m) for m in given]
        if len(given) == len(self.names):
            # a mixture answers once for each component
            each = self.model.predict_reconstruction(*blocks.values())
            return np.mean([e[self.names.index(wanted)] for e in each], axis=0)
        return self.model.predict_reconstruction(
            *blocks.values(), input_modalities=places,
            output_modalities=[self.names.index(wanted)])[0][0]


PACKAGES = {"multivae": MultiVae, "multiviewae": MultiViewAE}


def _networks(latent: int) -> tuple[type, type]:
    """Encoder and decoder as MultiVae wants them."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn.base_architectures import BaseDecoder, BaseEncoder
    from torch import nn

    def layers(*widths: int) -> nn.Sequential:
        pairs = zip(widths, widths[1:])
        return nn.Sequential(*(part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())))

    class Encoder(BaseEncoder):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.latent_dim, self.body = latent, layers(width, *HIDDEN)
            self.mean, self.log_variance = (nn.Linear(HIDDEN[-1], latent) for _ in range(2))

        def forward(self, x: torch.Tensor) -> ModelOutput:
            h = self.body(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))

    class Decoder(BaseDecoder):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.body = nn.Sequential(layers(latent, *HIDDEN[::-1]), nn.Linear(HIDDEN[0], width))

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.body(z))

    return Encoder, Decoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("given", type=Path)
    parser.add_argument("found", type=Path)
    for name, default in (("seed", 0), ("latent", 16), ("epochs", 300), ("batch", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    groups: dict[str, Blocks] = {}
    with np.load(options.given) as file:
        for key in file:
            group, modality = key.split("/")
            groups.setdefault(group, {})[modality] = file[key]
    training, early_stop = groups.pop("training"), groups.pop("early_stop")
    names = list(training)
    package, kind = options.model.split("-")
    model = PACKAGES[package](kind, {m: x.shape[1] for m, x in training.items()}, options)
    start = time.process_time()
    model.fit(training, early_stop)
    found = {}
    for group, blocks in groups.items():
        for m in names:
            found[f"{group}/joint/{m}"] = model.predict(blocks, names, m)
            found[f"{group}/cross/{m}"] = model.predict(blocks, [n for n in names if n != m], m)
    seconds = time.process_time() - start
    np.savez(options.found, **found)
    print("\n" + json.dumps({"cpu_seconds": seconds}))


if __name__ == "__main__":
    main()
