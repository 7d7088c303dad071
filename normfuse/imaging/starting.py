"""Where the networks of image models start: afresh, or from pre-trained encoders."""
from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cohort import Cohort
from ..errors import listed
from ..networks.pyramid import Pyramid
from ..pretrained import PretrainedEncoders
from .images import Frame
from .pretraining import Pretraining

Encoders = PretrainedEncoders | Pretraining


def sizes_with(sizes: Pyramid | None, encoders: Encoders | None) -> Pyramid:
    """Sizes of a model's networks: those asked for, those of the encoders, or the default.

    Raises
    ------
    TypeError
        Encoders that are none.
    ValueError
        Encoders of another model's networks, or of other sizes.
    """
    if not isinstance(encoders, Encoders | None):
        raise TypeError("encoders are PretrainedEncoders, as from pretrain(cohort), or a "
                        f"Pretraining() to make some; got {encoders!r}")
    networks = None if encoders is None else encoders.networks
    if networks is not None and not isinstance(networks, Pyramid):
        raise ValueError(f"these encoders are of {networks!r}, for a NormativeModel; image models "
                         "take those of a Pyramid: pretrain(cohort, networks=Pyramid())")
    found = sizes or networks or Pyramid()
    if networks is not None and networks.channels != found.channels:
        raise ValueError(f"sizes has channels {found.channels}, the encoders have "
                         f"{networks.channels}; leave sizes out to take those of the encoders")
    return found


def started(encoders: Encoders | None, net: Any, sizes: Pyramid, frame: Frame, training: Cohort,
            calibrating: Cohort | None, keep: str | Path | None) -> PretrainedEncoders | None:
    """Give a new network these encoders; what makes encoders makes them of the training people.

    Warns
    -----
    UserWarning
        People who are to calibrate were seen in pre-training.
    """
    if encoders is None:
        return None
    if isinstance(encoders, Pretraining):
        encoders = replace(encoders, networks=sizes, plane=frame.plane).fit(training, keep=keep)
    encoders.refuse_other(sizes, frame.dimensions)
    if encoders.seen and encoders.seen != frame.told():
        warnings.warn(f"these encoders learned from {encoders.seen}; this model looks at "
                      f"{frame.told()}", stacklevel=4)
    encoders.start(dict(zip(net.names, net.ladder.encoders)))
    if calibrating is not None:
        seen = encoders.has_seen(calibrating)
        if seen.any():
            who = calibrating.ids[seen.to_numpy()]
            warnings.warn(f"{len(who)} of {len(calibrating)} people by whom uncertainty is "
                          f"calibrated were seen in pre-training ({listed(who)}): it may come out "
                          "too small. With encoders=Pretraining(…) a model makes its own from "
                          "those it trains on", stacklevel=4)
    return encoders
