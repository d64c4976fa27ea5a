"""Tensor completion as a method of the benchmark; it predicts but has no policy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from persim_lightning.data.collecting.behavior import Policy
from persim_lightning.errors import ConfigurationError, SimulatorFileError
from persim_lightning.evaluation.prediction import PredictionScores, score_predictions
from persim_lightning.methods.completion_model import CompletionSettings, CompletionSimulator, fit_completion
from persim_lightning.methods.contract import Fitted, Method, Task
from persim_lightning.models.config import Ranks
from persim_lightning.support.files import atomic_write, read_json, write_json

_WEIGHTS, _SETTINGS = "completion.safetensors", "completion.json"


class TensorCompletion(Method):
    """Completes the binned dynamics tensor at PerSim's rank, without networks.

    Parameters
    ----------
    state_cells, action_cells, ridge, iterations, tolerance, interpolate
        See :class:`~persim_lightning.methods.completion_model.CompletionSettings`.
    """

    def __init__(
        self,
        state_cells: PositiveInt | None = None,
        action_cells: PositiveInt = 64,
        ridge: NonNegativeFloat = 3.0,
        iterations: PositiveInt = 100,
        tolerance: PositiveFloat = 1e-4,
        interpolate: bool = True,
    ) -> None:
        self._settings = CompletionSettings(state_cells, action_cells, ridge, iterations, tolerance, interpolate)

    @property
    def label(self) -> str:
        return "Tensor completion"

    def fit(self, task: Task) -> FittedCompletion:
        model = task.configuration["model"]["init_args"]
        ranks, kind = _ranks(model), model.get("factorization", "cp")
        data = task.data(task.configuration["data"]["batch_size"])
        simulator, completion = fit_completion(
            data.trajectories, data.train_rows, ranks, kind, self._settings, task.seed
        )
        facts = {"settings": asdict(self._settings), "ranks": list(ranks), "factorization": kind}
        return FittedCompletion(simulator, {**facts, "converged": completion.converged})

    def load(self, folder: Path, task: Task) -> FittedCompletion:
        path = folder / _WEIGHTS
        if not path.is_file() or not (folder / _SETTINGS).is_file():
            raise SimulatorFileError(f"{path}: no such file: the tensor has not been completed")
        facts = read_json(folder / _SETTINGS)
        try:
            simulator = CompletionSimulator.from_state(load_file(path), facts["settings"]["interpolate"])
        except (SafetensorError, RuntimeError, KeyError) as error:
            raise SimulatorFileError(f"{path}: not readable ({str(error).splitlines()[0]})") from error
        return FittedCompletion(simulator, facts)


def _ranks(model: dict[str, object]) -> Ranks:
    """Read the ranks of PerSim's configuration."""
    rank = model["rank"]
    sizes = [model.get(f"rank_{mode}") or rank for mode in ("agent", "state", "action")]
    if not all(isinstance(size, int) for size in sizes):
        raise ConfigurationError(f"tensor completion needs a number as model.rank, not {rank!r}")
    return Ranks(*sizes)  # type: ignore[arg-type]


class FittedCompletion(Fitted):
    """A completed tensor.

    Parameters
    ----------
    simulator : CompletionSimulator
    facts : dict
        Settings, ranks and whether the decomposition converged, ready for JSON.
    """

    def __init__(self, simulator: CompletionSimulator, facts: dict[str, object]) -> None:
        self._simulator, self._facts = simulator, facts

    def policy(self, task: Task, episodes: int) -> Policy | None:
        return None

    def score(self, task: Task) -> PredictionScores | None:
        test = task.recordings.test
        if test is None:
            return None
        index = {label: row for row, label in enumerate(task.recordings.train.agent_ids)}
        population: Tensor = torch.tensor([index[label] for label in test.agent_ids])
        return score_predictions(self._simulator, population, test)

    def save(self, folder: Path) -> None:
        state = {name: value.contiguous() for name, value in self._simulator.state_dict().items()}
        with atomic_write(folder / _WEIGHTS) as temporary:
            save_file(state, temporary)
        write_json(self._facts, folder / _SETTINGS)
