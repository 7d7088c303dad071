"""What is installed only on demand."""
from __future__ import annotations

from ..errors import NormfuseError


def need_monai(what: str) -> None:
    """Raise NormfuseError, before any work is done, if MONAI is not there.

    Examples
    --------
    >>> need_monai("a segmenter's loss")
    """
    try:
        import monai  # noqa: F401
    except ImportError as problem:
        raise NormfuseError(f"{what} needs MONAI, which is not installed; run: pip install "
                            "'normfuse[imaging]'") from problem
