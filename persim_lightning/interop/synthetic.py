"""Synthetic trajectories of fitted agents, in the form of recorded ones."""

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

# Observations (B, D) and a source of chance -> actions (B,) or (B, A).
Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def simulated_trajectories(
    simulator: PersonalizedSimulator,
    agents: Sequence[int | str],
    episodes: int,
    policy_of: Callable[[int | str], Policy] | None = None,
    seed: int = 0,
    **options: Any,
) -> Trajectories:
    """Let fitted agents act on their own simulators.

    Parameters
    ----------
    simulator : PersonalizedSimulator
    agents : sequence of int or str
    episodes : int
        Of every agent.
    policy_of : callable, optional
        Gives an agent's policy, (observations (B, D), source of chance) -> actions (B,) or (B, A); uniformly random
        actions in their recorded ranges where not given.
    seed : int
        Same seed, same trajectories; an agent's do not depend on which others are simulated.
    **options
        As for :class:`~persim_lightning.interop.simulated_episodes.SimulatedEpisodes`.

    Returns
    -------
    Trajectories
        Without rewards where none are known.

    Raises
    ------
    PersimError
        If an agent is unknown.
    """
    if episodes < 1 or not agents:
        raise ConfigurationError("ask for at least one episode of at least one agent")
    rewarded = "reward" in options or (simulator.outcomes is not None and simulator.outcomes.rewarded)
    if not rewarded:
        options["reward"] = _unknown
    parts: dict[str, list[Tensor]] = {name: [] for name in ("state", "action", "delta", "reward")}
    lengths, terminated = [], []
    for agent in agents:
        batch = SimulatedEpisodes(simulator, agent, episodes, **options)
        generator = np.random.default_rng([seed, simulator.agents.index(agent)])
        policy = _uniform(batch.action_space) if policy_of is None else policy_of(agent)
        observed, acted, steps = _play(batch, policy, generator)
        for row in range(episodes):
            ends = np.array([bool(step.terminated[row] | step.truncated[row]) for step in steps])
            # A step that diverged led nowhere.
            length = int(ends.argmax()) + 1
            length -= int(steps[length - 1].diverged[row])
            if not length:
                raise ConfigurationError(f"agent {agent}: its simulator diverges in the first step of an episode")
            states = torch.from_numpy(np.stack([values[row] for values in observed[: length + 1]]))
            actions = torch.from_numpy(np.stack([values[row] for values in acted[:length]]))
            parts["state"].append(states)
            parts["delta"].append(_padded(states.double().diff(dim=0).float()))
            parts["action"].append(_padded(actions))
            parts["reward"].append(_padded(torch.tensor([float(step.reward[row]) for step in steps[:length]])))
            lengths.append(length + 1)
            terminated.append(bool(steps[length - 1].terminated[row]))
    rows = {name: torch.cat(values) for name, values in parts.items()}
    return Trajectories(
        schema=simulator.schema,
        agent_ids=tuple(agents),
        agent=torch.arange(len(agents)).repeat_interleave(episodes),
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        state=rows["state"],
        action=rows["action"],
        delta=rows["delta"],
        terminated=torch.tensor(terminated),
        reward=rows["reward"] if rewarded else None,
    )


def _play(
    batch: SimulatedEpisodes, policy: Policy, generator: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray], list[Step]]:
    """Observations, actions and steps until every episode has ended."""
    batch.restart(np.arange(batch.count), generator)
    observed, acted, steps = [batch.observe()], [], []
    running = np.ones(batch.count, dtype=bool)
    while running.any():
        acted.append(batch.realized(policy(observed[-1], generator)).numpy())
        steps.append(batch.step(acted[-1]))
        observed.append(batch.observe())
        running &= ~(steps[-1].terminated | steps[-1].truncated)
    return observed, acted, steps


def _uniform(space: gymnasium.Space) -> Policy:
    if isinstance(space, gymnasium.spaces.Discrete):
        return lambda observed, generator: generator.integers(space.n, size=len(observed))
    assert isinstance(space, gymnasium.spaces.Box)
    low, high = space.low, space.high
    return lambda observed, generator: generator.uniform(low, high, (len(observed), *low.shape)).astype(np.float32)


def _padded(values: Tensor) -> Tensor:
    """With a row of zeros for the last state, after which nothing was done."""
    return torch.cat((values, torch.zeros_like(values[:1])))


def _unknown(states: Tensor, actions: Tensor, following: Tensor) -> Tensor:
    return torch.full(following.shape[:-1], torch.nan)
