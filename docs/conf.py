"""Sphinx: `make docs` builds docs/_build/html, offline, with every warning an error.

Pages are Markdown (MyST). What can be derived is derived here, into docs/generated, which git
ignores: the API from the ``__all__`` of the public packages, the gallery from its scripts, the
notebooks by glob, and CONTRIBUTING.md and CHANGELOG.md from the top of the repository.
"""
from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import derived  # noqa: E402
import mathml  # noqa: E402
import plain_formulas  # noqa: E402

import normfuse  # noqa: E402

project, author = "normfuse", "The normfuse developers"
copyright = author
release = version = normfuse.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
templates_path = ["_templates"]
exclude_patterns = ["_build", "gallery/*", "generated/*.inc"]
suppress_warnings = ["config.cache"]  # the renderer of equations is a function of ours

html_theme = "furo"
html_title = "normfuse"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 4
# Off: a few seconds. `make docs NOTEBOOKS=cache` runs them first and shows their pictures.
nb_execution_mode = os.environ.get("NOTEBOOKS", "off")
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
nb_merge_streams = True

autosummary_generate = True
autosummary_imported_members = True
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "none"  # the numpydoc sections say types, with shapes and units
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

derived.write_all(HERE)


def setup(app: object) -> None:
    """Equations as MathML, which browsers draw by themselves: nothing is fetched.

    Formulas of docstrings, which are plain text, keep their lines.
    """
    mathml.register(app)
    plain_formulas.register(app)
