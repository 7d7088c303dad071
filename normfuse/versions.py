"""Versions of Python and of the packages that a result depends on; loads none of them."""
from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("normfuse", "torch", "pyro-ppl", "numpy", "scipy", "pandas", "scikit-learn",
             "SimpleITK")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
