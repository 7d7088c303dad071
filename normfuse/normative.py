"""The model a researcher owns: learns what healthy brains look like, and how far others are."""
from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from .calibration import CrossFit, HeldOut
from .calibration_check import check_calibration, notes_on_outliers
from .citations import Citation, cite
from .cohort import Cohort
from .covariate_checks import warn_of_covariates, warn_of_thin_sites
from .deviations import ADAPTED, Deviations, Reference
from .errors import CohortError, NotFittedError, listed
from .evidence import log_likelihood
from .fingerprints import known_roles, roles_to_hashes, warn_of_twins
from .fitted import Fitted
from .fusion import Aggregator, WassersteinBarycenter
from .fusion.choice import of_type
from .imputed_scoring import scorable, scored_imputed
from .inference import Inference, Refined
from .kinds import Kind, Reconstruction, default_kinds
from .latent_imputation import imputed_by_latents
from .learning import learn
from .models import Recipe
from .noun_cards import model_card
from .pretrained import Encoding, PretrainedEncoders, encoding, recipe_for
from .processes import processes
from .reference_checks import refuse_others_than_reference
from .runners import Runner, one_after_the_other
from .streaming import Scorer, score_to
from .training import TrainingPlan
from .value_checks import refuse_empty_features, warn_of_reference_values


