"""Public API: fits simulators of every agent of a table, predicts, plans, and adds agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.api.adapting import adapt_population
from persim_lightning.api.answers import Plan, Prediction
from persim_lightning.api.forecasting import NO_CALIBRATION, forecast_rows
from persim_lightning.api.inputs import State, action_array, check_positive, find_moment, state_array
from persim_lightning.api.planning import encoded_inputs, plan_actions
from persim_lightning.api.storage import load_calibration, load_recorded, load_saved_outcomes, save_parts
from persim_lightning.data.tables.actions import decode_actions
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.sources import as_table, like
from persim_lightning.data.tables.user import read_like, user_trajectories
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.filtering import filtered_states
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.evaluation.intervals import calibrate, rollout_spread
from persim_lightning.models.outcomes import OutcomeModel
from persim_lightning.models.population import FittedPopulation
from persim_lightning.planning.objective import Objective, Reward, Termination
from persim_lightning.planning.planner import Planner
from persim_lightning.store.names import PROVENANCE, TRAJECTORIES
from persim_lightning.training.outcomes import fit_outcomes
from persim_lightning.types import Schema


class PersonalizedSimulator:
    """Simulators of all agents of a table.

    Made by :meth:`fit` or :meth:`load`.

    Parameters
    ----------
    population : FittedPopulation
    trajectories : Trajectories
        Training trajectories.
    outcomes : OutcomeModel, Environment or None
        Rewards and terminations, learned from the table or known from one of the three environments.
    calibration : Calibration or None
        Calibration of intervals.

    Examples
    --------
    >>> import numpy as np
    >>> from persim_lightning import PersonalizedSimulator
    >>> rng = np.random.default_rng(0)
    >>> rows = {"tank": [], "hour": [], "level": [], "inflow": []}
    >>> for tank in range(12):  # every tank leaks at a different rate
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
        # States that were not observed are estimated by the simulator from here on.
        self.population = population
        self.trajectories = replace(trajectories, state=filtered_states(population, trajectories))
        self.outcomes, self.calibration = outcomes, calibration

    @property
    def schema(self) -> Schema:
        """Columns, and the encoding of actions."""
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
        action: Sequence[str] = (),
        agent: str = "agent",
        time: str = "t",
        episode: str | None = None,
        reward: str | None = None,
        terminated: str | None = None,
        categorical: Sequence[str] = (),
        inputs: Sequence[str] = (),
        covariates: Sequence[str] = (),
        events: Sequence[str] | None = None,
        fill: Mapping[str, float | str] | None = None,
        bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
        step: float | Literal["row"] | None = None,
        gaps: Literal["keep", "error", "split"] = "keep",
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
            One row per (agent, time); times may be uneven, and states may be missing. For Minari see
            :func:`~persim_lightning.data.tables.minari.minari_columns`.
        state, action, agent, time, episode, reward, terminated, categorical, inputs, covariates, events, fill,
        bounds, step, gaps
            Roles of columns, see :class:`~persim_lightning.data.tables.columns.TableColumns`.
        rank : int
            Rank R of the factorization, which limits the ways in which agents can differ.
        members : int
            Ensemble members M.
        hidden_width : int
        epochs : int, optional
            By default as many as give 4,000 optimizer steps.
        holdout : float
            Share of every trajectory, at its tail, that is not trained on but calibrates intervals. Long rollouts need
            long tails.
        seed : int
            The same seed gives the same simulator.
        progress : bool
            Show a progress bar.
        **model
            Further options of :class:`~persim_lightning.training.persim.PerSimModule`, such as `angles`.

        Raises
        ------
        PersimError
            If the table is invalid.
        """
        # Imported late, since Lightning takes seconds.
        from persim_lightning.api.fitting import fit_calibrated

        check_positive(rank=rank, members=members, hidden_width=hidden_width, epochs=1 if epochs is None else epochs)
        # Keep strings, which TableColumns refuses; list() would split them into letters.
        given = (state, action, categorical, inputs, covariates)
        roles: list[Any] = [names if isinstance(names, str) else list(names) for names in given]
        columns = TableColumns(
            state=roles[0],
            action=roles[1],
            inputs=roles[3],
            covariates=roles[4],
            events=None if events is None else list(events),
            fill=dict(fill or {}),
            bounds=dict(bounds or {}),
            agent=agent,
            time=time,
            episode=episode,
            reward=reward,
            terminated=terminated,
            categorical=roles[2],
            step=step,
            gaps=gaps,
        )
        source, name = as_table(table, ids=(agent, *(() if episode is None else (episode,))))
        trajectories = user_trajectories(source, columns, name)
        sizes = {"rank": rank, "members": members, "hidden_width": hidden_width}
        fitted = fit_calibrated(trajectories, holdout, epochs, seed, progress, **sizes, **model)
        simulator = cls(fitted[0], trajectories, None, fitted[1])
        simulator.outcomes = fit_outcomes(simulator.trajectories, seed)
        return simulator

    @classmethod
    def completed(
        cls,
        population: FittedPopulation,
        trajectories: Trajectories,
        tail: float,
        seed: int,
        environment: Environment | None = None,
    ) -> PersonalizedSimulator:
        """Complete a fitted population by learning rewards and terminations, and by calibrating intervals.

        Parameters
        ----------
        population : FittedPopulation
        trajectories : Trajectories
            Training trajectories.
        tail : float
            Share of every trajectory, at its tail, that the population was not trained on.
        seed : int
        environment : Environment, optional
            Source of rewards and terminations, which are then not learned.
        """
        filtered = replace(trajectories, state=filtered_states(population, trajectories))
        outcomes = environment or fit_outcomes(filtered, seed)
        return cls(population, trajectories, outcomes, calibrate(population, filtered, tail))

    def rollout(
        self,
        agent: int | str,
        state: State,
        actions: Any,
        level: float | None = None,
    ) -> Prediction:
        """Predict the agent's trajectory from a state under a sequence of actions.

        Parameters
        ----------
        agent : int or str
            Id.
        state : mapping of column to value, or array of shape (D,)
        actions : mapping of column to H values, or array
            Values by column of the table, or encoded: codes (H,) or coordinates (H, A) in the order of
            `schema.action`.
        level : float, optional
            Probability with which intervals contain the truth, such as .9; None for no intervals.

        Raises
        ------
        PersimError
            If the agent, a column or a category is unknown, or an array has a wrong shape.
        """
        encoded = action_array(actions, self.schema)
        return self._predict(agent, state_array(state, self.schema), encoded, level)

    def counterfactual(
        self, agent: int | str, t: Any, actions: Any = None, episode: int = 0, level: float | None = None
    ) -> Prediction:
        """Predict the agent's trajectory under other actions from a recorded time on.

        Parameters
        ----------
        agent : int or str
        t : number, date or datetime
            A time of the table.
        actions : optional
            As for :meth:`rollout`; the recorded actions by default.
        episode : int
            Index among the agent's trajectories with this time, in the table's order.
        level : float, optional
            As for :meth:`rollout`.

        Raises
        ------
        PersimError
            If the agent has no recorded row at this time.
        """
        self.population.index([agent])
        row, last = find_moment(self.trajectories, agent, t, episode)
        recorded = self.trajectories.state[row : last + 1].numpy()
        encoded = self.trajectories.action[row:last].numpy() if actions is None else action_array(actions, self.schema)
        if not len(encoded):
            raise ConfigurationError(f"agent {agent}: no actions are recorded after time {t}: give actions")
        return replace(self._predict(agent, recorded[0], encoded, level), recorded=recorded)

    def forecast(self, future: Any, history: Any = None, level: float | None = None) -> Any:
        """Predict the states of rows to come, from each agent's last recorded row.

        Parameters
        ----------
        future : table
            A row for every (agent, time) that is asked, with the columns of actions and inputs; other columns are
            ignored. The values in a row act until the next row, as in the fitted table.
        history : table, optional
            Recent rows in the columns of the fitted table, from which forecasts start instead. Unknown agents in it are
            adapted to.
        level : float, optional
            Probability with which intervals contain the truth, such as .9; None for no intervals.

        Returns
        -------
        table of the kind of `future` (pandas, polars or Arrow)
            In the order of `future`: agent, time, states, and with a level the ends of their intervals `STATE_low` and
            `STATE_high`.

        Raises
        ------
        PersimError
            If a column is missing, an agent is unknown, or a time is not after the agent's last recorded row.
        """
        simulator = self if history is None else self.with_history(history)
        table, source = as_table(future, "future", (self.schema.agent,))
        parts = simulator.population, simulator.trajectories, simulator.calibration
        return like(future, forecast_rows(*parts, table, source, level))

    def with_history(self, history: Any) -> PersonalizedSimulator:
        """Replace recorded rows of agents by recent ones, and adapt to unknown agents in them."""
        rows = read_like(self.schema, history, "history")
        known = set(self.agents)
        new = [label for label in rows.agent_ids if label not in known]
        population = self.population
        if new:
            population, _ = adapt_population(population, rows.restricted(new), recorded=self.trajectories)
        replaced = set(rows.agent_ids)
        kept = [label for label in self.trajectories.agent_ids if label not in replaced]
        recorded = self.trajectories.restricted(kept).joined(rows) if kept else rows
        return PersonalizedSimulator(population, recorded, self.outcomes, self.calibration)

    def objective(self, reward: Reward | None = None, terminated: Termination | None = None) -> Objective:
        """Build the objective: rewards to maximize, and terminations.

        Parameters
        ----------
        reward : callable, optional
            (states (..., D), actions (...)|(..., A), next_states (..., D)) -> rewards (...), tensors in raw units; by
            default those of the table or the environment.
        terminated : callable, optional
            states (..., D) -> (...) bool; by default as learned from the table or as in the environment.

        Raises
        ------
        ConfigurationError
            If no reward is given, and none is known.
        """
        known = self.outcomes
        if reward is None:
            if known is None or not known.rewarded:
                raise ConfigurationError("the table has no rewards: give an objective")
            reward = known.reward
        return Objective(reward, terminated or (_never if known is None else known.terminated))

    def plan(
        self,
        agent: int | str,
        state: State,
        objective: Reward | None = None,
        horizon: int = 20,
        planner: Planner | None = None,
        pessimism: float = 0.0,
        seed: int = 0,
        inputs: Mapping[str, Sequence[Any]] | None = None,
    ) -> Plan:
        """Plan a sequence of actions on the agent's simulator, within the range of recorded actions.

        Parameters
        ----------
        agent : int or str
        state : mapping of column to value, or array of shape (D,)
        objective : callable, optional
            (states (..., D), actions (...)|(..., A), next_states (..., D)) -> rewards (...), tensors in raw units; by
            default the rewards learned from the table.
        horizon : int
            H.
        planner : Planner, optional
            iCEM by default.
        pessimism : float
            κ of the score `mean - κ·std` over members.
        seed : int
        inputs : mapping of input column to H values, optional
            Future values of the inputs, which are known and never chosen; required if the table has inputs.

        Raises
        ------
        ConfigurationError
            If no objective is given and the table had no rewards, or inputs are missing.
        """
        check_positive(horizon=horizon)
        start = torch.as_tensor(state_array(state, self.schema), dtype=torch.float32)[None]
        actions, value = plan_actions(
            self.population.personalize(agent),
            self.trajectories,
            self.objective(objective),
            start,
            encoded_inputs(inputs, self.schema, horizon),
            horizon,
            planner,
            pessimism,
            seed,
        )
        prediction = self.rollout(agent, start[0].numpy(), actions)
        return Plan(prediction.actions, value, prediction)

    def adapt(self, rows: Any = None, covariates: Any = None, known_covariates: Any = None) -> PersonalizedSimulator:
        """Add agents from a few rows of each, from covariates, or from both; nothing is trained.

        The factor of a new agent is its posterior mean given its rows, under the prior of the population or of its
        covariates.

        Parameters
        ----------
        rows : table, optional
            Rows of the new agents, with the columns of the fitted table.
        covariates : table, optional
            Covariates of the new agents: the agent column and a column for every covariate.
        known_covariates : table, optional
            Covariates of at least ten fitted agents; required with `covariates`.

        Returns
        -------
        PersonalizedSimulator
            Simulators of all agents, including the new ones.

        Raises
        ------
        PersimError
            If a table is invalid, or an agent is in the population already.
        """
        population, seen = adapt_population(self.population, rows, covariates, known_covariates, self.trajectories)
        recorded = self.trajectories if seen is None else self.trajectories.joined(seen)
        return PersonalizedSimulator(population, recorded, self.outcomes, self.calibration)

    def save(self, folder: str | Path) -> list[Path]:
        """Write simulators, recorded trajectories, rewards, terminations and calibration, without pickle."""
        folder = Path(folder)
        parts = self.trajectories, self.outcomes, self.calibration
        return [*self.population.save(folder), *save_parts(folder, *parts)]

    @classmethod
    def load(cls, folder: str | Path) -> PersonalizedSimulator:
        """Read a folder of :meth:`save` or a run folder of `persim fit`; executes no code.

        Raises
        ------
        PersimError
            If a file is missing or damaged.
        """
        folder = Path(folder)
        calibration = load_calibration(folder)
        if not (folder / TRAJECTORIES).is_file() and (folder / PROVENANCE).is_file():
            # Runs of environments do not copy their tables.
            run = FittedRun.load(folder)
            return cls(run.personalized, run.trajectories(), run.environment, calibration)
        population = FittedPopulation.load(folder)
        schema = population.schema
        return cls(population, load_recorded(folder, schema), load_saved_outcomes(folder, schema), calibration)

    def _predict(self, agent: int | str, state: np.ndarray, actions: np.ndarray, level: float | None) -> Prediction:
        members = self.population.rollout(agent, state, actions)
        limits = np.array(self.schema.limits).T if self.schema.bounds else None
        prediction = Prediction(self.schema.state, members, decode_actions(actions, self.schema), limits=limits)
        if level is None:
            return prediction
        if self.calibration is None:
            raise ConfigurationError(NO_CALIBRATION)
        self.calibration.check(level)
        row = torch.as_tensor(state)[None], torch.as_tensor(actions, dtype=self.trajectories.action.dtype)[None]
        spread = rollout_spread(self.population, self.trajectories, self.population.index([agent]), *row)
        width = self.calibration.half_width(spread, level)[0]
        start = np.zeros((1, width.shape[1]), dtype=np.float32)
        return replace(prediction, half_width=np.concatenate((start, width.float().numpy())))


def _never(states: Tensor) -> Tensor:
    return torch.zeros(states.shape[:-1], dtype=torch.bool, device=states.device)
