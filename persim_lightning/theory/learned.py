"""Did training find the right factors? Compare a simulator's tensor with the true one, and factors with covariates."""

from __future__ import annotations

import numpy as np

from persim_lightning.models.population import FittedPopulation
from persim_lightning.theory.lowrank import compress, cp_fit
from persim_lightning.theory.recovery import (
    covariate_features,
    factor_match,
    is_unique,
    leading_directions,
    principal_angles,
    projection_error,
    recover_covariates,
)
from persim_lightning.theory.results import TOLERANCE, AgentCovariates, CovariateCheck, LearnedCheck, TruthComparison
from persim_lightning.theory.sample import Sample
from persim_lightning.theory.spectrum import multilinear_rank, normalized_spectra
from persim_lightning.theory.tensors import coordinate_scales, learned_tensor, merged
from persim_lightning.theory.truth import TrueTensor

# With fewer held-out agents, R² means little.
MIN_AGENTS = 20


def check_learned(
    personalized: FittedPopulation, sample: Sample, truth: TrueTensor | None, covariates: AgentCovariates | None
) -> tuple[LearnedCheck, np.ndarray | None]:
    """Compare a simulator's tensor and agent factors with the truth.

    Parameters
    ----------
    personalized : FittedPopulation
    sample : Sample
    truth : TrueTensor or None
        True tensor of the sample.
    covariates : AgentCovariates or None
        Of all agents of the population.

    Returns
    -------
    check : LearnedCheck
    recovered : ndarray, shape (all agents, C), or None
        Covariates of held-out agents, predicted from their factors.
    """
    simulator = personalized.simulator
    learned = learned_tensor(personalized, sample.agents, sample.states, sample.actions, walls=False)
    learned = learned / (coordinate_scales(learned) if truth is None else truth.scale)
    covariate_check, recovered = None, None
    if covariates is not None and len(covariates.values) >= MIN_AGENTS:
        factors = simulator.agent_encoder.table().detach().cpu().double().numpy()
        recovery = recover_covariates(factors, covariates.values)
        recovered = recovery.predicted
        features = covariate_features(covariates.values)
        covariate_check = CovariateCheck(
            angles=[principal_angles(member, features).tolist() for member in factors],
            linear=_mean_scores(covariates.names, recovery.linear),
            quadratic=_mean_scores(covariates.names, recovery.quadratic),
        )
    check = LearnedCheck(
        factorization=personalized.simulator.config.factorization,
        ranks=list(simulator.config.ranks),
        spectrum=normalized_spectra(compress(merged(learned), limit=1).spectra),
        against_truth=None if truth is None else _compare(personalized, sample, learned, truth),
        covariates=covariate_check,
    )
    return check, recovered


def _mean_scores(names: tuple[str, ...], scores: np.ndarray) -> dict[str, float | None]:
    """Average scores (M, C) over members; None for NaN."""
    means = [None if np.isnan(value) else float(value) for value in scores.mean(0)]
    return dict(zip(names, means, strict=True))


def _compare(personalized: FittedPopulation, sample: Sample, learned: np.ndarray, truth: TrueTensor) -> TruthComparison:
    """Compare errors, agent directions and factors; `learned` is the scaled tensor without walls."""
    rank = personalized.simulator.config.ranks.agent
    predicted = learned_tensor(personalized, sample.agents, sample.states, sample.actions) / truth.scale
    residual, size = (np.square(values).mean((0, 1, 2)) for values in (predicted - truth.scaled, truth.scaled))
    coordinates = np.sqrt(residual / np.maximum(size, 1e-300)).tolist()
    count = min(multilinear_rank(truth.compressed.spectra[0], TOLERANCE), rank)
    true_directions, learned_directions = leading_directions(truth.scaled, rank), leading_directions(learned, rank)
    unique = None
    match = None
    if personalized.simulator.config.factorization == "cp":
        factors = _first_member(personalized, sample, truth.scale)
        unique = is_unique(factors)
        target = cp_fit(truth.compressed, rank).cp if unique else None
        if target is not None and is_unique(target.factors):
            match = factor_match(factors, target.factors)
    return TruthComparison(
        error=float(np.sqrt(residual.sum() / size.sum())),
        coordinate_errors=dict(zip(personalized.schema.state, coordinates, strict=True)),
        agent_angles=principal_angles(true_directions[:, :count], learned_directions[:, :count]).tolist(),
        projection_error=projection_error(truth.scaled, learned_directions),
        best_projection_error=projection_error(truth.scaled, true_directions),
        unique=unique,
        match=match,
    )


def _first_member(personalized: FittedPopulation, sample: Sample, scale: np.ndarray) -> list[np.ndarray]:
    """Return the CP factors of the first member, coordinates scaled."""
    simulator = personalized.simulator
    rank, device = simulator.config.ranks.agent, simulator.delta_rms.device
    tensor = simulator.as_tensor(sample.agents, sample.states.float().to(device), sample.actions.to(device))
    agents, states, actions = (factor[:, :rank] for factor in tensor.factors)
    states = (states.reshape(-1, len(scale), rank) / scale[:, None]).reshape(-1, rank)
    return [agents, states, actions]
