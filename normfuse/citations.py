"""How a model is described in a paper: a paragraph and its sources, of what was really used."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from .deviations import Reference
from .errors import listed
from .sources import SOURCES, Source

# What the name of a choice stands for, and where it comes from. The first that fits is taken.
_FUSIONS = (
    ("SubsetMixture(WassersteinBarycenter", "a mixture of the Wasserstein barycenters of all "
     "subsets of modalities", ("qiu2025", "sutter2021", "agueh2011")),
    ("SubsetMixture(ProductOfExperts", "a mixture of the products of experts of all subsets of "
     "modalities (MoPoE)", ("sutter2021",)),
    ("SubsetMixture", "a mixture over all subsets of modalities", ("sutter2021",)),
    ("GeneralizedWassersteinBarycenter", "the generalized Wasserstein barycenter of their "
     "posteriors, with shared and private dimensions", ("delon2021", "agueh2011")),
    ("WassersteinBarycenter", "the 2-Wasserstein barycenter of their posteriors",
     ("agueh2011", "qiu2025")),
    ("GeneralizedProductOfExperts", "a generalized product of experts",
     ("cao2014", "lawryaguila2023")),
    ("ProductOfExperts", "a product of experts", ("wu2018", "hinton2002")),
    ("MomentMatchingBarycenter", "one Gaussian with the moments of their mixture",
     ("bishop2006",)),
    ("MixtureOfExperts", "a mixture of experts", ("shi2019",)))
_KINDS = {
    "focal": ("each value against what the rest of the person's own measurements predict, left "
              "out one at a time", ("sundararajan2001",)),
    "leave_modality_out": ("each modality against what the person's other modalities predict", ()),
    "covariates": ("each value against what covariates alone predict", ()),
    "reconstruction": ("each value against a reconstruction from all of the person's "
                       "measurements", ())}


@dataclass(frozen=True)
class Citation:
    """A paragraph for a methods section, and the sources it names.

    Attributes
    ----------
    text : str
    sources : tuple of Source
        In the order in which the text names them.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> found = cite(tiny_deviations().reference)
    >>> [source.key for source in found.sources][:3]
    ['kingma2014', 'wu2018', 'agueh2011']
    >>> print(found.bibtex.splitlines()[0])
    @article{kingma2014,
    """

    text: str
    sources: tuple[Source, ...] = ()

    @property
    def bibtex(self) -> str:
        """Every source as a BibTeX entry."""
        return "\n\n".join(source.bibtex for source in self.sources) + "\n"

    def __add__(self, other: Citation) -> Citation:
        every, text = dict.fromkeys((*self.sources, *other.sources)), other.text
        for source in self.sources:  # a number is told once
            text = text.replace(source.short, source.name)
        return Citation(f"{self.text} {text}".strip(), tuple(every))

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.text)}</p><pre>{escape(self.bibtex)}</pre>"


def sentence(text: str, keys: Iterable[str] = ()) -> Citation:
    """A sentence that ends in its sources.

    >>> sentence("Modalities were fused by their barycenter", ["agueh2011"]).text
    'Modalities were fused by their barycenter (Agueh and Carlier (2011), doi:10.1137/100805741).'
    """
    sources = tuple(SOURCES[key] for key in keys)
    named = f" ({'; '.join(source.short for source in sources)})" if sources else ""
    return Citation(f"{text}{named}.", sources)


def cite(reference: Reference) -> Citation:
    """The model behind some deviations, in words that fit a methods section.

    Parameters
    ----------
    reference : Reference
        It says what was used. Of files of an older normfuse some of it is not known, and then it
        is not said.

    Returns
    -------
    Citation

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> print(cite(tiny_deviations().reference).text[:89])
    Deviations were computed with normfuse from 100 reference people measured with t1 and pet
    """
    version = reference.versions.get("normfuse", "")
    found = sentence(
        f"Deviations were computed with normfuse{f' {version}' if version else ''} from "
        f"{sum(reference.n_subjects.values())} reference people measured with "
        f"{_and(reference.modalities)}")
    found += _covariates(reference) + _network(reference) + _scored(reference)
    return found + _calibrated(reference) + _programs(reference)


def _and(names: Iterable[str]) -> str:
    every = list(names)
    return " and ".join(filter(None, (", ".join(every[:-1]), *every[-1:])))


def _covariates(reference: Reference) -> Citation:
    if not reference.covariates:
        return Citation("")
    kinds = {str(facts.get("kind")) for facts in reference.covariates.values()}
    said = " (continuous ones as splines)" if "continuous" in kinds else ""
    return sentence(f"The expectation of every feature depends on "
                    f"{_and(reference.covariates)}{said}")


def _network(reference: Reference) -> Citation:
    ladder = reference.model.startswith("Ladder")
    keys = ("kingma2014", "wu2018", *(("sonderby2016",) if ladder else ()))
    network = sentence(
        f"What covariates leave was modelled by a multimodal variational autoencoder with "
        f"{reference.n_latent} latent dimensions{' in several levels' if ladder else ''}", keys)
    for name, words, sources in _FUSIONS:
        if name in reference.fusion:
            return network + sentence(f"Modalities were fused by {words}", sources) \
                + _alignment(reference)
    return network + sentence(f"Modalities were fused by {reference.fusion}") \
        + _alignment(reference)


def _alignment(reference: Reference) -> Citation:
    told = reference.choices.get("alignment", "")
    if not told:
        return Citation("")
    divergence = "squared 2-Wasserstein distance" if "SquaredWasserstein(" in told \
        else "Kullback-Leibler divergence"
    towards, sources = _anchor(told.removeprefix("Alignment(anchor="), reference)
    return sentence(f"In training their posteriors were drawn towards {towards}: the mean "
                    f"{divergence} was added to the loss with a weight of "
                    f"{reference.choices['alignment_weight']}", ("liu2024", *sources))


def _anchor(told: str, reference: Reference) -> tuple[str, tuple[str, ...]]:
    if told.startswith("PriorAnchor("):
        return "the prior", ()
    if told.startswith("ModalityAnchor(position="):
        position = int(told.removeprefix("ModalityAnchor(position=").split(")")[0])
        return f"that of {list(reference.modalities)[position]}", ()
    for name, words, sources in _FUSIONS:
        if told.startswith(name):
            learned = " (with learned weights)" if "Learned(" in told else ""
            return words.replace("of their posteriors", "of them") + learned, sources
    return told, ()


def _scored(reference: Reference) -> Citation:
    found = Citation("")
    if reference.choices.get("inference", "").startswith("Refined"):
        found += sentence("Each person's posterior was refined beyond what the encoder gives",
                          ("kim2018",))
    if reference.kind in _KINDS:
        words, keys = _KINDS[reference.kind]
        found += sentence(f"Deviations compare {words}", keys)
    return found


def _calibrated(reference: Reference) -> Citation:
    how = "each scored by a model that had not seen them" \
        if "cross_fitted" in reference.n_subjects else "who had no part in the training"
    return sentence(
        f"z-scores were calibrated on {reference.n_calibration} healthy people, {how}, with "
        "moderated variances and adjusted tails", ("smyth2004", "jones2009")) + sentence(
        "The latent distance is Hotelling's, among calibration people measured with the same "
        "modalities", ("hotelling1931",))


def _programs(reference: Reference) -> Citation:
    known = {"pyro-ppl": ("Pyro", "bingham2019"), "torch": ("PyTorch", "paszke2019"),
             "scipy": ("SciPy", "virtanen2020")}
    used = [(f"{called} {reference.versions[name]}", key)
            for name, (called, key) in known.items() if name in reference.versions]
    if not used:
        return Citation("")
    return sentence(f"The computation used {listed((name for name, _ in used), 9)}",
                    [key for _, key in used])
