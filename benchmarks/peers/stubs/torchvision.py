"""Stands in for torchvision, which MultiVae imports for images that no benchmark here has.

The real one does not load beside torch's CPU build. Whatever is asked of it is an empty class, so
importing works and using it fails.
"""
import sys
import types


def _empty_class(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


for _name in ("datasets", "datasets.utils", "models", "transforms", "utils"):
    _module = types.ModuleType(f"torchvision.{_name}")
    _module.__getattr__ = _empty_class
    sys.modules[_module.__name__] = _module
