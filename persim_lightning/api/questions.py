"""Questions to a fitted simulator: predictions, what-ifs, forecasts, objectives and plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.api.answers import Plan, Prediction
from persim_lightning.api.forecasting import forecast_rows, predict_rows
from persim_lightning.api.inputs import State, action_array, check_level, check_positive, find_moment, state_array
from persim_lightning.api.planning import encoded_inputs, plan_actions
from persim_lightning.api.what_if import what_if_rows
from persim_lightning.data.tables.actions import decode_actions
from persim_lightning.data.tables.sources import as_table, like
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.filtering import filtered
from persim_lightning.evaluation.intervals import rollout_spread
from persim_lightning.ladder.choice import Choice
from persim_lightning.models.outcomes import OutcomeModel
from persim_lightning.models.population import FittedPopulation
from persim_lightning.planning.objective import Objective, Reward, Termination, tensor_function
from persim_lightning.planning.planner import Planner
from persim_lightning.support.precision import single_precision
from persim_lightning.types import Schema


class Questions(ABC):
    """Answers questions about the agents of a table; base of `PersonalizedSimulator`.

    Parameters
    ----------
    population : FittedPopulation
    trajectories : Trajectories
    outcomes : OutcomeModel, Environment or None
    calibration : Calibration or None
    choice : Choice or None
        How simple and neural dynamics compared in a backtest.
    """

    @single_precision()
    def __init__(
        self,
        population: FittedPopulation,
        trajectories: Trajectories,
        outcomes: OutcomeModel | Environment | None = None,
        calibration: Calibration | None = None,
        choice: Choice | None = None,
    ) -> None:
        # States that were not observed are estimated by the simulator from here on.
        self.population = population
        self.trajectories = filtered(population, trajectories)
        self.outcomes, self.calibration, self.choice = outcomes, calibration, choice

    @property
    def schema(self) -> Schema:
        """Columns, and the encoding of actions."""
        return self.population.schema

    @property
    def agents(self) -> tuple[int | str, ...]:
        """Ids of all agents."""
        return self.population.agent_ids

    @abstractmethod
    def with_history(self, history: Any) -> Questions:
        """Replace recorded rows of agents by recent ones, and adapt to unknown agents in them."""

    @single_precision()
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

    @single_precision()
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
            As for :meth:`rollout`; the recorded actions by default. Each acts from a recorded row to the next, and for
            one base step after the last one.
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
        if self.trajectories.duration is not None:
            return self._uneven_counterfactual(agent, row, last, actions, level)
        recorded = self.trajectories.state[row : last + 1].numpy()
        encoded = self.trajectories.action[row:last].numpy() if actions is None else action_array(actions, self.schema)
        if not len(encoded):
            raise ConfigurationError(f"agent {agent}: no actions are recorded after time {t}: give actions")
        return replace(self._predict(agent, recorded[0], encoded, level), recorded=recorded)

    @single_precision()
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

    def objective(self, reward: Reward | None = None, terminated: Termination | None = None) -> Objective:
        """Build the objective: rewards to maximize, and terminations.

        Parameters
        ----------
        reward : callable, optional
            (states (..., D), actions (...)|(..., A), next_states (..., D)) -> rewards (...), tensors in raw units; by
            default those of the table or the environment. Rewards may be NumPy arrays.
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
        else:
            reward = tensor_function(reward)
        if terminated is not None:
            return Objective(reward, tensor_function(terminated, torch.bool))
        return Objective(reward, _never if known is None else known.terminated)

    @single_precision()
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
        start = torch.as_tensor(state_array(state, self.schema))[None]
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

    def _uneven_counterfactual(
        self, agent: int | str, row: int, last: int, actions: Any, level: float | None
    ) -> Prediction:
        """Predict the rows after a recorded one at their times, which are not whole base steps apart."""
        encoded = None if actions is None else action_array(actions, self.schema)
        if row == last if encoded is None else not len(encoded):
            raise ConfigurationError(f"agent {agent}: no actions are recorded after this time: give actions")
        check_level(self.calibration, level)
        rows, acted = what_if_rows(self.trajectories, row, encoded)
        predicted = predict_rows(self.population, self.trajectories, self.calibration, rows, level)
        first, none = rows.state[:1].numpy(), np.zeros_like(predicted.width[:1])
        recorded = self.trajectories.state[row : last + 1][self.trajectories.in_table()[row : last + 1]].numpy()
        start = np.broadcast_to(first, (len(predicted.members), *first.shape))
        return Prediction(
            self.schema.state,
            np.concatenate((start, predicted.members), axis=1),
            decode_actions(acted, self.schema),
            recorded=recorded,
            half_width=None if level is None else np.concatenate((none, predicted.width)),
            limits=self._limits(),
            elapsed=np.concatenate(([0.0], predicted.elapsed)),
        )

    def _predict(self, agent: int | str, state: np.ndarray, actions: np.ndarray, level: float | None) -> Prediction:
        members = self.population.rollout(agent, state, actions)
        acted = decode_actions(actions, self.schema)
        prediction = Prediction(self.schema.state, members, acted, limits=self._limits())
        check_level(self.calibration, level)
        if level is None or self.calibration is None:
            return prediction
        row = torch.as_tensor(state)[None], torch.as_tensor(actions, dtype=self.trajectories.action.dtype)[None]
        spread = rollout_spread(self.population, self.trajectories, self.population.index([agent]), *row)
        width = self.calibration.half_width(spread, level)[0]
        start = np.zeros((1, width.shape[1]), dtype=np.float32)
        return replace(prediction, half_width=np.concatenate((start, width.float().numpy())))

    def _limits(self) -> np.ndarray | None:
        return np.array(self.schema.limits).T if self.schema.bounds else None


def _never(states: Tensor) -> Tensor:
    return torch.zeros(states.shape[:-1], dtype=torch.bool, device=states.device)
