"""What the study varies: data set, number of people, missingness, latent size, seed."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

SEEDS = 10
LATENTS = (5, 10, 15, 20)
SIZES = (150, 300, 600)
MISSING = (0.0, 0.3, 0.6)
AMORTISED = ", amortised"
"""How the names of the second arm end: posteriors as the encoders give them, not refined."""


@dataclass(frozen=True)
class Setting:
    """One cell of the design.

    Parameters
    ----------
    data : {"simulated", "nspn"}
    n : int
        Reference people of a simulated cohort; NSPN has those it has.
    missing : float
        Share of people without the last modality; half that share lacks the second.
    latent : int
    seed : int
        Of the cohort (or split), of what is hidden and planted, and of the model.
    """

    data: str = "simulated"
    n: int = 300
    missing: float = 0.0
    latent: int = 10
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether neither the latent size nor the number of people departs from the base."""
        return self.latent == Setting.latent and self.n in (Setting.n, 0)

    def key(self) -> tuple[object, ...]:
        """What identifies it in the table of results."""
        return tuple(asdict(self).values())


def design(seeds: int = SEEDS) -> Iterator[Setting]:
    """From a base setting of each data set, one factor is varied at a time.

    Base: 300 simulated people, or NSPN, nothing missing, 10 latent dimensions. Seeds vary slowest,
    so that a study cut short has fewer seeds of everything rather than nothing of something.
    """
    bases = (Setting(), Setting(data="nspn", n=0))
    for seed in range(seeds):
        for base in bases:
            base = replace(base, seed=seed)
            yield base
            yield from (replace(base, missing=m) for m in MISSING if m != base.missing)
            yield from (replace(base, latent=k) for k in LATENTS if k != base.latent)
            if base.data == "simulated":
                yield from (replace(base, n=n) for n in SIZES if n != base.n)


def runs(settings: Iterable[Setting], names: Iterable[str]) -> Iterator[tuple[str, Setting]]:
    """Contender and setting; the amortised arm only where missingness alone is varied."""
    names = list(names)
    for setting in settings:
        yield from ((name, setting) for name in names
                    if setting.plain or not name.endswith(AMORTISED))
