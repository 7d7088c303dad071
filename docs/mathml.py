"""Equations as MathML, made when the docs are built: no script, no font, no network."""
from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

_ALIGNED = ("&", r"\\")


def register(app: Any) -> None:
    """Make it the renderer of HTML pages."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"


def _inline(page: Any, node: nodes.Element) -> None:
    page.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(page: Any, node: nodes.Element) -> None:
    latex = node.astext().strip()
    if any(sign in latex for sign in _ALIGNED) and r"\begin{" not in latex:
        latex = r"\begin{aligned}" + latex + r"\end{aligned}"
    page.body.append('<div style="overflow:auto hidden;margin:1em 0;padding:.4em 0">'
                     f'{convert(latex, display="block")}</div>')
    raise nodes.SkipNode
