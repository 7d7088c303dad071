"""``python -m normfuse.cli``: the same as ``normfuse``."""
from __future__ import annotations

from . import app

if __name__ == "__main__":
    app()
