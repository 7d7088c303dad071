"""What is installed only on demand."""
from __future__ import annotations

from importlib import import_module

from ..errors import NormfuseError

_NAMES = {"monai": ("MONAI", "imaging"), "torchio": ("TorchIO", "imaging"),
          "SimpleITK": ("SimpleITK", "registration")}


def need(library: str, what: str) -> None:
    """Raise NormfuseError, before any work is done, if a library is not there.

    Examples
    --------
    >>> need("monai", "a segmenter's loss")
    """
    try:
        import_module(library)
    except ImportError as problem:
        name, extra = _NAMES[library]
        raise NormfuseError(f"{what} needs {name}, which is not installed; run: pip install "
                            f"'normfuse[{extra}]'") from problem
