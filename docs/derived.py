"""Pages that are made from something else: see :mod:`conf`."""
from __future__ import annotations

import ast
import re
import shutil
from importlib import import_module
from pathlib import Path

PACKAGES = {
    "normfuse": "What a first script needs.",
    "normfuse.analyses": "From deviations to tables, tests and conclusions.",
    "normfuse.analyses.figures": "Pictures: each takes `ax`, draws, and returns it.",
    "normfuse.kinds": "Kinds of deviation.",
    "normfuse.inference": "How a position in the latent space is found.",
    "normfuse.fusion": "Aggregators: how modalities are fused.",
    "normfuse.models": "Generative models.",
    "normfuse.networks": "Networks between features and latent space.",
    "normfuse.volumes": "Images as features.",
    "normfuse.imputed": "What was imputed of a cohort.",
    "normfuse.imputed_deviations": "Deviations of what was imputed.",
    "normfuse.lesions": "Where lesions are among voxels and regions.",
    "normfuse.cluster": "Several processes and machines.",
    "normfuse.testing": "Laws that an aggregator of yours should keep, and small made-up data.",
    "normfuse.errors": "Every deliberate refusal.",
}
"""Public packages and modules, and what each is for."""


_BY_NAME = {
    "normfuse.kinds": ("Covariates", "Focal", "Kind", "LeaveModalityOut", "Reconstruction"),
    "normfuse.inference": ("Amortised", "Inference", "Refined"),
    "normfuse.cluster": ("OnDask",),
    "normfuse.imputed": ("Imputed",),
    "normfuse.imputed_deviations": ("ImputedDeviations",),
    "normfuse.lesions": ("lesion_distances", "lesion_shares"),
}


def public_names(package: str) -> list[str]:
    """What ``__all__`` lists; of modules without one what is named above, or its exceptions."""
    module = import_module(package)
    names = getattr(module, "__all__", None) or _BY_NAME.get(package) or [
        name for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Exception)]
    return sorted(name for name in names
                  if not name.startswith("_") and callable(getattr(module, name)))


def write_all(docs: Path) -> None:
    """Everything under ``docs/generated``; written where it changed."""
    made = docs / "generated"
    wanted = {**_api(), **_gallery(docs), **_from_the_top(docs.parent),
              **_notebooks(docs.parent / "analyses" / "notebooks")}
    for name, text in wanted.items():
        file = made / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for folder in ("notebooks", "gallery"):
        for file in (made / folder).glob("*"):
            if f"{folder}/{file.name}" not in wanted:
                file.unlink()
    shutil.copytree(docs / "guide" / "images", made / "images", dirs_exist_ok=True)


def _api() -> dict[str, str]:
    """A page a package. What two of them export is described by the first."""
    pages, seen = {}, {}
    for package, what in PACKAGES.items():
        module, own, elsewhere = import_module(package), [], []
        for name in public_names(package):
            home = seen.setdefault(id(getattr(module, name)), package)
            own += [name] if home == package else []
            elsewhere += [] if home == package else [f":py:obj:`{home}.{name}`"]
        pages[f"api/{package}.rst"] = "\n".join([
            package, "=" * len(package), "", what.replace("`", "``"), "",
            *([f"Also here: {', '.join(elsewhere)}.", ""] if elsewhere else []),
            f".. currentmodule:: {package}", "", ".. autosummary::", "   :toctree: names", "",
            *(f"   {name}" for name in own), ""])
    pages["api/index.md"] = "\n".join([
        "# API", "", "Shapes and units stand with every parameter; the examples are run as tests.",
        "", "```{toctree}", ":maxdepth: 1", "", *PACKAGES, "```", ""])
    return pages


def _gallery(docs: Path) -> dict[str, str]:
    """One section a script: its sentence, its pictures, its code."""
    parts = ["# Gallery", "", "Every picture of this site, with the script that draws it: "
             "`make figures` draws them all."]
    for script in sorted((docs / "gallery").glob("plot_*.py")):
        said = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        title = re.split(r"[:.]", said.splitlines()[0])[0]
        parts += ["", f"## {title}", "", said.split("\n\n")[0].replace("\n", " "), ""]
        parts += [f"![{title}](../images/{name}.png)\n"
                  for name in re.findall(r"``(\w+)\.png``", said)]
        parts += [f"<details><summary>docs/gallery/{script.name}</summary>", "",
                  f"```{{literalinclude}} ../../gallery/{script.name}", ":language: python",
                  ":start-after: from __future__ import annotations", "```", "", "</details>"]
    return {"gallery/index.md": "\n".join([*parts, ""])}


def _from_the_top(root: Path) -> dict[str, str]:
    """CONTRIBUTING.md and CHANGELOG.md, their links as seen from ``docs/generated``."""
    return {name.lower(): re.sub(r"\]\(docs/", "](../", (root / name).read_text(encoding="utf-8"))
            for name in ("CONTRIBUTING.md", "CHANGELOG.md")}


def _notebooks(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*.ipynb"))
    listed = "\n".join(file.stem for file in files)
    pages = {f"notebooks/{file.name}": file.read_text(encoding="utf-8") for file in files}
    pages["notebooks/index.md"] = (
        "# Notebooks\n\nEach runs on a simulated cohort as it is, and says which line to change "
        f"for data of your own.\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n")
    return pages
