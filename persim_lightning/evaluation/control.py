"""The reward protocol: MPC episodes in the real environment, planned on agents' simulators or on the true dynamics.

(PerSim, section 5 and Table 2; https://arxiv.org/abs/2102.06961.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from persim_lightning.data.collecting.behavior import Policy
from persim_lightning.data.collecting.episodes import Episodes, play
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.models.population import FittedPopulation
from persim_lightning.planning.actions import ActionSpace, Box, Discrete
from persim_lightning.planning.cem import CEM
from persim_lightning.planning.icem import ICEM
from persim_lightning.planning.mpc import MPC
from persim_lightning.planning.mppi import MPPI
from persim_lightning.planning.objective import Objective, Peak
from persim_lightning.planning.planner import Planner, Score
from persim_lightning.planning.returns import ClampedDynamics, Dynamics, EnsembleReturns, TrajectoryReturns
from persim_lightning.planning.shooting import RandomShooting
from persim_lightning.support.parsing import build_settings

# Importing the planners lets command lines and YAMLs use their short class names.
PLANNERS: tuple[type[Planner], ...] = (RandomShooting, CEM, ICEM, MPPI)


@dataclass(frozen=True)
class PlanningSettings:
    """Settings of the planner and its objective; the content of conf/planning/ENV.yaml.

    Parameters
    ----------
    planner : Planner
        RandomShooting, CEM, ICEM or MPPI.
    horizon : int
        Steps of a plan.
    pessimism : float
        κ of the score `mean - κ·std` over ensemble members; 0 in the paper.
    peak_coordinate : str, optional
        Name of a state coordinate: `peak_weight` times its largest value is added to the score of a plan.
    peak_weight : float
    reward : callable, optional
        Objective that replaces the environment's reward: (states (..., D), actions (...)|(..., A), next_states
        (..., D)) -> rewards (...), where ... may be any number of dimensions. The peak is still added. Reported returns
        always use the environment's reward.
    clamp_margin : float, optional
        Clamp predicted states to the range of the training data, widened on each side by this share of the range.
    """

    planner: Planner = field(default_factory=ICEM)
    horizon: PositiveInt = 30
    pessimism: NonNegativeFloat = 0.0
    peak_coordinate: str | None = None
    peak_weight: float = 0.0
    reward: Callable[..., Any] | None = None
    clamp_margin: NonNegativeFloat | None = None

    @classmethod
    def load(cls, path: Path) -> PlanningSettings:
        """Read a YAML such as conf/planning/cartpole.yaml.

        Raises
        ------
        ConfigurationError
            If it cannot be read, or has an unknown or invalid setting.
        """
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such file with planning settings")
        return build_settings(cls, path)

    @classmethod
    def of(cls, values: dict[str, Any]) -> PlanningSettings:
        """Create settings from the content of a YAML."""
        return build_settings(cls, values)

    def objective(self, environment: Environment) -> Objective:
        """Build the objective by which plans are scored.

        Raises
        ------
        ConfigurationError
            If the peak's coordinate is unknown, or the user's reward fails on a small batch.
        """
        peak = None
        if self.peak_coordinate is not None:
            if self.peak_coordinate not in environment.state_names:
                names = ", ".join(environment.state_names)
                raise ConfigurationError(f"peak_coordinate '{self.peak_coordinate}': choose from {names}")
            peak = Peak(environment.state_names.index(self.peak_coordinate), self.peak_weight)
        if self.reward is not None:
            _try_reward(self.reward, environment)
        return Objective(self.reward or environment.reward, environment.terminated, peak)


def _try_reward(reward: Callable[..., Any], environment: Environment) -> None:
    """Call a user's reward once, to report its errors before episodes are played."""
    name = f"reward {getattr(reward, '__module__', '')}.{getattr(reward, '__qualname__', reward)}"
    states = torch.zeros(2, 3, len(environment.state_names))
    discrete = environment.num_actions is not None
    actions = torch.zeros(2, 3, dtype=torch.int64) if discrete else torch.zeros(2, 3, len(environment.action_names))
    try:
        rewards = reward(states, actions, states)
    except Exception as error:  # the user's code may raise anything
        raise ConfigurationError(f"{name} failed on a batch: {type(error).__name__}: {error}") from error
    shape = tuple(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
    if shape != (2, 3) or not rewards.is_floating_point():
        raise ConfigurationError(
            f"{name} must return a tensor of floats with one value per step: for states (2, 3, "
            f"{states.shape[-1]}) it returned {shape}, not (2, 3)"
        )


def action_space(environment: Environment) -> ActionSpace:
    """Return the space of actions that planners search."""
    if environment.num_actions is not None:
        return Discrete(environment.num_actions)
    return Box(len(environment.action_names))


def simulator_mpc(
    environment: Environment,
    personalized: FittedPopulation,
    agents: Sequence[int | str],
    episodes: int,
    settings: PlanningSettings,
) -> tuple[MPC, ClampedDynamics | None]:
    """Build an MPC policy that plans each agent's actions on the agent's simulator.

    Parameters
    ----------
    environment : Environment
    personalized : FittedPopulation
    agents : sequence of int or str
        Ids. Rows of the policy's batch are `episodes` episodes of the first agent, then of the second, and so on.
    episodes : int
    settings : PlanningSettings

    Returns
    -------
    policy : MPC
    clamped : ClampedDynamics or None
        Counts clamped predictions; None if the settings do not clamp.
    """
    simulator = personalized.personalize(*agents)
    dynamics: Dynamics = simulator
    clamped = None
    if settings.clamp_margin is not None:
        low, high = personalized.simulator.state_range.float()
        margin = settings.clamp_margin * (high - low)
        dynamics = clamped = ClampedDynamics(simulator, low - margin, high + margin)
    objective = settings.objective(environment)
    device = simulator.head_bias.device
    row_agent = torch.arange(len(agents), device=device).repeat_interleave(episodes)

    def make_score(states: Tensor, rows: Tensor) -> Score:
        return EnsembleReturns(dynamics, objective, states, row_agent[rows], settings.pessimism)

    return mpc_policy(environment, settings, make_score, device), clamped


def true_mpc(environment: Environment, covariates: Tensor, settings: PlanningSettings) -> MPC:
    """Build an MPC policy on the true dynamics ("True env + MPC"); `covariates` (B, C) has one row per episode."""
    objective = settings.objective(environment)

    def make_score(states: Tensor, rows: Tensor) -> Score:
        rollout = partial(environment.rollout, covariates[rows])
        return TrajectoryReturns(rollout, objective, states, settings.pessimism)

    return mpc_policy(environment, settings, make_score, torch.device("cpu"))


def mpc_policy(
    environment: Environment,
    settings: PlanningSettings,
    make_score: Callable[[Tensor, Tensor], Score],
    device: torch.device,
) -> MPC:
    """Build an MPC policy for any score of plans; `make_score` as in :class:`~persim_lightning.planning.mpc.MPC`."""
    space = action_space(environment)
    return MPC(settings.planner, space, settings.horizon, make_score, environment.terminated, device)


class ControlScores(NamedTuple):
    """Returns of E episodes for each of N agents.

    Attributes
    ----------
    returns : Tensor, shape (N, E)
        Undiscounted.
    lengths : Tensor, shape (N, E)
        Steps.
    episodes : Episodes
        All episodes, agent by agent.
    decisions : int
        Number of planned actions.
    seconds : float
        Wall time of all episodes together.
    """

    returns: Tensor
    lengths: Tensor
    episodes: Episodes
    decisions: int
    seconds: float

    def to_dict(self, agents: Sequence[int | str]) -> dict[str, Any]:
        """Convert to a dict, ready for JSON, with a record for every agent."""
        records = [
            {
                "agent": agent,
                "mean_return": float(returns.mean()),
                "std_return": float(returns.std(correction=0)),
                "returns": returns.tolist(),
                "lengths": lengths.tolist(),
            }
            for agent, returns, lengths in zip(agents, self.returns, self.lengths, strict=True)
        ]
        speed = self.decisions / self.seconds
        return {"agents": records, "decisions": self.decisions, "seconds": self.seconds, "decisions_per_second": speed}


def return_cell(record: dict[str, Any]) -> str:
    """Format an agent's record for a table: mean ± std of its returns."""
    return f"{record['mean_return']:.1f} ± {record['std_return']:.1f}"


def play_agents(
    environment: Environment,
    policy: Policy,
    covariates: Tensor,
    episodes: int,
    seed: int,
    description: str | None = None,
    max_steps: int | None = None,
) -> ControlScores:
    """Play episodes of several agents in the real environment, all in one batch.

    Parameters
    ----------
    environment : Environment
    policy : Policy
        Its batch has `episodes` rows for each agent, agent by agent.
    covariates : Tensor, shape (N, C)
        True covariates of the agents, which parametrize the environment; the policy does not see them.
    episodes : int
        E.
    seed : int
    description : str, optional
        Label of a progress bar.
    max_steps : int, optional
        Truncate episodes after so many steps, if the environment does not truncate them earlier.
    """
    start = time.perf_counter()
    agents = len(covariates)
    # Initial states are drawn in the order of the rows. With the rows episode by episode, an agent's first episodes
    # have the same initial states for any number of episodes, so that methods are compared from the same states.
    by_agent = torch.arange(agents * episodes).view(agents, episodes).T.flatten()
    by_episode = by_agent.argsort()

    def act(states: Tensor, generator: torch.Generator) -> Tensor:
        return policy(states[by_episode], generator)[by_agent]

    limit = min(environment.max_steps, max_steps or environment.max_steps)
    played = play(environment, act, covariates.repeat(episodes, 1), limit, seed, description)
    played = Episodes(*(tensor[by_episode] for tensor in played))
    seconds = time.perf_counter() - start
    shape = (len(covariates), episodes)
    decisions = int(played.lengths.sum())
    return ControlScores(played.returns.view(shape), played.lengths.view(shape), played, decisions, seconds)
