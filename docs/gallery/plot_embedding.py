"""What contrastive representations know of places, with and without supervision of the bottleneck.

    python docs/gallery/plot_embedding.py --out figures/

Writes ``embedding.png`` and ``embedding_supervised.png``: patches of simulated people whom the
networks did not see, as T1w, T2w and FLAIR show them, laid on a plane by multidimensional scaling.
"""
from __future__ import annotations

from dataclasses import replace

from gallery_style import main
from matplotlib.figure import Figure

import normfuse as nf
from normfuse.imaging.contrastive import Cosine
from normfuse.imaging.embedding_picture import plot_embedding
from normfuse.imaging.representations import ContrastiveRepresentations, contrast_plan
from normfuse.imaging.supervision import BottleneckFirst, Supervision

CONTRASTS = ("T1w", "T2w", "FLAIR")
PLAN = replace(contrast_plan(), max_epochs=40, patience=40, progress=False)


def drawn(supervision: Supervision | None) -> Figure:
    """Representations of 16 simulated people at 4 mm, 35 CPU-s."""
    people, others = (nf.simulate_images(n, contrasts=CONTRASTS, lesions="tumour", resolution=4,
                                         seed=seed).cohort() for n, seed in ((16, 0), (8, 9000)))
    model = ContrastiveRepresentations(patch=12, plan=PLAN, supervision=supervision).fit(people)
    return plot_embedding(model, others)


FIGURES = {"embedding": lambda: drawn(None),
           "embedding_supervised": lambda: drawn(BottleneckFirst(Cosine()))}

if __name__ == "__main__":
    main(__doc__, FIGURES)
