"""The low-rank theorem, checked: is the true dynamics low-rank, at which rank, and did training find its factors?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.models.population import FittedPopulation
from persim_lightning.theory.lowrank import Compressed, compress, cp_fit, multilinear_rank, tucker_error
from persim_lightning.theory.observed import ObservedCurve, observed_curve, visited_cells
from persim_lightning.theory.recovery import (
    covariate_features,
    factor_match,
    is_unique,
    leading_directions,
    principal_angles,
    projection_error,
    recover_covariates,
)
from persim_lightning.theory.sample import Sample, sample_cells
from persim_lightning.theory.tensors import coordinate_scales, learned_tensor, merged, true_tensor

RANKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
_COORDINATE_RANKS = (1, 2, 3, 5)
# A mode needs as many directions as leave a relative error below this.
TOLERANCE = 1e-2
# R² over fewer held-out agents says nothing.
MIN_AGENTS = 20
MODES = ("agent", "state", "action")


@dataclass(frozen=True)
class RankCurve:
    """Errors of decompositions against rank.

    Attributes
    ----------
    spectrum : dict of str to list of float
        Multilinear singular values of every mode, the largest one 1.
    ranks : list of int
    cp, tucker : list of float
        Relative errors; Tucker with this rank in every mode.
    cp_errors : list of list of float
        Of every initialization.
    converged : list of int
        Initializations that stopped by themselves.
    core_consistency : list of float
    """

    spectrum: dict[str, list[float]]
    ranks: list[int]
    cp: list[float]
    cp_errors: list[list[float]]
    converged: list[int]
    core_consistency: list[float]
    tucker: list[float]

    @classmethod
    def of(cls, compressed: Compressed, ranks: Sequence[int], inits: int = 3, iterations: int = 1000) -> RankCurve:
        """Decompose a three-way tensor at several ranks."""
        fits = [cp_fit(compressed, rank, inits, iterations) for rank in ranks]
        return cls(
            spectrum=_relative(compressed.spectra),
            ranks=list(ranks),
            cp=[fit.error for fit in fits],
            cp_errors=[fit.errors for fit in fits],
            converged=[fit.converged for fit in fits],
            core_consistency=[fit.core_consistency for fit in fits],
            tucker=[tucker_error(compressed, (rank,) * 3) for rank in ranks],
        )

    def multilinear_ranks(self, tolerance: float = TOLERANCE) -> tuple[int, ...]:
        """Directions of every mode that leave a relative error of at most `tolerance`."""
        return tuple(multilinear_rank(np.array(values), tolerance) for values in self.spectrum.values())

    def needed_rank(self, tolerance: float = TOLERANCE) -> int | None:
        """Smallest CP rank tried that leaves at most `tolerance`; None where none does."""
        return next((rank for rank, error in zip(self.ranks, self.cp, strict=True) if error <= tolerance), None)


@dataclass(frozen=True)
class TruthCheck:
    """How low-rank the true dynamics is.

    Attributes
    ----------
    merged : RankCurve
        Of the tensor with coordinates within the state mode, as PerSim factorizes it.
    coordinates : dict of str to RankCurve
        Of every coordinate by itself.
    observed : ObservedCurve
        From the cells alone that the data visit.
    """

    merged: RankCurve
    coordinates: dict[str, RankCurve]
    observed: ObservedCurve


@dataclass(frozen=True)
class TruthComparison:
    """A fitted simulator's tensor beside the true one.

    Attributes
    ----------
    error : float
        Relative error of the ensemble's mean (coordinates scaled).
    coordinate_errors : dict of str to float
    agent_angles : list of float
        Degrees between the true tensor's leading agent directions and the learned ones, as many as the truth needs.
    projection_error, best_projection_error : float
        What the true tensor loses when its agents are projected onto the model's R leading directions, and onto the
        best R ones.
    unique : bool or None
        Whether the first member's factors meet Kruskal's condition; CP only.
    match : float or None
        Congruence of the first member's factors with the true tensor's at the same rank, where both meet it.
    """

    error: float
    coordinate_errors: dict[str, float]
    agent_angles: list[float]
    projection_error: float
    best_projection_error: float
    unique: bool | None
    match: float | None


@dataclass(frozen=True)
class CovariateCheck:
    """What agent factors tell of covariates that training never saw.

    Attributes
    ----------
    angles : list of list of float
        Degrees between the span of a constant and the covariates and the span of each member's factors.
    linear, quadratic : dict of str to float or None
        Cross-validated R² of every covariate from the factors, the mean over members; None where all agents are alike.
    """

    angles: list[list[float]]
    linear: dict[str, float | None]
    quadratic: dict[str, float | None]


@dataclass(frozen=True)
class LearnedCheck:
    """What a fitted simulator's tensor looks like.

    Attributes
    ----------
    factorization : str
    ranks : list of int
        Of the network: agent, state, action.
    spectrum : dict of str to list of float
        Of the ensemble's mean, without walls.
    against_truth : TruthComparison or None
    covariates : CovariateCheck or None
        None where none are known, or of too few agents.
    """

    factorization: str
    ranks: list[int]
    spectrum: dict[str, list[float]]
    against_truth: TruthComparison | None
    covariates: CovariateCheck | None


class AgentFacts(NamedTuple):
    """What is known of all agents of a population, and never trained on.

    Attributes
    ----------
    names : tuple of str
    covariates : ndarray, shape (N, C)
    """

    names: tuple[str, ...]
    covariates: np.ndarray


@dataclass(frozen=True)
class TheoremCheck:
    """Everything that was found out.

    Attributes
    ----------
    name : str
        Of the environment or the run.
    sample : dict of str to int
        Agents, states and actions of the tensor.
    truth : TruthCheck or None
        None where no true dynamics is known.
    learned : LearnedCheck or None
    facts : AgentFacts or None
    recovered : ndarray, shape (N, C), or None
        Covariates as predicted from the factors of held-out agents.
    """

    name: str
    sample: dict[str, int]
    truth: TruthCheck | None
    learned: LearnedCheck | None
    facts: AgentFacts | None = None
    recovered: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "sample": self.sample,
            "truth": None if self.truth is None else asdict(self.truth),
            "learned": None if self.learned is None else asdict(self.learned),
        }


class TrueTensor(NamedTuple):
    """The true tensor of a sample.

    Attributes
    ----------
    scaled : ndarray, shape (N, S, A, D)
        Coordinates divided by `scale`.
    scale : ndarray, shape (D,)
    compressed : Compressed
        Of the tensor with coordinates within the state mode.
    """

    scaled: np.ndarray
    scale: np.ndarray
    compressed: Compressed

    @classmethod
    def of(cls, environment: Environment, covariates: Tensor, sample: Sample) -> TrueTensor:
        """One step of the environment for agents with these covariates, (N, C)."""
        tensor = true_tensor(environment, covariates, sample.states, sample.actions)
        scale = coordinate_scales(tensor)
        return cls(tensor / scale, scale, compress(merged(tensor / scale), 3 * max(RANKS)))


def check_truth(
    truth: TrueTensor, coordinate_names: Sequence[str], sample: Sample, trajectories: Trajectories
) -> TruthCheck:
    """Decompose the true dynamics.

    Parameters
    ----------
    truth : TrueTensor
    coordinate_names : sequence of str
    sample : Sample
    trajectories : Trajectories
        They say which cells are visited.
    """
    coordinates = {
        name: RankCurve.of(
            compress(merged(truth.scaled[..., index : index + 1]), 3 * max(_COORDINATE_RANKS)),
            *(_COORDINATE_RANKS, 1, 200),
        )
        for index, name in enumerate(coordinate_names)
    }
    observed = observed_curve(truth.scaled, visited_cells(trajectories, *sample), _COORDINATE_RANKS)
    return TruthCheck(RankCurve.of(truth.compressed, RANKS), coordinates, observed)


def check_learned(
    personalized: FittedPopulation, sample: Sample, truth: TrueTensor | None, facts: AgentFacts | None
) -> tuple[LearnedCheck, np.ndarray | None]:
    """Compare a simulator's tensor and agent factors with the truth.

    Parameters
    ----------
    personalized : FittedPopulation
    sample : Sample
    truth : TrueTensor or None
        The sample's.
    facts : AgentFacts or None
        Of all agents of the population.

    Returns
    -------
    check : LearnedCheck
    recovered : ndarray, shape (all agents, C), or None
    """
    simulator = personalized.simulator
    free = learned_tensor(personalized, sample.agents, sample.states, sample.actions, walls=False)
    free = free / (coordinate_scales(free) if truth is None else truth.scale)
    covariates, recovered = None, None
    if facts is not None and len(facts.covariates) >= MIN_AGENTS:
        factors = simulator.agent_encoder.table().detach().cpu().double().numpy()
        recovery = recover_covariates(factors, facts.covariates)
        recovered = recovery.predicted
        span = covariate_features(facts.covariates)
        covariates = CovariateCheck(
            angles=[principal_angles(own, span).tolist() for own in factors],
            linear=_by_name(facts, recovery.linear),
            quadratic=_by_name(facts, recovery.quadratic),
        )
    check = LearnedCheck(
        factorization=personalized.simulator.config.factorization,
        ranks=list(simulator.config.ranks),
        spectrum=_relative(compress(merged(free), limit=1).spectra),
        against_truth=None if truth is None else _against_truth(personalized, sample, free, truth),
        covariates=covariates,
    )
    return check, recovered


def _by_name(facts: AgentFacts, scores: np.ndarray) -> dict[str, float | None]:
    """Mean over members of (M, C), None for NaN."""
    means = [None if np.isnan(value) else float(value) for value in scores.mean(0)]
    return dict(zip(facts.names, means, strict=True))


def _relative(spectra: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Singular values of every mode, the largest one 1."""
    return {mode: (own / max(own[0], 1e-300)).tolist() for mode, own in zip(MODES, spectra, strict=True)}


