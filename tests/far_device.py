"""A device that is not there: tensors of it are on the CPU, but may not be mixed with others.

Run as a script, it fits the image models, representations and encoders on such a device and on the
CPU and prints how far their predictions are apart: rounding, as other kernels are called. In a
process of its own: a device is registered for good.
"""
from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import normfuse as nf
from normfuse.fusion import Alignment, WassersteinBarycenter
from normfuse.imaging.pretraining import pretrain
from normfuse.imaging.representations import ContrastiveRepresentations
from normfuse.testing import tiny_images, tiny_segmentations

CROSSING = {"copy_", "index", "index_put_", "_index_put_impl_", "_to_copy"}
"""What torch lets cross devices: copies, and indices that are on the CPU."""


class Far(torch.Tensor):
    """A tensor of the device; ``near`` holds its numbers."""

    near: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near):
        made = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(),
            dtype=near.dtype, device=torch.device("far", 0))
        made.near = near
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return called(func, args, kwargs or {})


class Watch(TorchDispatchMode):
    """Every operation, so that what is made on the device is made there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return called(func, args, kwargs or {})


def near(value: Any) -> Any:
    return value.near if isinstance(value, Far) else value


def called(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, Far)]
    here = [t for t in tensors if not isinstance(t, Far) and t.dim()]  # numbers may cross
    if there and here and func.overloadpacket.__name__ not in CROSSING:
        raise RuntimeError(f"{func}: tensors of {[tuple(t.shape) for t in there]} on the device, "
                           f"of {[tuple(t.shape) for t in here]} on the CPU")
    to = kwargs.get("device")
    far = bool(there) if to is None else torch.device(to).type == "far"
    if to is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    same = {id(near(t)): t for t in tensors}
    made = func(*tree_map(near, args), **tree_map(near, kwargs))

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return same.get(id(value), Far(value) if far else value)

    return tree_map(wrapped, made)


def predictions(device: str) -> list[torch.Tensor]:
    people = tiny_images()
    new = tiny_images(seed=1).select(["sub-04", "sub-03"])
    plan = nf.TrainingPlan(max_epochs=1, warmup=1, batch_size=16, validation_draws=1)
    options = {"sizes": nf.Pyramid((4, 8), (0, 4)), "plan": plan, "device": device}
    segmenter = nf.IncompleteSegmenter(alignment=Alignment(WassersteinBarycenter()), **options)
    found = segmenter.fit(people, tiny_segmentations(people)).predict(new)
    made = nf.ImageSynthesiser(**options).fit(people).synthesise(new, ["T2w"], given=["T1w"])
    encoders = pretrain(people, networks=nf.Pyramid((4, 8), (0, 4)), plan=plan, device=device)
    alike = ContrastiveRepresentations((4, 8), patch=4, plan=plan, device=device).fit(people)
    first = people.modalities[0].space.img(people.features["T1w"].to_numpy()[0])
    numbers = (found.labels, found.uncertainty, made.mean["T2w"].to_numpy(),
               made.sd["T2w"].to_numpy(), alike.represent(first, "T1w").get_fdata())
    return [*map(torch.tensor, numbers), *encoders.weights["T2w"].values()]


if __name__ == "__main__":
    _setup_privateuseone_for_python_backend("far")
    with Watch():
        try:
            torch.ones(2).to("far:0") + torch.ones(2)
        except RuntimeError as problem:
            print("refused:", problem)
        there = predictions("far:0")
    apart = [(a.double() - b.double()).abs().max() for a, b in zip(there, predictions("cpu"))]
    print("far by", max(map(float, apart)))
