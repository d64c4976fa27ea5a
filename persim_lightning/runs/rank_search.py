"""Chooses the rank by short fits: the first gives a starting point, others are compared on held-out tails."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytorch_lightning as pl
import torch

from persim_lightning.callbacks.bare_trainer import bare_trainer
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.prediction import EpisodeWindows, predict
from persim_lightning.store.names import FIGURES, RANK_SELECTION
from persim_lightning.support.figures import save_figure
from persim_lightning.support.files import read_json, write_json
from persim_lightning.theory.lowrank import compress, cp_fit
from persim_lightning.theory.sample import sample_cells
from persim_lightning.theory.tensors import coordinate_scales, learned_tensor, merged
from persim_lightning.training.persim import PerSimModule
from persim_lightning.types import Transitions

# Share of every trajectory, at its tail, on which short fits are compared.
TAIL = 0.2
# Short fits take this share of the epochs, but at least this many optimizer steps; number of their members.
_EPOCHS_SHARE, _STEPS, MEMBERS = 1 / 6, 1500, 2
GENEROUS = 16
# Largest number of steps of rollouts into the tails.
_HORIZON = 50
# Doubling the rank must lower the error to this share, since short fits favor larger models, which train faster.
_DOUBLING = 0.6


@dataclass(frozen=True)
class RankSelection:
    """A chosen rank and the errors that it was chosen by.

    Attributes
    ----------
    rank : int
        The chosen rank, see :func:`choose`.
    start : int
        First rank of the search: the one that explains the first fit's tensor up to that fit's error.
    errors : dict of int to float
        Rank -> geometric mean over trajectories of the rollouts' root mean square error, coordinates standardized.
    """

    rank: int
    start: int
    errors: dict[int, float]

    @classmethod
    def load(cls, folder: Path) -> RankSelection:
        """Read the file that :func:`write_selection` wrote.

        Raises
        ------
        ConfigurationError
            If the file is missing or damaged.
        """
        path = folder / RANK_SELECTION
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such file, so model.rank auto has chosen nothing yet: give a number")
        values = read_json(path)
        try:
            errors = {int(rank): math.inf if error is None else error for rank, error in values["errors"].items()}
            return cls(values["rank"], values["start"], errors)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"{path} is damaged: give a number in the place of model.rank auto") from error


def short_epochs(epochs: int, steps_per_epoch: int) -> int:
    """Choose and print the number of epochs of a short fit, at most that of the whole fit."""
    short = min(epochs, max(round(epochs * _EPOCHS_SHARE), math.ceil(_STEPS / steps_per_epoch)))
    steps = short * steps_per_epoch
    doubt = ": too few to be reliable, so compare other ranks yourself" if steps < _STEPS else ""
    print(f"searching for the rank by fits of {steps} steps{doubt}", flush=True)
    return short


def select_rank(
    build: Callable[[int], PerSimModule], data: TrajectoryDataModule, seed: int, **trainer: Any
) -> RankSelection:
    """Search for the rank.

    Parameters
    ----------
    build : callable, rank -> PerSimModule
    data : TrajectoryDataModule
        Data whose tails are held out.
    seed : int
        Seed of each fit.
    **trainer
        Options of each fit's Trainer: `max_epochs`, `precision`, `accelerator`.
    """
    errors: dict[int, float] = {}

    def evaluate(rank: int) -> PerSimModule:
        model = _short_fit(build, rank, data, seed, **trainer)
        errors[rank] = rollout_error(model, data)
        print(f"rank {rank}: rollout error {errors[rank]:.3g} on held-out tails", flush=True)
        return model

    start = _spectral_rank(evaluate(GENEROUS), data)
    for rank in sorted({max(1, start - 1), start, start + 1}):
        if rank not in errors:
            evaluate(rank)
    # Try further ranks while the best one is the lowest or the highest that was tried.
    while True:
        tried = sorted(rank for rank in errors if rank != GENEROUS)
        chosen = choose(errors)
        if chosen == tried[0] and chosen > 1:
            evaluate(chosen - 1)
        elif chosen >= tried[-1] and tried[-1] + 1 < GENEROUS:
            evaluate(tried[-1] + 1)
        else:
            return RankSelection(chosen, start, dict(sorted(errors.items())))


def choose(errors: dict[int, float]) -> int:
    """Choose the rank of the lowest error, where doubling the rank must lower the error by 40 % (a power law)."""
    return min(errors, key=lambda rank: (_merit(rank, errors[rank]), rank))


def _merit(rank: int, error: float) -> float:
    """Return the logarithm of the criterion; lower is better."""
    return math.log(error) - math.log(_DOUBLING) * math.log2(rank)


def _short_fit(
    build: Callable[[int], PerSimModule], rank: int, data: TrajectoryDataModule, seed: int, **options: Any
) -> PerSimModule:
    pl.seed_everything(seed, verbose=False)
    model = build(rank)
    trainer = bare_trainer(**options)
    trainer.fit(model, datamodule=data)
    return model


@torch.no_grad()
def rollout_error(model: PerSimModule, data: TrajectoryDataModule) -> float:
    """Compute the error of rollouts over the held-out tails.

    Parameters
    ----------
    model : PerSimModule
    data : TrajectoryDataModule

    Returns
    -------
    float
        Geometric mean over trajectories of the root mean square error over steps and coordinates, each divided by the
        coordinate's standard deviation; infinite if a rollout diverged. Trajectories without a tail do not count.
    """
    trajectories, simulator = data.trajectories, copy.deepcopy(model.simulator).cpu()
    windows = EpisodeWindows.cut(trajectories, trajectories.tail_starts(TAIL), _HORIZON)
    windows = windows.select((windows.steps > 0).nonzero()[:, 0])
    logs = []
    for part in torch.arange(len(windows.steps)).split(4096):
        own = windows.select(part)
        valid = (torch.arange(_HORIZON) < own.steps[:, None])[..., None]
        difference = (predict(simulator, own.agent, own) - own.target) / simulator.state_encoder.state_std
        square = torch.where(valid, difference, 0.0).double().square().sum((1, 2)) / (own.steps * own.target.shape[-1])
        logs.append(square.clamp(min=1e-30).log() / 2)
    mean = float(torch.cat(logs).mean())
    return math.exp(mean) if math.isfinite(mean) else math.inf


@torch.no_grad()
def _one_step_loss(model: PerSimModule, data: TrajectoryDataModule) -> float:
    """Compute the mean squared error of normalized Δs on the held-out tails, averaged over members."""
    total, count = 0.0, 0
    for served in data.val_dataloader():
        # After a fit Lightning moves the model back to the CPU, but not the data.
        batch = Transitions(*(value.to(model.device) for value in served))
        total += float(model.loss(batch).mean()) * batch.agent.numel()
        count += batch.agent.numel()
    return total / count


def _spectral_rank(model: PerSimModule, data: TrajectoryDataModule) -> int:
    """Find the CP rank that explains the fitted tensor up to the fit's one-step error."""
    sample = sample_cells(data.trajectories)
    tensor = learned_tensor(model.personalized(), sample.agents, sample.states, sample.actions, walls=False)
    compressed = compress(merged(tensor / coordinate_scales(tensor)), 3 * GENEROUS)
    unknown = math.sqrt(_one_step_loss(model, data))
    for rank in range(1, GENEROUS):
        if cp_fit(compressed, rank, inits=1, iterations=300).error <= unknown:
            return rank
    return GENEROUS - 1


def write_selection(selection: RankSelection, folder: Path) -> list[Path]:
    """Write `rank_selection.json` and `figures/rank_selection.png`."""
    write_json(asdict(selection), folder / RANK_SELECTION)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.semilogy(list(selection.errors), list(selection.errors.values()), marker="o")
    scale = math.exp(_merit(selection.rank, selection.errors[selection.rank]))
    needed = [scale * _DOUBLING ** math.log2(rank) for rank in selection.errors]
    axes.semilogy(list(selection.errors), needed, "--", color="0.6", label="doubling the rank must lower it by 40 %")
    axes.axvline(selection.rank, color="tab:red", linestyle=":", label=f"chosen: {selection.rank}")
    axes.set(xlabel="rank", ylabel="rollout error on held-out tails", title="choosing the rank by short fits")
    axes.grid(alpha=0.3)
    axes.legend()
    picture = (folder / FIGURES / RANK_SELECTION).with_suffix(".png")
    return [folder / RANK_SELECTION, save_figure(figure, picture)]
