"""Results of the low-rank check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from persim_lightning.theory.spectrum import multilinear_rank

# Relative error that a rank must reach to count as sufficient.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class RankCurve:
    """Errors of decompositions against rank.

    Attributes
    ----------
    spectrum : dict of str to list of float
        Multilinear singular values of every mode, divided by the largest one.
    ranks : list of int
    cp, tucker : list of float
        Relative errors. Tucker has this rank in every mode.
    cp_errors : list of list of float
        CP errors of every initialization.
    converged : list of int
        Number of initializations that converged before the iteration limit.
    core_consistency : list of float
    """

    spectrum: dict[str, list[float]]
    ranks: list[int]
    cp: list[float]
    cp_errors: list[list[float]]
    converged: list[int]
    core_consistency: list[float]
    tucker: list[float]

    def multilinear_ranks(self, tolerance: float = TOLERANCE) -> tuple[int, ...]:
        """Count the directions of every mode that are needed for a relative error of at most `tolerance`."""
        return tuple(multilinear_rank(np.array(values), tolerance) for values in self.spectrum.values())

    def sufficient_rank(self, tolerance: float = TOLERANCE) -> int | None:
        """Return the smallest CP rank of the curve with an error of at most `tolerance`, or None."""
        return next((rank for rank, error in zip(self.ranks, self.cp, strict=True) if error <= tolerance), None)


@dataclass(frozen=True)
class ObservedCurve:
    """Errors of masked CP decompositions of the true tensor against rank.

    The lists are empty if the data visit every cell.

    Attributes
    ----------
    share : float
        Fraction of the cells (agent, state, action) that the data visit.
    ranks : list of int
    seen, unseen : list of float
        Relative errors on visited cells, and on the others.
    """

    share: float
    ranks: list[int]
    seen: list[float]
    unseen: list[float]


@dataclass(frozen=True)
class TruthCheck:
    """Rank of the true dynamics.

    Attributes
    ----------
    merged : RankCurve
        Curve of the tensor (N, S·D, A), which PerSim factorizes.
    coordinates : dict of str to RankCurve
        Curves of the tensors (N, S, A) of single coordinates.
    observed : ObservedCurve
        Curve for decompositions of the visited cells only.
    """

    merged: RankCurve
    coordinates: dict[str, RankCurve]
    observed: ObservedCurve


@dataclass(frozen=True)
class TruthComparison:
    """A fitted simulator's tensor compared with the true one.

    Attributes
    ----------
    error : float
        Relative error of the ensemble's mean, coordinates scaled.
    coordinate_errors : dict of str to float
    agent_angles : list of float
        Principal angles in degrees between the leading agent directions of the true and the learned tensor. Their
        number is the true tensor's multilinear rank, at most R.
    projection_error, best_projection_error : float
        Relative error of the true tensor after projecting its agents onto the model's R leading directions, and onto
        its best R directions.
    unique : bool or None
        Whether the first member's factors meet Kruskal's condition; CP only.
    match : float or None
        Congruence of the first member's factors with the true tensor's factors of the same rank, if both meet it.
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
    """How well agent factors predict covariates, which are never used in training.

    Attributes
    ----------
    angles : list of list of float
        For every member, principal angles in degrees between the span of its factors and the span of a constant and
        the covariates.
    linear, quadratic : dict of str to float or None
        Cross-validated R² of predicting every covariate from the factors, averaged over members. None if all agents
        have the same value.
    """

    angles: list[list[float]]
    linear: dict[str, float | None]
    quadratic: dict[str, float | None]


@dataclass(frozen=True)
class LearnedCheck:
    """Properties of a fitted simulator's tensor.

    Attributes
    ----------
    factorization : str
    ranks : list of int
        Ranks of the network: agent, state, action.
    spectrum : dict of str to list of float
        Spectrum of the ensemble's mean, without walls.
    against_truth : TruthComparison or None
    covariates : CovariateCheck or None
        None if no covariates are known, or of too few agents.
    """

    factorization: str
    ranks: list[int]
    spectrum: dict[str, list[float]]
    against_truth: TruthComparison | None
    covariates: CovariateCheck | None


class AgentCovariates(NamedTuple):
    """Covariates of all agents of a population, which are never used in training.

    Attributes
    ----------
    names : tuple of str
    values : ndarray, shape (N, C)
    """

    names: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class TheoremCheck:
    """All results of the check.

    Attributes
    ----------
    name : str
        Name of the environment or the run.
    sample : dict of str to int
        Number of agents, states and actions of the tensor.
    truth : TruthCheck or None
        None if the true dynamics are unknown.
    learned : LearnedCheck or None
    covariates : AgentCovariates or None
    recovered : ndarray, shape (N, C), or None
        Covariates of held-out agents, predicted from their factors.
    """

    name: str
    sample: dict[str, int]
    truth: TruthCheck | None
    learned: LearnedCheck | None
    covariates: AgentCovariates | None = None
    recovered: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to a JSON-serializable dictionary, without the covariates of single agents."""
        return {
            "name": self.name,
            "sample": self.sample,
            "truth": None if self.truth is None else asdict(self.truth),
            "learned": None if self.learned is None else asdict(self.learned),
        }
