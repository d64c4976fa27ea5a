"""Simulates trajectories of fitted agents, in the same form as recorded ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import ConfigurationError
from persim_lightning.interop.simulated_episodes import SimulatedEpisodes, Step

# Observations (B, D) and a random generator -> actions (B,) or (B, A).
Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def simulated_trajectories(
    simulator: PersonalizedSimulator,
    agents: Sequence[int | str],
    episodes: int,
    policy_of: Callable[[int | str], Policy] | None = None,
    seed: int = 0,
    **options: Any,
) -> Trajectories:
    """Simulate episodes of fitted agents.

    Parameters
    ----------
    simulator : PersonalizedSimulator
    agents : sequence of int or str
    episodes : int
        Number of episodes of every agent.
    policy_of : callable, optional
        Returns the policy of an agent: (observations (B, D), random generator) -> actions (B,) or (B, A). By default,
        actions are uniformly random in their recorded ranges.
    seed : int
        Same seed, same trajectories; those of an agent do not depend on which other agents are simulated.
    **options
        See :class:`~persim_lightning.interop.simulated_episodes.SimulatedEpisodes`.

    Returns
    -------
    Trajectories
        Without rewards if the simulator has none.

    Raises
    ------
    PersimError
        If an agent or an option is unknown, or a simulator diverges in the first step.
    """
    if episodes < 1 or not agents:
        raise ConfigurationError("simulate at least one episode of at least one agent")
    has_rewards = "reward" in options or (simulator.outcomes is not None and simulator.outcomes.rewarded)
    if not has_rewards:
        options["reward"] = _nan_reward
    columns: dict[str, list[Tensor]] = {name: [] for name in ("state", "action", "delta", "reward")}
    lengths, terminated = [], []
    for agent in agents:
        batch = SimulatedEpisodes(simulator, agent, episodes, **options)
        generator = np.random.default_rng([seed, simulator.agents.index(agent)])
        policy = _uniform(batch.action_space) if policy_of is None else policy_of(agent)
        observations, batch_actions, steps = _play(batch, policy, generator)
        for row in range(episodes):
            ends = np.array([bool(step.terminated[row] | step.truncated[row]) for step in steps])
            # A diverged step has no next state.
            length = int(ends.argmax()) + 1
            length -= int(steps[length - 1].diverged[row])
            if not length:
                raise ConfigurationError(f"agent {agent}: its simulator diverges in the first step of an episode")
            states = torch.from_numpy(np.stack([values[row] for values in observations[: length + 1]]))
            actions = torch.from_numpy(np.stack([values[row] for values in batch_actions[:length]]))
            columns["state"].append(states)
            columns["delta"].append(_pad(states.double().diff(dim=0).float()))
            columns["action"].append(_pad(actions))
            columns["reward"].append(_pad(torch.tensor([float(step.reward[row]) for step in steps[:length]])))
            lengths.append(length + 1)
            terminated.append(bool(steps[length - 1].terminated[row]))
    rows = {name: torch.cat(values) for name, values in columns.items()}
    return Trajectories(
        schema=simulator.schema,
        agent_ids=tuple(agents),
        agent=torch.arange(len(agents)).repeat_interleave(episodes),
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        state=rows["state"],
        action=rows["action"],
        delta=rows["delta"],
        terminated=torch.tensor(terminated),
        reward=rows["reward"] if has_rewards else None,
    )


def _play(
    batch: SimulatedEpisodes, policy: Policy, generator: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray], list[Step]]:
    """Simulate until every episode has ended; returns observations, actions and results of all steps."""
    batch.restart(np.arange(batch.count), generator)
    observations, actions, steps = [batch.observe()], [], []
    running = np.ones(batch.count, dtype=bool)
    while running.any():
        actions.append(batch.realized(policy(observations[-1], generator)).numpy())
        steps.append(batch.step(actions[-1]))
        observations.append(batch.observe())
        running &= ~(steps[-1].terminated | steps[-1].truncated)
    return observations, actions, steps


def _uniform(space: gymnasium.Space) -> Policy:
    if isinstance(space, gymnasium.spaces.Discrete):
        return lambda observations, generator: generator.integers(space.n, size=len(observations))
    assert isinstance(space, gymnasium.spaces.Box)
    low, high = space.low, space.high
    size = low.shape
    return lambda observations, generator: generator.uniform(low, high, (len(observations), *size)).astype(np.float32)


def _pad(values: Tensor) -> Tensor:
    """Append a row of zeros for the last state, which has no action."""
    return torch.cat((values, torch.zeros_like(values[:1])))


def _nan_reward(states: Tensor, actions: Tensor, next_states: Tensor) -> Tensor:
    return torch.full(next_states.shape[:-1], torch.nan)