def _against_truth(
    personalized: FittedPopulation, sample: Sample, free: np.ndarray, truth: TrueTensor
) -> TruthComparison:
    """Errors, agent directions and factor match; `free` is the scaled tensor without walls."""
    rank = personalized.simulator.config.ranks.agent
    predicted = learned_tensor(personalized, sample.agents, sample.states, sample.actions) / truth.scale
    residual, size = (np.square(values).mean((0, 1, 2)) for values in (predicted - truth.scaled, truth.scaled))
    coordinates = np.sqrt(residual / np.maximum(size, 1e-300)).tolist()
    count = min(multilinear_rank(truth.compressed.spectra[0], TOLERANCE), rank)
    true_directions, own_directions = leading_directions(truth.scaled, rank), leading_directions(free, rank)
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
        agent_angles=principal_angles(true_directions[:, :count], own_directions[:, :count]).tolist(),
        projection_error=projection_error(truth.scaled, own_directions),
        best_projection_error=projection_error(truth.scaled, true_directions),
        unique=unique,
        match=match,
    )


def _first_member(personalized: FittedPopulation, sample: Sample, scale: np.ndarray) -> list[np.ndarray]:
    """CP factors of the first member, coordinates scaled."""
    simulator = personalized.simulator
    rank, device = simulator.config.ranks.agent, simulator.delta_rms.device
    tensor = simulator.as_tensor(sample.agents, sample.states.float().to(device), sample.actions.to(device))
    agents, states, actions = (factor[:, :rank] for factor in tensor.factors)
    states = (states.reshape(-1, len(scale), rank) / scale[:, None]).reshape(-1, rank)
    return [agents, states, actions]


