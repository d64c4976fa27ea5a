"""MPC on the true dynamics: an upper bound for the same planner on a learned model."""

from __future__ import annotations

from pathlib import Path

from persim_lightning.data.collecting.behavior import Policy
from persim_lightning.evaluation.control import true_mpc
from persim_lightning.methods.contract import Fitted, Method, Task


class TrueEnvironment(Method):
    """ "True env + MPC": plans on the true dynamics with the agents' covariates."""

    @property
    def label(self) -> str:
        return "True env + MPC"

    def fit(self, task: Task) -> TrueDynamics:
        return TrueDynamics()

    def load(self, folder: Path, task: Task) -> TrueDynamics:
        return TrueDynamics()


class TrueDynamics(Fitted):
    """The planner on the true dynamics."""

    plans = True

    def policy(self, task: Task, episodes: int) -> Policy:
        return true_mpc(task.environment, task.covariates()[task.rows(episodes)], task.planning)

    def save(self, folder: Path) -> None:
        """Save nothing."""
