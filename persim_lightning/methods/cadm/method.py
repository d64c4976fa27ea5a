"""CaDM, vanilla and PE-TS: one model that distinguishes agents by their recent transitions (Lee et al., 2020).

https://arxiv.org/abs/2005.06800; uses the same planners and protocols as PerSim.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from persim_lightning.data.collecting.behavior import Policy
from persim_lightning.data.windows import Past, WindowGather
from persim_lightning.errors import ConfigurationError, SimulatorFileError
from persim_lightning.evaluation.control import mpc_policy
from persim_lightning.evaluation.prediction import START, EpisodeWindows, PredictionScores, score_rollouts
from persim_lightning.methods.cadm.context_dynamics import ContextDynamics, ContextPolicy, RecentPast
from persim_lightning.methods.cadm.context_model import ContextModel
from persim_lightning.methods.cadm.module import CaDMModule
from persim_lightning.methods.contract import Fitted, Method, Task
from persim_lightning.methods.training import train
from persim_lightning.planning.planner import Score
from persim_lightning.planning.returns import EnsembleReturns
from persim_lightning.planning.shared_noise import SharedNoise
from persim_lightning.store.work import Work
from persim_lightning.support.files import atomic_write

_WEIGHTS = "cadm.safetensors"


class CaDM(Method):
    """Context-aware dynamics model.

    Parameters
    ----------
    members : int
        Ensemble members: 1 is vanilla CaDM, more are PE-TS CaDM.
    probabilistic : bool
        Whether dynamics are Gaussians, trained by their likelihood on bootstrap samples.
    particles : int
        Number of particles of PE-TS in planning, split evenly among the members.
    past : int
        K, number of transitions that the context is encoded from.
    future : int
        Number of steps predicted under one context in training.
    context_dim : int
    width, layers : int
        Hidden layers of the dynamics.
    backward_weight : float
        Weight of the backward dynamics in the loss.
    batch_size : int
        Windows in a gradient step, `future` transitions each.
    learning_rate : float
        Peak of the one-cycle schedule.
    """

    def __init__(
        self,
        members: PositiveInt = 1,
        probabilistic: bool = False,
        particles: PositiveInt = 1,
        past: PositiveInt = 10,
        future: PositiveInt = 10,
        context_dim: PositiveInt = 10,
        width: PositiveInt = 200,
        layers: PositiveInt = 4,
        backward_weight: NonNegativeFloat = 0.5,
        batch_size: PositiveInt = 32,
        learning_rate: PositiveFloat = 1e-3,
    ) -> None:
        if particles % members:
            raise ConfigurationError(f"particles {particles} must be a multiple of members {members}")
        self._model: dict[str, Any] = {
            "members": members,
            "probabilistic": probabilistic,
            "past": past,
            "context_dim": context_dim,
            "width": width,
            "layers": layers,
        }
        self._training: dict[str, Any] = {
            "past": past,
            "future": future,
            "backward_weight": backward_weight,
            "bootstrap": probabilistic,
            "learning_rate": learning_rate,
        }
        self._past, self._particles, self._batch_size = past, particles, batch_size

    @property
    def label(self) -> str:
        return "PE-TS CaDM" if self._model["probabilistic"] else "Vanilla CaDM"

    def fit(self, task: Task) -> FittedCaDM:
        def build() -> CaDMModule:
            return CaDMModule(self._build_model(task), **self._training)

        arguments = {**self._model, **self._training, "batch_size": self._batch_size}
        # Variants with the same label train in different folders.
        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:8]
        folder = task.workspace / f"{self.label.lower().replace(' ', '-')}-{digest}"
        settings = {**task.identity(), **arguments}
        # The caller saves the weights elsewhere, so this folder is never finished.
        Work(folder, settings, _WEIGHTS).open()
        module = train(build, task.data(self._batch_size), task, folder)
        return FittedCaDM(module.model, self._past, self._particles)

    def load(self, folder: Path, task: Task) -> FittedCaDM:
        model, path = self._build_model(task), folder / _WEIGHTS
        try:
            model.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise SimulatorFileError(f"{path}: not readable ({str(error).splitlines()[0]})") from error
        return FittedCaDM(model, self._past, self._particles)

    def _build_model(self, task: Task) -> ContextModel:
        schema, configured = task.environment.schema, task.configuration
        return ContextModel(
            **self._model,
            state_dim=schema.state_dim,
            action_dim=schema.action_dim,
            num_actions=schema.num_actions,
            # The same information about states as for PerSim.
            angles=configured["model"]["init_args"].get("angles") or (),
            walls=configured["data"].get("walls", False),
        )


class FittedCaDM(Fitted):
    """A trained CaDM.

    Parameters
    ----------
    model : ContextModel
    past : int
        K.
    particles : int
        P.
    """

    plans = True

    def __init__(self, model: ContextModel, past: int, particles: int) -> None:
        self.model, self._past, self._particles = model.eval().requires_grad_(False), past, particles

    def policy(self, task: Task, episodes: int) -> Policy:
        """Build MPC under the context of each episode's last transitions."""
        environment, settings = task.environment, task.planning
        discrete = environment.num_actions is not None
        action = torch.zeros((), dtype=torch.int64) if discrete else torch.zeros(len(environment.action_names))
        batch = len(task.agents) * episodes
        recent = RecentPast(batch, self._past, self.model.state_dim, action)
        noise = SharedNoise(torch.Generator().manual_seed(task.seed))
        objective, share = settings.objective(environment), self._particles // self.model.members

        def make_score(states: Tensor, rows: Tensor) -> Score:
            dynamics = ContextDynamics(self.model, self._contexts(recent.past, rows), share, noise)
            return EnsembleReturns(dynamics, objective, states, torch.arange(len(rows)), settings.pessimism, noise)

        return ContextPolicy(mpc_policy(environment, settings, make_score, torch.device("cpu")), recent)

    def score(self, task: Task) -> PredictionScores | None:
        """Score rollouts of the members' means under the context of the transitions before each scored window."""
        test = task.recordings.test
        if test is None:
            return None
        gather = WindowGather(test, torch.zeros(0, dtype=torch.int64), self._past, 1)

        def predict(episodes: Tensor, windows: EpisodeWindows) -> Tensor:
            # Episodes that end before a window starts have no steps to score.
            start = torch.minimum(test.offsets[episodes] + START, test.offsets[episodes + 1] - 1)
            contexts = self._contexts(gather.past(start), torch.arange(len(start)))
            return ContextDynamics(self.model, contexts).rollout(windows.start, windows.action)[:, :, 1:].mean(0)

        return score_rollouts(predict, test)

    @torch.no_grad()
    def _contexts(self, past: Past, rows: Tensor) -> Tensor:
        """Encode the contexts (M, N, C) of some rows."""
        chosen = (part[rows] for part in past)
        return self.model.context(Past(*(part.expand(self.model.members, *part.shape) for part in chosen)))

    def save(self, folder: Path) -> None:
        with atomic_write(folder / _WEIGHTS) as temporary:
            save_file({name: value.contiguous() for name, value in self.model.state_dict().items()}, temporary)
