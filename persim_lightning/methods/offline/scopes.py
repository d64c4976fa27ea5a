"""Offline learners as methods: one policy for all agents, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jsonargparse.typing import PositiveInt

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.data.collecting.behavior import AssignedPolicy, Policy
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.evaluation.control import simulator_mpc
from persim_lightning.interop.synthetic import Policy as SimulatedPolicy
from persim_lightning.interop.synthetic import simulated_trajectories
from persim_lightning.methods.contract import Fitted, Learner, Method, StoredPolicy, Task
from persim_lightning.methods.persim import fit_population


class FittedPolicies(Fitted):
    """One policy for all agents, or one for each agent of the task.

    Parameters
    ----------
    policies : sequence of StoredPolicy
    """

    def __init__(self, policies: Sequence[StoredPolicy]) -> None:
        self.policies = policies

    def policy(self, task: Task, episodes: int) -> Policy:
        if len(self.policies) == 1:
            return self.policies[0]
        return AssignedPolicy(self.policies, task.rows(episodes))

    def save(self, folder: Path) -> None:
        for index, policy in enumerate(self.policies):
            policy.save(_policy_folder(folder, index))


class OfflineRL(Method):
    """An offline learner on the recorded trajectories.

    Parameters
    ----------
    learner : Learner
    scope : {'population', 'agent'}
        One policy from all trajectories (-P), or one for every agent from its trajectory (-A).
    """

    def __init__(self, learner: Learner, scope: Literal["population", "agent"]) -> None:
        self._learner, self._scope = learner, scope

    @property
    def label(self) -> str:
        return f"{self._learner.name}-{self._scope[0].upper()}"

    def fit(self, task: Task) -> FittedPolicies:
        recorded = task.recordings.train
        chosen = [recorded] if self._scope == "population" else [recorded.restricted([agent]) for agent in task.agents]
        return _learn(self._learner, task, chosen)

    def load(self, folder: Path, task: Task) -> FittedPolicies:
        count = 1 if self._scope == "population" else len(task.agents)
        return _load(self._learner, task, folder, count)


class OnPerSim(Method):
    """An offline learner for every agent, on its recorded trajectory and on trajectories simulated by PerSim.

    MPC on the agent's simulator chooses the simulated actions (PerSim, section 6).

    Parameters
    ----------
    learner : Learner
    trajectories : int
        Number of simulated trajectories of every agent.
    """

    def __init__(self, learner: Learner, trajectories: PositiveInt = 5) -> None:
        self._learner, self._trajectories = learner, trajectories

    @property
    def label(self) -> str:
        return f"PerSim-{self._learner.name}-{self._trajectories}"

    def fit(self, task: Task) -> FittedPolicies:
        recorded, simulated = task.recordings.train, self.simulate(task)
        both = [
            recorded.restricted([agent]).joined(
                replace(simulated.restricted([agent]), agent_ids=(f"{agent}, simulated",))
            )
            for agent in task.agents
        ]
        return _learn(self._learner, task, both)

    def load(self, folder: Path, task: Task) -> FittedPolicies:
        return _load(self._learner, task, folder, len(task.agents))

    def simulate(self, task: Task) -> Trajectories:
        """Simulate trajectories of the task's agents by MPC on their simulators.

        Initial states are those of the population's trajectories, since MPC from the agent's single initial state would
        give the same trajectory every time.
        """
        population, environment = fit_population(task), task.environment
        simulator = PersonalizedSimulator(population, task.recordings.train, environment)

        def policy_of(agent: int | str) -> SimulatedPolicy:
            mpc, _ = simulator_mpc(environment, population, [agent], self._trajectories, task.planning)
            generator = torch.Generator().manual_seed(task.seed)

            def act(observation: np.ndarray, _: np.random.Generator) -> np.ndarray:
                actions: np.ndarray = mpc(torch.from_numpy(observation), generator).numpy()
                return actions

            return act

        return simulated_trajectories(
            *(simulator, task.agents, self._trajectories, policy_of, task.seed),
            max_steps=environment.max_steps,
            start="population",
        )


def _learn(learner: Learner, task: Task, chosen: Sequence[Trajectories]) -> FittedPolicies:
    return FittedPolicies([learner.learn(own, task.environment, task.steps, task.seed) for own in chosen])


def _load(learner: Learner, task: Task, folder: Path, count: int) -> FittedPolicies:
    return FittedPolicies([learner.load(_policy_folder(folder, index), task.environment) for index in range(count)])


def _policy_folder(folder: Path, index: int) -> Path:
    return folder / f"policy-{index}"
