"""Chooses between simple and neural dynamics by a backtest, and fits the chosen ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.evaluation.agent_posteriors import refit_on_all_rows
from persim_lightning.evaluation.held_out import SHORT_TAIL, calibrate_on_tails
from persim_lightning.ladder.backtest import Rollouts, backtest, errors, state_scale
from persim_lightning.ladder.choice import Choice
from persim_lightning.ladder.neural import FitNeural, Neural, fit_budgets
from persim_lightning.ladder.rungs import Rung, fit_rung, rungs
from persim_lightning.models.ensemble import select_members
from persim_lightning.models.merging import merge_members
from persim_lightning.models.population import FittedPopulation
from persim_lightning.models.simulator import Simulator

# Models whose error exceeds the best one's by more than this factor get no members.
_WORST = 1.5
# Rows that rungs are fitted on rollouts over, at most.
_MAX_STEPS = 8
# Errors below this share of a state's standard deviation are equal.
_EXACT = 1e-6
# Rows that a tail should have for a backtest.
_TAIL_ROWS = 5


def can_merge(options: Mapping[str, Any]) -> bool:
    """Return whether networks with these options of PerSimModule can be joined with simple dynamics."""
    return options.get("factorization", "cp") == "cp" and bool(options.get("agent_factors", True))


def backtest_tail(trajectories: Trajectories, holdout: float) -> float:
    """Share of every trajectory that a backtest predicts: `holdout`, or a third where this would be too few rows."""
    long_enough = trajectories.lengths.double().median() * holdout >= _TAIL_ROWS
    return holdout if holdout > 0 and bool(long_enough) else SHORT_TAIL


@dataclass(frozen=True)
class Chosen:
    """The result of a backtest.

    Attributes
    ----------
    choice : Choice
    heads : FittedPopulation
        The chosen ensemble, fitted to the heads of trajectories.
    neural : dict of str to Neural
        Neural models that were compared, fitted to the heads.
    """

    choice: Choice
    heads: FittedPopulation
    neural: dict[str, Neural]


def choose(
    fit: FitNeural, wanted: dict[str, int | None], trajectories: Trajectories, tail: float, members: int
) -> Chosen:
    """Compare simple dynamics with neural ones on the tails of trajectories.

    Parameters
    ----------
    fit : callable, (tail, steps) -> Neural
    wanted : dict of str to int or None
        Steps of the neural models, see :func:`~persim_lightning.ladder.neural.budgets`.
    trajectories : Trajectories
    tail : float
    members : int
        Members of the ensemble.
    """
    scale = state_scale(trajectories)
    tests: dict[str, Rollouts] = {}
    scores: dict[str, Tensor] = {}

    def score(name: str, population: FittedPopulation) -> float:
        tests[name] = backtest(population, trajectories, tail)
        scores[name] = errors(tests[name].predicted, tests[name], scale)
        return float(scores[name].mean())

    neural = fit_budgets(fit, wanted, tail, lambda name, one: score(name, one.population))
    like = next(iter(neural.values()))
    rows, _ = trajectories.split_rows(tail)
    simple = _fit_rungs(_rungs(trajectories, tail), like, trajectories, rows)
    for name, one in simple.items():
        score(name, FittedPopulation(one, trajectories.schema, trajectories.agent_ids))
    counts = _apportion({name: float(values.mean()) for name, values in scores.items()}, members)
    combined = torch.stack([count * tests[name].predicted for name, count in counts.items()]).sum(0) / members
    own = errors(combined, next(iter(tests.values())), scale)
    ordered = [*simple, *neural]
    choice = Choice(
        state=trajectories.schema.state,
        tail=tail,
        errors={name: tuple(scores[name].tolist()) for name in ordered},
        members={name: counts[name] for name in ordered if name in counts},
        combined=tuple(own.tolist()),
    )
    return Chosen(choice, _combined(choice, simple, neural, like), neural)


def fit_chosen(choice: Choice, neural: dict[str, Neural], like: Neural, trajectories: Trajectories) -> FittedPopulation:
    """Fit the chosen simple dynamics to all rows, and join them with neural members.

    Parameters
    ----------
    choice : Choice
    neural : dict of str to Neural
        The chosen neural models.
    like : Neural
        Any neural model with the same normalization constants.
    trajectories : Trajectories
    """
    rows, _ = trajectories.split_rows(0.0)
    wanted = [rung for rung in _rungs(trajectories, choice.tail) if rung.name in choice.members]
    return _combined(choice, _fit_rungs(wanted, like, trajectories, rows), neural, like)


class Settled(NamedTuple):
    """A chosen ensemble that is fitted to all rows, the calibration of its intervals, and the choice."""

    population: FittedPopulation
    calibration: Calibration | None
    choice: Choice


def settle(
    fit: FitNeural,
    wanted: dict[str, int | None],
    trajectories: Trajectories,
    tail: float,
    members: int,
    retrain: bool,
) -> Settled:
    """Choose by a backtest, calibrate intervals on it, and fit the chosen ensemble to all rows.

    Parameters
    ----------
    fit, wanted, trajectories, tail, members
        As for :func:`choose`.
    retrain : bool
        Whether to train chosen neural models once more, on all rows. Otherwise their encoders stay, and agents' factors
        are computed from all rows.
    """
    chosen = choose(fit, wanted, trajectories, tail, members)
    calibration = calibrate_on_tails(chosen.heads, trajectories, tail)
    neural = {name: one for name, one in chosen.neural.items() if name in chosen.choice.members}
    like = next(iter(chosen.neural.values()))
    if retrain:
        neural = {name: fit(0.0, wanted[name]) for name in neural}
        like = next(iter(neural.values()), like)
    population = fit_chosen(chosen.choice, neural, like, trajectories)
    refit_on_all_rows(population, trajectories)
    return Settled(population, calibration, chosen.choice)


def _rungs(trajectories: Trajectories, tail: float) -> tuple[Rung, ...]:
    rows = int(trajectories.lengths.double().median() * tail)
    return rungs(max(2, min(_MAX_STEPS, rows)))


def _fit_rungs(
    wanted: tuple[Rung, ...] | list[Rung], like: Neural, trajectories: Trajectories, rows: Tensor
) -> dict[str, Simulator]:
    config = like.population.simulator.config
    fitted = {rung.name: fit_rung(rung, trajectories, rows, config, like.statistics) for rung in wanted}
    return {name: one for name, one in fitted.items() if one is not None}


def _apportion(scores: dict[str, float], members: int) -> dict[str, int]:
    """Divide members among models in proportion to 1/error², by the method of largest remainders."""
    best = min(scores.values())
    weights = {name: 1 / max(score, _EXACT) ** 2 for name, score in scores.items() if score <= _WORST * best + _EXACT}
    shares = {name: members * weight / sum(weights.values()) for name, weight in weights.items()}
    counts = {name: int(share) for name, share in shares.items()}
    rest = sorted(shares, key=lambda name: counts[name] - shares[name])[: members - sum(counts.values())]
    counts |= {name: counts[name] + 1 for name in rest}
    return {name: count for name, count in counts.items() if count}


def _combined(
    choice: Choice, simple: dict[str, Simulator], neural: dict[str, Neural], like: Neural
) -> FittedPopulation:
    config = like.population.simulator.config
    parts = []
    for name, count in choice.members.items():
        if name in simple:
            parts.append(select_members(simple[name], torch.zeros(count, dtype=torch.int64)))
            continue
        own = neural[name].population.simulator
        parts.append(select_members(own, own.noise.mean(1).argsort()[:count].sort().values))
    if not set(neural) & set(choice.members):
        config = replace(config, state_hidden=(), action_hidden=())
    simulator = merge_members(parts, config)
    return FittedPopulation(simulator, like.population.schema, like.population.agent_ids)