class NormativeModel:
    """A multimodal normative model: what brains look like at a given age, sex and site.

    ``fit`` splits the reference by subject into people to train on, people who say when to stop,
    and people to calibrate with; a small reference takes turns. ``deviations`` gives, for anybody
    measured with any subset of the modalities, a z per feature and a latent distance with its
    p-value, both calibrated on healthy people whom training did not see, measured alike.

    Parameters
    ----------
    fusion : Aggregator
        How the modalities' posteriors become one; see :mod:`normfuse.fusion`.
    n_latent : int, optional
        Dimensions of the latent space; by default one per ten reference people, 16 at most.
    model : Recipe, optional
        Networks and latent levels: :class:`~normfuse.models.OneLatent` (default) or
        :class:`~normfuse.models.Ladder`.
    plan : TrainingPlan, optional
    calibration : HeldOut or CrossFit, optional
        Whom the model is calibrated on: a share of the reference that training does not see
        (default from 150 people on), or everybody in turn, by a model for each fold (default
        below).
    inference : Inference, optional
        How a person's posterior is found at scoring time: :class:`~normfuse.inference.Refined`
        (default) or :class:`~normfuse.inference.Amortised`.
    kinds : sequence of Kind, optional
        The deviations to calibrate, the default one first; see :mod:`normfuse.kinds`.
    encoders : PretrainedEncoders or Pretraining, optional
        Where encoders start (:func:`~normfuse.imaging.pretraining.pretrain`). Whom they have seen
        counts as trained on; a ``Pretraining`` is made on the training people of each fit.
    seed : int
        Of everything random.

    Examples
    --------
    >>> from normfuse.testing import tiny_cohort
    >>> controls, patients = tiny_cohort(180, seed=1).split("diagnosis == 'CN'")
    >>> model = NormativeModel(n_latent=2, plan=TrainingPlan(max_epochs=5, warmup=2))
    >>> deviations = model.fit(controls).deviations(patients)
    >>> deviations.z.shape, len(deviations.controls)
    ((22, 15), 47)
    >>> model.kind_called("covariates"), model.fitted.reference.kind
    (Covariates(), 'focal')
    >>> model.log_likelihood(patients, draws=5).columns.tolist()
    ['log_likelihood', 'n_measured', 'per_feature']
    """

    def __init__(self, fusion: Aggregator | None = None, *, n_latent: int | None = None,
                 model: Recipe | None = None, plan: TrainingPlan | None = None,
                 calibration: HeldOut | CrossFit | None = None,
                 inference: Inference | None = None, kinds: Sequence[Kind] | None = None,
                 encoders: PretrainedEncoders | Encoding | None = None, seed: int = 0) -> None:
        self.fusion = WassersteinBarycenter() if fusion is None else fusion
        if not isinstance(self.fusion, Aggregator):
            raise TypeError("fusion is an object such as WassersteinBarycenter(); "
                            f"got {self.fusion!r}")
        self.encoders, model = encoding(encoders), recipe_for(encoders) if model is None else model
        if not isinstance(model, Recipe):
            raise TypeError(f"model is a recipe such as Ladder(levels=(32, 10)); got {model!r}")
        model.check(self.fusion)
        self.model = model if n_latent is None else model.resized(n_latent)
        self.plan = plan or TrainingPlan()
        self.calibration = calibration
        self.inference = Refined() if inference is None else of_type(inference, Inference)
        self.kinds = tuple(kinds or default_kinds(self.inference))
        self.seed = seed
        self._fitted: Fitted | None = None
        self._held_out: Cohort | None = None
        self._scored: dict[str, Deviations] = {}

    @property
    def fitted(self) -> Fitted:
        """The fit; refuses if there is none yet."""
        if self._fitted is None:
            raise NotFittedError("this model has not been fitted; call fit(controls) first, or "
                                 "NormativeModel.load(folder)")
        return self._fitted

    @property
    def history(self) -> pd.DataFrame:
        """Training and validation loss per epoch."""
        return pd.DataFrame(self.fitted.reference.history)

    def fit(self, controls: Cohort, *, keep: str | Path | None = None) -> NormativeModel:
        """Learn from healthy people.

        Parameters
        ----------
        controls : Cohort
            Reference people only; if the cohort names a reference query, all must answer it.
        keep : path, optional
            A folder in which trainings note every few seconds how far they are. The same call
            after a crash takes them up there and ends with the same bits. Remove it afterwards.

        Notes
        -----
        Processes started by ``torchrun`` that all make this call train one model together, and
        each ends with it. ``plan.parts`` then becomes their number at least.

        Raises
        ------
        CohortError
            Somebody is no reference subject, a modality was imputed, or a feature never varies.
        CalibrationError
            Too few people to calibrate with, or people whom encoders saw in pre-training.
        TrainingError
            The loss became nan or infinite.

        Warns
        -----
        UserWarning
            Values, ages or people that cannot be what they seem; sites of hardly anybody.
        """
        refuse_others_than_reference(controls)
        for m in controls.modalities:
            refuse_empty_features(controls.features[m.name], m.name, voxels=m.space is not None)
        warn_of_reference_values(controls)
        warn_of_twins(controls)
        warn_of_covariates(controls.subjects, controls.covariates)
        warn_of_thin_sites(controls.subjects, controls.covariates)
        self.plan = self.plan.shared_by(processes().count)
        self._fitted, held_out = learn(self, controls, None if keep is None else Path(keep))
        self._held_out, self._scored = held_out, {}
        with warnings.catch_warnings():  # a control just beyond the training ages is no news
            warnings.simplefilter("ignore", UserWarning)
            references = {kind: replace(reference, **self._checked(kind, held_out, reference))
                          for kind, reference in self._fitted.references.items()}
        self._fitted = replace(self._fitted, references=references)
        return self

    def _checked(self, kind: str, held_out: Cohort, reference: Reference) -> dict[str, Any]:
        """How calibrated this kind is in people left out of everything, and who is unlike them."""
        scored = self._scored_apart(kind, held_out)
        (calibration, quantiles), notes = check_calibration(scored), notes_on_outliers(scored)
        if kind != self.kinds[0].name:  # of voxels one is enough to keep
            del self._scored[kind]
        return {"calibration": calibration, "quantiles": quantiles,
                "notes": (*reference.notes, *notes)}

    def deviations(self, cohort: Cohort, *, kind: str | Kind | None = None,
                   unseen_site: str | None = None, include_seen: bool = False,
                   skip_uncalibrated: bool = False, to: str | Path | None = None,
                   overwrite: bool = False, run: Runner = one_after_the_other) -> Deviations:
        """How far each person is from what is expected of them.

        People the model was trained on are left out, with a warning: their z would be too small.
        Healthy people scored by what others said are in ``controls`` of the result. Everybody's
        result depends on themselves alone, and on nothing imputed; z of that, by kind
        ``covariates`` only, stand apart in ``imputed`` of the result.

        Parameters
        ----------
        cohort : Cohort
            Any people with the model's covariates and features; columns in any order.
        kind : str or Kind, optional
            What each value is compared with: ``"focal"`` (the rest of the person's brain),
            ``"leave_modality_out"`` (their other modalities), ``"covariates"`` (age, sex and site
            alone) or ``"reconstruction"``. By default the first of the model's ``kinds``.
        unseen_site : {"pooled"}, optional
            Score people of a site that the model does not know as people of any site, with wider
            variance (a whole site may look unusual), instead of refusing; :meth:`adapt` is better.
        include_seen : bool
            Keep the people the model was trained on, marked in ``subjects["normfuse_role"]``.
        skip_uncalibrated : bool
            Leave out, with a warning, instead of refusing, people with a combination of modalities
            that too few calibration people were measured with.
        to : path, optional
            Write the result to this new folder, some people at a time, and leave the tables there:
            memory does not grow with people. The same call goes on where one stopped half-way.
        overwrite : bool
            With ``to``, replace a folder that is there.
        run : Runner, optional
            With ``to``, what scores the pieces: one after the other, or on several machines.

        Raises
        ------
        CohortError
            Features, covariates or sites that the model does not know.
        CalibrationError
            A combination of modalities that too few calibration people were measured with.
        """
        f, chosen = self.fitted.of_any_site(unseen_site), self.kind_called(kind)
        filled, cohort = cohort, scorable(cohort, chosen, to)
        if skip_uncalibrated:
            cohort = f.calibrated_only(cohort)
        if not include_seen:
            cohort = f.unseen(cohort)
        score = Scorer(f, cohort, chosen, self.inference, self._noted(f, cohort, chosen))
        scored = score(list(cohort.ids)) if to is None else score_to(
            Path(to), cohort, score, overwrite=overwrite, run=run)
        return scored.changed(controls=self._controls(chosen.name),
                              imputed=scored_imputed(f, filled, scored.subjects.index, chosen))

    @staticmethod
    def _noted(f: Fitted, cohort: Cohort, kind: Kind) -> Reference:
        known = f.references[kind.name]
        return replace(known, notes=(*known.notes, *f.notes_on_sites(cohort.subjects)))

    def adapt(self, controls: Cohort) -> NormativeModel:
        """The same model with one or more new sites, learned from some of their healthy people.

        Each feature's offset and scale at the site are estimated with the shrinkage that the
        reference's own sites taught; nothing else changes, other sites' z least of all. Those
        people can be scored like others: each is judged by what the rest said of the site.

        Parameters
        ----------
        controls : Cohort
            Healthy people of sites that the model does not know, 10 or more a site.

        Returns
        -------
        NormativeModel
            A new one; the notes of its deviations' ``reference`` say with how many people, and how
            much of the precision of z is left there.

        Raises
        ------
        CohortError
            A site that the model knows already, or fewer than 10 people.

        Warns
        -----
        UserWarning
            Fewer than 50 people: the site's scale is little more than that of other sites.

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> near, far = tiny_cohort(160).reference_subjects().split("site != 'west'")
        >>> plan = TrainingPlan(max_epochs=2, warmup=1)
        >>> model = NormativeModel(n_latent=2, plan=plan, calibration=HeldOut()).fit(near)
        >>> adapted = model.adapt(far)
        >>> len(adapted.deviations(far.select(far.ids[:5])))
        5
        """
        from .adaptation import adapted

        preparation, people = adapted(self.fitted.preparation, controls)
        new = copy.copy(self)
        learned = roles_to_hashes(preparation.aligned(controls),
                                  pd.Series(ADAPTED, index=controls.ids))
        known = {**self.fitted.known, **learned}
        new._fitted = replace(self.fitted, preparation=preparation, known=known, references={
            kind: replace(r, notes=(*r.notes, *people)) for kind, r in
            self.fitted.references.items()})
        new._scored = {}
        return new

    def kind_called(self, wanted: str | Kind | None) -> Kind:
        """One of the kinds this model was calibrated for; the first if none is named."""
        if wanted is None:
            return self.kinds[0]
        for kind in self.kinds:
            if wanted == kind or wanted == kind.name:
                return kind
        raise CohortError(f"this model was not calibrated for deviations of kind {wanted!r}; it "
                          f"has {listed(repr(k.name) for k in self.kinds)}: choose one, or fit "
                          "with kinds=(…)")

    def _controls(self, kind: str) -> Deviations | None:
        """Healthy people, each scored by what others said; a model read from a file has none."""
        return None if self._held_out is None else self._scored_apart(kind, self._held_out)

    def _scored_apart(self, kind: str, held_out: Cohort) -> Deviations:
        if kind not in self._scored:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                self._scored[kind] = self.fitted.score(held_out, self.kind_called(kind),
                                                       self.inference)
        return self._scored[kind].changed(reference=self.fitted.references[kind])

    def citation(self, kind: str | Kind | None = None) -> Citation:
        """A methods paragraph on this model and deviations of this kind; ``.bibtex`` of it."""
        return cite(self.fitted.references[self.kind_called(kind).name])

    def predict(self, cohort: Cohort) -> pd.DataFrame:
        """Expected features of every modality, measured or not, in the modality's unit.

        E[mu_m(z)] under q(z | what was measured, covariates): for a modality that was not
        measured, its prediction from the others.

        Returns
        -------
        DataFrame, shape (n_subjects, n_features), columns (modality, feature)
        """
        found = [self._predicted(fitted, people) for fitted, people in self.fitted.each(cohort)]
        return pd.concat(found).loc[cohort.ids]

    def _predicted(self, f: Fitted, cohort: Cohort) -> pd.DataFrame:
        cohort = f.preparation.aligned(cohort)
        batch = f.batch(cohort, known_roles(cohort, f.known))
        with torch.no_grad():
            found = Reconstruction().predicted(f.vae, batch, self.inference)
        return pd.DataFrame(f.preparation.in_units(found.mean, found.sd, cohort.subjects),
                            cohort.ids, f.preparation.columns)

    def impute(self, cohort: Cohort) -> Cohort:
        """The same people with each one's missing modalities filled in, marked as imputed.

        Values are those of :meth:`predict`; their sd is true of calibration people, if the model
        has kind ``leave_modality_out``.

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> controls, patients = tiny_cohort(180, seed=1).split("diagnosis == 'CN'")
        >>> plan = TrainingPlan(max_epochs=2, warmup=1)
        >>> model = NormativeModel(n_latent=2, plan=plan).fit(controls)
        >>> bool(model.impute(patients).imputed.equals(~patients.present))
        True
        """
        return imputed_by_latents(self.fitted, cohort, self.inference, repr(self))

    def centiles(self, feature: str, *, modality: str | None = None,
                 shares: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
                 measured: Sequence[str] | None = None, **given: Any) -> pd.DataFrame:
        """Normal range of a feature at given covariates, in the modality's unit.

        Calibrated like deviations of kind ``covariates``, on reference people who have at least
        the modalities in ``measured``: the value of a person measured with just these lies on the
        centile Phi(z), if every covariate is given. That of a person measured with others is
        calibrated on other people, and may lie a little beside it.

        Parameters
        ----------
        feature : str
        modality : str, optional
            If several modalities have a feature of that name.
        shares : sequence of float
            Which centiles, between 0 and 1.
        measured : sequence of str, optional
            Modalities of the people the curves are for; by default this feature's alone.
        **given
            Every covariate of the model, one value or several: ``age=range(20, 81),
            sex=["F", "M"]``. A site that is not given is left open: the average site, with the
            width that sites differ by.

        Returns
        -------
        DataFrame
            One row a combination, one column a centile; ``attrs["measured"]`` names the
            modalities.

        Raises
        ------
        CohortError
            A feature, modality, site or level that the model does not know, a covariate that is
            lacking, or too few calibration people with those modalities.
        """
        from .centiles import centiles

        return centiles(self.fitted, feature, modality, shares, measured, given)

    def log_likelihood(self, cohort: Cohort, *, draws: int = 100) -> pd.DataFrame:
        """How probable each person's measurements are: log p(x_S | covariates).

        By importance sampling from the posterior (:func:`normfuse.evidence.log_likelihood`): a
        lower bound on average, nearer the more draws. Of the densities of features in the
        modalities' units, so that models with different covariate models can be compared. Compare
        models on people that none of them was trained on.

        Returns
        -------
        DataFrame, columns ``log_likelihood`` (nats), ``n_measured`` and ``per_feature``
        """
        seen = self.fitted.seen(self.fitted.preparation.aligned(cohort))
        if seen.any():
            warnings.warn(f"{int(seen.sum())} of {len(cohort)} subjects were used to train this "
                          "model: they are too probable under it", stacklevel=2)
        return pd.concat([self._probable(fitted, people, draws) for fitted, people
                          in self.fitted.each(cohort)]).loc[cohort.ids]

    def _probable(self, f: Fitted, cohort: Cohort, draws: int) -> pd.DataFrame:
        cohort = f.preparation.aligned(cohort)
        roles = known_roles(cohort, f.known)
        n = np.hstack([b.notna().to_numpy() for b in cohort.features.values()]).sum(1)
        found = log_likelihood(f.vae, f.batch(cohort, roles), self.inference, draws,
                               seed=self.seed)
        found = found.numpy() + f.preparation.log_slopes(cohort, f.left_out(roles))
        return pd.DataFrame({"log_likelihood": found, "n_measured": n,
                             "per_feature": found / np.where(n, n, 1)}, index=cohort.ids)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model to a new folder: ``model.json`` and ``weights.safetensors``.

        Of processes that ``torchrun`` started the first one writes; the others wait.
        """
        from .model_file import write_model

        return processes().from_first(lambda: write_model(self, Path(folder), overwrite=overwrite))

    @classmethod
    def load(cls, folder: str | Path, *, fusion: Aggregator | None = None) -> NormativeModel:
        """Read what :meth:`save` wrote; ``fusion`` only for an aggregator of your own."""
        from .model_file import read_model

        return read_model(Path(folder), fusion)

    def _repr_html_(self) -> str:
        return model_card(self, None if self._fitted is None else self._fitted.reference).html()

    def __repr__(self) -> str:
        if self._fitted is None:
            return f"<NormativeModel {self.fusion!r}, {self.model!r}, not fitted>"
        people = sum(self._fitted.reference.n_subjects.values())
        recipe = self._fitted.vae.recipe
        return f"<NormativeModel {self.fusion!r}, {recipe!r}, fitted on {people} people>"
