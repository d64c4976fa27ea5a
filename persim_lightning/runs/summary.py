"""Prints the summary at the end of a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console

from persim_lightning.callbacks.control import MPCEpisodes
from persim_lightning.callbacks.rollouts import RolloutScores
from persim_lightning.callbacks.theorem import LowRankCheck
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.evaluation.control import return_cell
from persim_lightning.evaluation.report import print_scores
from persim_lightning.ladder.choice import Choice
from persim_lightning.support.terminal import print_table
from persim_lightning.theory.summary import summary

# Agents that are listed in one line.
_MAX_LISTED = 10


def print_summary(
    trainer: pl.Trainer,
    data: TrajectoryDataModule,
    covered: list[dict[str, Any]],
    choice: Choice | None,
    folder: Path,
    seconds: float,
) -> None:
    """Print scores, coverage of intervals, the theorem check, returns and the run folder.

    Parameters
    ----------
    trainer : Trainer
        Trainer after the fit; its callbacks hold the results.
    data : TrajectoryDataModule
    covered : list of dict
        From :func:`~persim_lightning.evaluation.intervals.coverage`.
    choice : Choice or None
        What the backtest of a user's table found.
    folder : Path
        Run folder.
    seconds : float
        Duration of the fit.
    """
    console = Console()
    if choice is not None:
        print_table("Errors of rollouts over held-out rows, in standard deviations", *choice.table())
        console.print(f"chosen: {choice.composition()}", soft_wrap=True)
        console.print(f"this is {choice.verdict()}", soft_wrap=True)
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, RolloutScores):
            _print_prediction(console, callback, data, covered)
        if isinstance(callback, LowRankCheck):
            assert callback.check is not None
            console.print(summary(callback.check), soft_wrap=True)
        if isinstance(callback, MPCEpisodes):
            assert callback.results is not None
            rows = [(str(record["agent"]), return_cell(record)) for record in callback.results["agents"]]
            count = len(callback.results["agents"][0]["returns"])
            print_table(f"MPC in the real environment, {count} episode(s)", ("agent", "return"), rows)
    console.print(f"trained {data.num_agents} agents in {seconds:.0f} s; wrote {folder}", soft_wrap=True)


def _print_prediction(
    console: Console, rollouts: RolloutScores, data: TrajectoryDataModule, covered: list[dict[str, Any]]
) -> None:
    if data.test_trajectories is None:
        console.print("no test trajectories (data.test_path): rollouts were not scored")
        return
    assert rollouts.scores is not None
    print_scores(rollouts.scores.to_records(data.test_trajectories.agent_ids), "50-step rollouts, test trajectories")
    if covered:
        shares = ", ".join(f"{record['0.9']:.1%}" for record in covered[:_MAX_LISTED])
        more = ", …" if len(covered) > _MAX_LISTED else ""
        console.print(f"intervals of level 0.9 hold {shares}{more} of their states")
