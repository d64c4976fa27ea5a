"""Chooses the rank: a generous short fit shows where to look, a few more decide by rollouts on held-out tails."""

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
from persim_lightning.support.figures import save_figure
from persim_lightning.support.files import read_json, write_json
from persim_lightning.theory.lowrank import compress, cp_fit
from persim_lightning.theory.sample import sample_cells
from persim_lightning.theory.tensors import coordinate_scales, learned_tensor, merged
from persim_lightning.training.persim import PerSimModule
from persim_lightning.types import Transitions

# Share of every trajectory, at its tail, that short fits are judged on.
TAIL = 0.2
# Short fits take this share of the epochs, but at least so many optimizer steps, with so many members.
_EPOCHS_SHARE, _STEPS, MEMBERS = 1 / 6, 1500, 2
GENEROUS = 16
# Doubling the rank has to lower the error to this share: larger models train faster, so short fits always favor them.
_DOUBLING = 0.6
_FILE = "rank_selection.json"


@dataclass(frozen=True)
class RankSelection:
    """How a rank was chosen.

    Attributes
    ----------
    rank : int
        The largest that still pays, see :func:`choose`.
    start : int
        Where the search started: the rank at which the generous fit's tensor is explained up to that fit's own error.
    errors : dict of int to float
        Rank -> geometric mean over trajectories of the rollouts' root mean square error, coordinates standardized.
    """

    rank: int
    start: int
    errors: dict[int, float]

    @classmethod
    def load(cls, folder: Path) -> RankSelection:
        """Read what :func:`write_selection` wrote.

        Raises
        ------
        ConfigurationError
            If nothing was chosen there.
        """
        path = folder / _FILE
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such file, so model.rank auto has chosen nothing yet: give a number")
        values = read_json(path)
        try:
            errors = {int(rank): math.inf if error is None else error for rank, error in values["errors"].items()}
            return cls(values["rank"], values["start"], errors)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"{path} is damaged: give a number in the place of model.rank auto") from error


def short_epochs(epochs: int, steps_per_epoch: int) -> int:
    """Epochs of a short fit: no more than the whole one's. Says how long they are."""
    short = min(epochs, max(round(epochs * _EPOCHS_SHARE), math.ceil(_STEPS / steps_per_epoch)))
    steps = short * steps_per_epoch
    doubt = ": too few to trust, so compare with ranks of your own" if steps < _STEPS else ""
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
        With the tails held out that the fits are judged on.
    seed : int
        Of each fit.
    **trainer
        Options of each fit's Trainer: `max_epochs`, `precision`, `accelerator`.
    """
    errors: dict[int, float] = {}

    def judge(rank: int) -> PerSimModule:
        model = _short_fit(build, rank, data, seed, **trainer)
        errors[rank] = rollout_error(model, data)
        print(f"rank {rank}: rollout error {errors[rank]:.3g} on held-out tails", flush=True)
        return model

    start = _spectral_rank(judge(GENEROUS), data)
    for rank in sorted({max(1, start - 1), start, start + 1}):
        if rank not in errors:
            judge(rank)
    # Walk on, in whichever direction the best one lies at the edge of what was tried.
    while True:
        tried = sorted(rank for rank in errors if rank != GENEROUS)
        chosen = choose(errors)
        if chosen == tried[0] and chosen > 1:
            judge(chosen - 1)
        elif chosen >= tried[-1] and tried[-1] + 1 < GENEROUS:
            judge(tried[-1] + 1)
        else:
            return RankSelection(chosen, start, dict(sorted(errors.items())))


def choose(errors: dict[int, float]) -> int:
    """The rank of the lowest error, when doubling the rank has to lower the error by 40 % (a power law in between)."""
    return min(errors, key=lambda rank: (_merit(rank, errors[rank]), rank))


def _merit(rank: int, error: float) -> float:
    """Logarithm of what is compared: lower is better."""
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
def rollout_error(model: PerSimModule, data: TrajectoryDataModule, horizon: int = 50) -> float:
    """Error of rollouts over the held-out tails.

    Parameters
    ----------
    model : PerSimModule
    data : TrajectoryDataModule
    horizon : int
        At most so many steps into each tail.

    Returns
    -------
    float
        Geometric mean over trajectories of the root mean square error over steps and coordinates, each divided by the
        coordinate's standard deviation; infinite if a rollout diverged. Trajectories without a tail do not count.
    """
    trajectories, simulator = data.trajectories, copy.deepcopy(model.simulator).cpu()
    windows = EpisodeWindows.cut(trajectories, trajectories.tail_starts(TAIL), horizon)
    windows = windows.select((windows.steps > 0).nonzero()[:, 0])
    logs = []
    for part in torch.arange(len(windows.steps)).split(4096):
        own = windows.select(part)
        valid = (torch.arange(horizon) < own.steps[:, None])[..., None]
        difference = (predict(simulator, own.agent, own) - own.target) / simulator.state_encoder.state_std
        square = torch.where(valid, difference, 0.0).double().square().sum((1, 2)) / (own.steps * own.target.shape[-1])
        logs.append(square.clamp(min=1e-30).log() / 2)
    mean = float(torch.cat(logs).mean())
    return math.exp(mean) if math.isfinite(mean) else math.inf


@torch.no_grad()
def _one_step_loss(model: PerSimModule, data: TrajectoryDataModule) -> float:
    """Mean squared error of normalized Δs on the held-out tails, mean over members."""
    total, count = 0.0, 0
    for served in data.val_dataloader():
        # After a fit Lightning moves the model back to the CPU, but not the data.
        batch = Transitions(*(value.to(model.device) for value in served))
        total += float(model.loss(batch).mean()) * batch.agent.numel()
        count += batch.agent.numel()
    return total / count


def _spectral_rank(model: PerSimModule, data: TrajectoryDataModule) -> int:
    """CP rank at which the fitted tensor is explained up to the fit's own one-step error."""
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
    write_json(asdict(selection), folder / _FILE)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.semilogy(list(selection.errors), list(selection.errors.values()), marker="o")
    scale = math.exp(_merit(selection.rank, selection.errors[selection.rank]))
    needed = [scale * _DOUBLING ** math.log2(rank) for rank in selection.errors]
    axes.semilogy(list(selection.errors), needed, "--", color="0.6", label="a doubled rank has to lower it by 40 %")
    axes.axvline(selection.rank, color="tab:red", linestyle=":", label=f"chosen: {selection.rank}")
    axes.set(xlabel="rank", ylabel="rollout error on held-out tails", title="choosing the rank by short fits")
    axes.grid(alpha=0.3)
    axes.legend()
    return [folder / _FILE, save_figure(figure, folder / "figures" / "rank_selection.png")]