def check_theorem(
    name: str,
    personalized: FittedPopulation | None,
    trajectories: Trajectories,
    environment: Environment | None,
    facts: AgentFacts | None,
    sample: Sample | None = None,
) -> TheoremCheck:
    """Check the true dynamics where it is known, and a fitted simulator where one is given.

    Parameters
    ----------
    name : str
    personalized : FittedPopulation or None
    trajectories : Trajectories
        Recorded ones, of the agents that `facts` tells of: states and actions are drawn from them.
    environment : Environment or None
    facts : AgentFacts or None
        Covariates of all agents. The true dynamics is known where these are the environment's.
    sample : Sample, optional
        Drawn from the trajectories where not given.
    """
    sample = sample or sample_cells(trajectories)
    truth, tensor = None, None
    if environment is not None and facts is not None:
        wanted = [covariate.name for covariate in environment.covariates]
        if set(wanted) <= set(facts.names):
            own = facts.covariates[:, [facts.names.index(covariate) for covariate in wanted]]
            tensor = TrueTensor.of(environment, torch.from_numpy(own)[sample.agents], sample)
            truth = check_truth(tensor, environment.state_names, sample, trajectories)
    learned, recovered = None, None
    if personalized is not None:
        learned, recovered = check_learned(personalized, sample, tensor, facts)
    return TheoremCheck(name, sample.to_dict(), truth, learned, facts, recovered)
