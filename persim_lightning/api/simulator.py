"""Your own agents: from a table to a simulator of every agent, what-if answers, plans, and new agents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from persim_lightning.adaptation.covariate_map import CovariateMap
from persim_lightning.adaptation.extend import extend_population
from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.adaptation.posterior import FactorPosterior, FactorPrior, population_prior
from persim_lightning.api.action_space import table_action_space
from persim_lightning.api.answers import Plan, Prediction
from persim_lightning.data.recordings import Recordings
from persim_lightning.data.tables.actions import decode_actions, encode_actions
from persim_lightning.data.tables.canonical import clock_column, load_trajectories, trajectories_table
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.covariates import covariates_from_table
from persim_lightning.data.tables.sources import as_table, write_table
from persim_lightning.data.tables.times import row_times
from persim_lightning.data.tables.user import read_like, user_trajectories
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment, get_environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.evaluation.intervals import calibrate, rollout_spread
from persim_lightning.models.outcomes import OutcomeModel, load_outcomes, save_outcomes
from persim_lightning.models.population import FittedPopulation
from persim_lightning.planning.icem import ICEM
from persim_lightning.planning.objective import Objective, Reward, Termination
from persim_lightning.planning.planner import Planner, Problem
from persim_lightning.planning.returns import EnsembleReturns
from persim_lightning.support.files import read_json, write_json
from persim_lightning.training.outcomes import fit_outcomes
from persim_lightning.types import Schema

_RECORDED, _OUTCOMES = "trajectories.parquet", "outcomes.safetensors"
_ENVIRONMENT, CALIBRATION = "environment.json", "calibration.json"
# Optimizer steps of a fit whose epochs are not given, and the batches that they take.
_STEPS, _MIN_BATCH, _MAX_BATCH = 4000, 32, 512
# Where two times are one, as a share of a step.
_SAME_TIME = 1e-3


class PersonalizedSimulator:
    """A simulator of every agent of a table with one trajectory each.

    Made by :meth:`fit` or :meth:`load`.

    Parameters
    ----------
    population : FittedPopulation
    trajectories : Trajectories
        What it was fitted on.
    outcomes : OutcomeModel, Environment or None
        Rewards and ends: as learned from the table, or the known ones of one of the three environments.
    calibration : Calibration or None
        How wide intervals have to be.

    Examples
    --------
    >>> import numpy as np
    >>> from persim_lightning import PersonalizedSimulator
    >>> rng = np.random.default_rng(0)
    >>> rows = {"tank": [], "hour": [], "level": [], "inflow": []}
    >>> for tank in range(12):  # every tank leaks at a rate of its own
    ...     level = 1.0
    ...     for hour in range(20):
    ...         inflow = rng.uniform(0, 1)
    ...         for name, value in zip(rows, (tank, hour, level, inflow)):
    ...             rows[name].append(value)
    ...         level += 0.1 * inflow - (0.02 + 0.01 * tank) * level
    >>> simulator = PersonalizedSimulator.fit(
    ...     rows, agent="tank", time="hour", state=["level"], action=["inflow"], rank=2, epochs=200, progress=False
    ... )
    >>> print(simulator.rollout(3, state={"level": 1.0}, actions={"inflow": [0.0, 0.0]}).mean[:, 0].round(2))
    [1.   0.95 0.9 ]
    """

    def __init__(
        self,
        population: FittedPopulation,
        trajectories: Trajectories,
        outcomes: OutcomeModel | Environment | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.population, self.trajectories = population, trajectories
        self.outcomes, self.calibration = outcomes, calibration

    @property
    def schema(self) -> Schema:
        """Columns, and how actions are encoded."""
        return self.population.schema

    @property
    def agents(self) -> tuple[int | str, ...]:
        """Ids of all agents."""
        return self.population.agent_ids

    @classmethod
    def fit(
        cls,
        table: Any,
        *,
        state: Sequence[str],
        action: Sequence[str],
        agent: str = "agent",
        time: str = "t",
        episode: str | None = None,
        reward: str | None = None,
        terminated: str | None = None,
        categorical: Sequence[str] = (),
        step: float | Literal["row"] | None = None,
        gaps: Literal["error", "split"] = "error",
        rank: int = 8,
        members: int = 5,
        hidden_width: int = 64,
        epochs: int | None = None,
        holdout: float = 0.1,
        seed: int = 0,
        progress: bool = True,
        **model: Any,
    ) -> PersonalizedSimulator:
        """Learn a simulator of every agent of a table.

        Parameters
        ----------
        table : path, pyarrow.Table, pandas or polars DataFrame, dict of columns, or minari.MinariDataset
            One row per (agent, time); the next state of a row is the next row's state. For Minari see
            :func:`~persim_lightning.data.tables.minari.minari_columns`.
        state, action, agent, time, episode, reward, terminated, categorical, step, gaps
            What its columns mean, see :class:`~persim_lightning.data.tables.columns.TableColumns`.
        rank : int
            Rank R of the factorization: how many ways of being different agents may have.
        members : int
            Ensemble members M.
        hidden_width : int
        epochs : int, optional
            So many as make 4,000 optimizer steps where not given.
        holdout : float
            Share of every trajectory, at its tail, that is not trained on, so that intervals can be calibrated on it.
            Intervals of long rollouts want long tails.
        seed : int
            Same seed, same simulator.
        progress : bool
            Show a progress bar.
        **model
            Further options of :class:`~persim_lightning.training.persim.PerSimModule`, such as `angles`.

        Raises
        ------
        PersimError
            If the table does not fit.
        """
        # Imported late: Lightning takes seconds, and nothing else here needs it.
        from persim_lightning.callbacks.bare_trainer import bare_trainer, quiet
        from persim_lightning.data.datamodule import TrajectoryDataModule
        from persim_lightning.training.persim import PerSimModule

        _check_positive(rank=rank, members=members, hidden_width=hidden_width, epochs=1 if epochs is None else epochs)
        # A string is a list of letters, too: TableColumns refuses it.
        roles: list[Any] = [names if isinstance(names, str) else list(names) for names in (state, action, categorical)]
        columns = TableColumns(*(roles[0], roles[1], agent, time, episode, reward, terminated, roles[2], step, gaps))
        source, name = as_table(table)
        trajectories = user_trajectories(source, columns, name)
        rows = len(trajectories.split_rows(0.0)[0])
        batch = 2 ** round(math.log2(min(max(rows / 50, _MIN_BATCH), _MAX_BATCH)))
        data = TrajectoryDataModule(Recordings(trajectories), batch_size=batch, val_fraction=holdout)
        data.check(world_size=1)
        schema = trajectories.schema
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            module = PerSimModule(
                *(data.num_agents, schema.state_dim, schema.action_dim, schema.num_actions),
                rank=rank,
                members=members,
                hidden_width=hidden_width,
                **model,
            )
            trainer = bare_trainer(
                progress, accelerator="cpu", max_epochs=epochs or max(1, round(_STEPS / data.steps_per_epoch))
            )
            trainer.fit(module, datamodule=data)
        return cls.completed(module.personalized(), trajectories, holdout, seed)

    @classmethod
    def completed(
        cls,
        population: FittedPopulation,
        trajectories: Trajectories,
        tail: float,
        seed: int,
        environment: Environment | None = None,
    ) -> PersonalizedSimulator:
        """A fitted population with what else its table teaches: rewards, ends, and how wide intervals have to be.

        Parameters
        ----------
        population : FittedPopulation
        trajectories : Trajectories
            What it was fitted on.
        tail : float
            Share of every trajectory, at its tail, that it was not trained on.
        seed : int
        environment : Environment, optional
            Knows rewards and ends, so that they need not be learned.
        """
        outcomes = environment or fit_outcomes(trajectories, seed)
        return cls(population, trajectories, outcomes, calibrate(population, trajectories, tail))

    def rollout(
        self,
        agent: int | str,
        state: Mapping[str, float] | Sequence[float] | np.ndarray,
        actions: Any,
        level: float | None = None,
    ) -> Prediction:
        """What the agent would do from a state under a sequence of actions.

        Parameters
        ----------
        agent : int or str
            Id.
        state : mapping of column to value, or array of shape (D,)
        actions : mapping of column to H values, or array
            By the table's columns; or as the simulator takes them, shape (H,) codes or (H, A) coordinates in the order
            of `schema.action`.
        level : float, optional
            Give intervals that hold the truth with this probability, such as .9.

        Raises
        ------
        PersimError
            If the agent, a column or a category is unknown, or an array has another shape.
        """
        encoded = self._encode(actions)
        return self._predict(agent, self._state(state), encoded, level)

    def counterfactual(
        self, agent: int | str, t: Any, actions: Any = None, episode: int = 0, level: float | None = None
    ) -> Prediction:
        """What would have happened if, from a recorded moment on, the agent had been treated otherwise.

        Parameters
        ----------
        agent : int or str
        t : number, date or datetime
            A time of the table.
        actions : optional
            As for :meth:`rollout`; the recorded ones where not given.
        episode : int
            Which of the agent's recorded trajectories that hold such a time, in the table's order.
        level : float, optional
            As for :meth:`rollout`.

        Raises
        ------
        PersimError
            If nothing is recorded of the agent at this time.
        """
        row, last = self._row(agent, t, episode)
        recorded = self.trajectories.state[row : last + 1].numpy()
        encoded = self.trajectories.action[row:last].numpy() if actions is None else self._encode(actions)
        if not len(encoded):
            raise ConfigurationError(f"agent {agent}: nothing was done after time {t}, so say which actions to try")
        return replace(self._predict(agent, recorded[0], encoded, level), recorded=recorded)

    def objective(self, reward: Reward | None = None, terminated: Termination | None = None) -> Objective:
        """What is to be maximized, and when it ends.

        Parameters
        ----------
        reward : callable, optional
            (states (..., D), actions (...)|(..., A), next_states (..., D)) -> rewards (...), tensors in raw units; the
            table's or the environment's where not given.
        terminated : callable, optional
            states (..., D) -> (...) bool; as learned from the table, or as in the environment, where not given.

        Raises
        ------
        ConfigurationError
            If no reward is given, and none is known.
        """
        known = self.outcomes
        if reward is None:
            if known is None or not known.rewarded:
                raise ConfigurationError("the table has no rewards, so say by `objective` what is to be maximized")
            reward = known.reward
        return Objective(reward, terminated or (_never if known is None else known.terminated))

    def plan(
        self,
        agent: int | str,
        state: Mapping[str, float] | Sequence[float] | np.ndarray,
        objective: Reward | None = None,
        horizon: int = 20,
        planner: Planner | None = None,
        pessimism: float = 0.0,
        seed: int = 0,
    ) -> Plan:
        """A good sequence of actions on the agent's own simulator, within the range of recorded actions.

        Parameters
        ----------
        agent : int or str
        state : mapping of column to value, or array of shape (D,)
        objective : callable, optional
            (states (..., D), actions (...)|(..., A), next_states (..., D)) -> rewards (...), tensors in raw units; the
            rewards learned from the table where not given.
        horizon : int
            H.
        planner : Planner, optional
            iCEM where not given.
        pessimism : float
            κ of the score `mean - κ·std` over members.
        seed : int

        Raises
        ------
        ConfigurationError
            If no objective is given, and the table had no rewards.
        """
        _check_positive(horizon=horizon)
        goal = self.objective(objective)
        simulator = self.population.personalize(agent)
        space, realize = table_action_space(self.trajectories)
        start = torch.as_tensor(self._state(state), dtype=torch.float32)[None]
        _try_objective(goal.reward, start, self.trajectories.action[:1])
        score = EnsembleReturns(simulator, goal, start, torch.zeros(1, dtype=torch.int64), pessimism)
        with torch.inference_mode():
            problem = Problem(lambda plans: score(realize(plans)), space, 1, horizon)
            decision = (planner or ICEM(plans=500, rounds=20, elites=50)).plan(
                problem, None, torch.Generator().manual_seed(seed)
            )
            if not bool(decision.score.isfinite().all()):
                raise ConfigurationError("no plan has a finite value: look at the objective, or at the state")
            encoded = realize(decision.plan[:, None])[0, 0].numpy()
        prediction = self.rollout(agent, start[0].numpy(), encoded)
        return Plan(prediction.actions, float(decision.score[0]), prediction)

    def adapt(self, rows: Any = None, covariates: Any = None, known_covariates: Any = None) -> PersonalizedSimulator:
        """Add agents from a few rows of each, from covariates, or from both; nothing is trained.

        The factor of a new agent is its posterior mean: the prior is the population, or what its covariates tell, and
        its rows are the data.

        Parameters
        ----------
        rows : table, optional
            In the columns of the fitted table.
        covariates : table, optional
            Of the new agents: the agent column and a column for every covariate.
        known_covariates : table, optional
            Of the fitted agents, ten of them or more; needed with `covariates`.

        Returns
        -------
        PersonalizedSimulator
            Of all agents, the new ones included.

        Raises
        ------
        PersimError
            If a table does not fit, or an agent is in the population already.
        """
        if rows is None and covariates is None:
            raise ConfigurationError("adapt needs rows, covariates, or both")
        if len(self.agents) < 2:
            raise ConfigurationError("adapt needs a population: one fitted agent says nothing of how agents differ")
        seen = None if rows is None else read_like(self.schema, rows, "rows")
        prior, ids = self._prior(seen, covariates, known_covariates)
        self._check_ids(ids)
        simulator = self.population.simulator
        posterior = FactorPosterior(simulator, prior, len(ids))
        if seen is not None:
            row_of = {label: row for row, label in enumerate(ids)}
            place = torch.tensor([row_of[label] for label in seen.agent_ids])
            rows = seen.free_rows(seen.split_rows(0.0)[0], simulator.walls.contacts)
            batch = seen.transitions(rows, seen.row_agent())
            posterior.update(batch._replace(agent=place[batch.agent]))
        population = extend_population(self.population, ids, posterior.mean)
        recorded = self.trajectories if seen is None else self.trajectories.joined(seen)
        return PersonalizedSimulator(population, recorded, self.outcomes, self.calibration)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the simulators, the recorded trajectories and what was learned of rewards, without pickle."""
        folder = Path(folder)
        written = [*self.population.save(folder), folder / _RECORDED]
        write_table(trajectories_table(self.trajectories), folder / _RECORDED)
        # What an earlier simulator left here would be taken for this one's.
        for name in (_OUTCOMES, _ENVIRONMENT, CALIBRATION):
            (folder / name).unlink(missing_ok=True)
        if isinstance(self.outcomes, OutcomeModel):
            written.append(save_outcomes(self.outcomes, folder / _OUTCOMES))
        elif self.outcomes is not None:
            written.append(folder / _ENVIRONMENT)
            write_json({"environment": self.outcomes.name}, written[-1])
        if self.calibration is not None:
            written.append(self.calibration.save(folder / CALIBRATION))
        return written

    @classmethod
    def load(cls, folder: str | Path) -> PersonalizedSimulator:
        """Read what :meth:`save` wrote, or the run folder of `tools/fit.py`; executes nothing.

        Raises
        ------
        PersimError
            If a file is missing or damaged.
        """
        folder = Path(folder)
        calibration = Calibration.load(folder / CALIBRATION) if (folder / CALIBRATION).is_file() else None
        if not (folder / _RECORDED).is_file() and (folder / "provenance.json").is_file():
            # A run of an environment leaves its table where it lies.
            run = FittedRun.load(folder)
            return cls(run.personalized, run.trajectories(), run.environment, calibration)
        population = FittedPopulation.load(folder)
        schema = population.schema
        trajectories = load_trajectories(folder / _RECORDED, schema, clock_column(schema))
        return cls(population, trajectories, _load_outcomes(folder, schema), calibration)

    def _predict(self, agent: int | str, state: np.ndarray, actions: np.ndarray, level: float | None) -> Prediction:
        members = self.population.rollout(agent, state, actions)
        prediction = Prediction(self.schema.state, members, decode_actions(actions, self.schema))
        if level is None:
            return prediction
        if self.calibration is None:
            raise ConfigurationError(
                "intervals are calibrated on held-out tails of trajectories: there were none here, or the run is older"
            )
        self.calibration.check(level)
        row = torch.as_tensor(state)[None], torch.as_tensor(actions, dtype=self.trajectories.action.dtype)[None]
        spread = rollout_spread(self.population, self.trajectories, self.population.index([agent]), *row)
        width = self.calibration.half_width(spread, level)[0]
        start = np.zeros((1, width.shape[1]), dtype=np.float32)
        return replace(prediction, half_width=np.concatenate((start, width.float().numpy())))

    def _encode(self, actions: Any) -> np.ndarray:
        if hasattr(actions, "__arrow_c_stream__"):
            actions = as_table(actions, "actions")[0].to_pydict()
        if isinstance(actions, Mapping):
            return encode_actions(dict(actions), self.schema)
        try:
            encoded = np.asarray(actions, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigurationError("actions: give values by column, or an array of numbers") from error
        if not np.isfinite(encoded).all():
            raise ConfigurationError("actions: every value must be a finite number")
        return encoded

    def _state(self, state: Mapping[str, float] | Sequence[float] | np.ndarray) -> np.ndarray:
        if isinstance(state, Mapping):
            missing = [name for name in self.schema.state if name not in state]
            if missing:
                raise ConfigurationError(f"state: '{missing[0]}' is missing; give {', '.join(self.schema.state)}")
            state = [state[name] for name in self.schema.state]
        try:
            values = np.asarray(state, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ConfigurationError("state: every value must be a finite number") from error
        if values.shape != (self.schema.state_dim,):
            wanted = ", ".join(self.schema.state)
            raise ConfigurationError(
                f"state has shape {values.shape}, but must have ({self.schema.state_dim},): {wanted}"
            )
        if not np.isfinite(values).all():
            raise ConfigurationError("state: every value must be a finite number")
        return values

    def _row(self, agent: int | str, t: Any, episode: int) -> tuple[int, int]:
        """The recorded row of a moment, and the last row of its trajectory."""
        self.population.index([agent])
        recorded = self.trajectories
        if agent not in recorded.agent_ids:
            raise ConfigurationError(f"agent {agent}: nothing is recorded of it, covariates alone have told of it")
        index = recorded.agent_ids.index(agent)
        times = recorded.row_time()
        try:
            asked = pa.chunked_array([pa.array([t.astype("datetime64[us]") if isinstance(t, np.datetime64) else t])])
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ConfigurationError(f"t: {t!r} is no time") from error
        moment = float(row_times(asked, "t", "counterfactual")[0])
        mine = recorded.row_agent() == index
        apart = times[mine].sort().values.diff()
        nearness = _SAME_TIME * (self.schema.step or float(apart[apart > 0].min()))
        own = mine & ((times - moment).abs() <= nearness)
        rows = own.nonzero()[:, 0].tolist()
        if not 0 <= episode < len(rows):
            times = times[mine]
            raise ConfigurationError(
                f"agent {agent}: {len(rows)} recorded moment(s) at time {t}, so there is no number {episode}; its "
                f"times run from {float(times.min()):g} to {float(times.max()):g}"
            )
        row = rows[episode]
        trajectory = int(torch.searchsorted(recorded.offsets, row, right=True)) - 1
        return row, int(recorded.offsets[trajectory + 1]) - 1

    def _prior(
        self, seen: Trajectories | None, covariates: Any, known_covariates: Any
    ) -> tuple[FactorPrior, tuple[int | str, ...]]:
        """What is believed of the new agents before their rows are read, and their ids."""
        factors = self.population.simulator.agent_encoder.table().detach()
        if covariates is None:
            assert seen is not None
            return population_prior(self.population.simulator), seen.agent_ids
        if known_covariates is None:
            raise ConfigurationError("adapt: beside covariates, give known_covariates: those of the fitted agents")
        table, source = as_table(covariates, "covariates")
        ids = tuple(table[self.schema.agent].to_pylist()) if self.schema.agent in table.column_names else ()
        names, values = covariates_from_table(table, ids, source, self.schema.agent)
        told = set(ids)
        absent = [] if seen is None else [label for label in seen.agent_ids if label not in told]
        if absent:
            raise ConfigurationError(f"{source}: no covariates of agent {absent[0]}, of which there are rows")
        known, known_source = as_table(known_covariates, "known_covariates")
        present = set(known[self.schema.agent].to_pylist()) if self.schema.agent in known.column_names else set()
        fitted = [label for label in self.agents if label in present]
        known_names, known_values = covariates_from_table(known, fitted, known_source, self.schema.agent)
        if set(names) != set(known_names):
            raise ConfigurationError(
                f"covariates are {', '.join(names)}, but known_covariates {', '.join(known_names)}"
            )
        order = [names.index(name) for name in known_names]
        own = factors[:, self.population.index(fitted)] if fitted else factors[:, :0]
        return CovariateMap(known_values, own)(values[:, order]), ids

    def _check_ids(self, ids: Sequence[int | str]) -> None:
        """Refuse ids that are of another kind than the fitted agents', or stand twice."""
        kind = type(self.agents[0])
        odd = [label for label in ids if type(label) is not kind]
        if odd:
            raise ConfigurationError(f"agent {odd[0]!r}: the fitted agents' ids are of type {kind.__name__}")
        doubled = [label for label, count in Counter(ids).items() if count > 1]
        if doubled:
            raise ConfigurationError(f"agent {doubled[0]!r} stands twice")


def _load_outcomes(folder: Path, schema: Schema) -> OutcomeModel | Environment | None:
    """What :meth:`PersonalizedSimulator.save` wrote of rewards and ends."""
    known, learned = folder / _ENVIRONMENT, folder / _OUTCOMES
    if known.is_file():
        values = read_json(known)
        if not isinstance(values, dict) or "environment" not in values:
            raise ConfigurationError(f"{known} is damaged: it names no environment")
        return get_environment(values["environment"])
    return load_outcomes(learned, schema) if learned.is_file() else None


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"{name} {value!r} must be a positive integer")


def _try_objective(reward: Reward, states: Tensor, actions: Tensor) -> None:
    """Call a user's objective once, so that what is wrong with it is said."""
    try:
        given = reward(states, actions, states)
    except Exception as error:  # it may raise anything
        raise ConfigurationError(f"the objective failed on a step: {type(error).__name__}: {error}") from error
    if not isinstance(given, Tensor) or given.shape != states.shape[:-1]:
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise ConfigurationError(f"the objective must give a tensor with one value a step, (1,) here, not {shape}")


def _never(states: Tensor) -> Tensor:
    return torch.zeros(states.shape[:-1], dtype=torch.bool, device=states.device)
