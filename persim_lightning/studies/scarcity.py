"""The scarcity study: prediction error and returns against the number of agents (PerSim, section 6 and appendix)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.compute as pc

from persim_lightning.data.tables.sources import read_table, write_table
from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.evaluation.prediction import restore_score
from persim_lightning.runs.play import PERSIM, PlayRequest, play_once
from persim_lightning.runs.reuse import fit_once
from persim_lightning.runs.settings import change_settings
from persim_lightning.store.names import PREDICTION, PROVENANCE
from persim_lightning.studies.unseen import UNUSED
from persim_lightning.support.configurations import find_configuration, read_yaml
from persim_lightning.support.figures import save_figure
from persim_lightning.support.files import atomic_write, markdown_table, read_json, write_json
from persim_lightning.support.terminal import print_table


@dataclass(frozen=True)
class ScarcityScores:
    """Scores of the test agents in a population of one size.

    Attributes
    ----------
    agents : int
    rmse, r2 : list of float
        Mean RMSE and median R² of 50-step rollouts, by test agent; inf and -inf where a prediction diverged.
    returns : list of float, or None
        Mean return of MPC episodes, by test agent; NaN where the environment overflowed.
    """

    agents: int
    rmse: list[float]
    r2: list[float]
    returns: list[float] | None


def scarcity_study(
    environment: str, settings: Mapping[str, Any], runs: Path, sizes: Sequence[int], episodes: int = 0
) -> list[ScarcityScores]:
    """Fit populations of several sizes with the same number of optimizer steps, and score the same test agents.

    Parameters
    ----------
    environment : str
    settings : mapping
        Settings of every fit, as :func:`~persim_lightning.runs.fit.fit` takes them.
    runs : Path
        Folder of the runs; finished runs are reused.
    sizes : sequence of int
        Numbers of agents. The smaller populations consist of the first agents of the largest.
    episodes : int
        Number of MPC episodes of every test agent; 0 for none.

    Raises
    ------
    ConfigurationError
        If a population is too small to contain the test agents.
    """
    settings, sizes = change_settings(settings, UNUSED), sorted(set(sizes))
    tested = len(get_environment(environment).test_agents)
    if sizes[0] < tested:
        raise ConfigurationError(f"{sizes[0]} agents are too few: the first {tested} are the test agents")
    largest, epochs = sizes[-1], settings["trainer"]["max_epochs"]
    whole = fit_once(runs / f"{environment}-{largest}", change_settings(settings, {"data.agents": largest}))
    files = read_json(whole / PROVENANCE)["data"]
    table = read_table(Path(files["path"]))
    scores = []
    for size in sizes:
        run = whole
        if size < largest:
            # The subset depends on the population that it was drawn from.
            name = f"{environment}-{size}of{largest}"
            path = runs / f"{name}.parquet"
            write_table(table.filter(pc.less(table["agent"], size)), path)
            changes = {f"data.{name}": files[name] for name in ("test_path", "agents_path")}
            changes |= {"data.path": str(path), "trainer.max_epochs": round(epochs * largest / size)}
            run = fit_once(runs / name, change_settings(settings, changes))
        records = read_json(run / PREDICTION)
        rmse, r2 = ([restore_score(record, name) for record in records] for name in ("rmse", "r2"))
        scores.append(ScarcityScores(size, rmse, r2, _returns(run, episodes) if episodes else None))
    return scores


def _returns(run: Path, episodes: int) -> list[float]:
    """Run the episodes of every test agent, and return the mean returns."""
    fitted = FittedRun.load(run)
    planning = read_yaml(find_configuration(fitted.real_environment().name, "planning"))
    request = PlayRequest(fitted, planning, episodes=episodes, true_env=False)
    results = play_once(request, run / f"episodes-{episodes}")
    means = [record["mean_return"] for record in results[PERSIM]["agents"]]
    return [math.nan if mean is None else mean for mean in means]


def write_scarcity(environment: str, scores: Sequence[ScarcityScores], episodes: int, folder: Path) -> list[Path]:
    """Print the scores, and write them as `scarcity-ENV.md`, `.json` and `.png`."""
    headings = ["agents", *(f"agent {index}" for index in range(len(scores[0].rmse)))]
    title = f"{environment}: mean RMSE (median R²) of 50-step rollouts"
    rows = [
        [str(score.agents), *(f"{rmse:.3g} ({r2:.3f})" for rmse, r2 in zip(score.rmse, score.r2, strict=True))]
        for score in scores
    ]
    print_table(title, headings, rows)
    lines = [title, "", *markdown_table(headings, rows)]
    if episodes:
        title = f"{environment}: mean return of {episodes} MPC episodes"
        rows = [[str(score.agents), *(f"{value:.1f}" for value in score.returns or ())] for score in scores]
        print_table(title, headings, rows)
        lines += ["", title, "", *markdown_table(headings, rows)]
    page, values, picture = (folder / f"scarcity-{environment}{suffix}" for suffix in (".md", ".json", ".png"))
    with atomic_write(page) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    write_json([asdict(score) for score in scores], values)
    return [page, values, draw_scarcity(environment, scores, picture)]


def draw_scarcity(environment: str, scores: Sequence[ScarcityScores], path: Path) -> Path:
    """Draw errors, and returns if known, against the number of agents; one line for every test agent."""
    with_returns = scores[0].returns is not None
    figure, axes = plt.subplots(
        1, 1 + with_returns, figsize=(5.5 + 5 * with_returns, 4.2), layout="constrained", squeeze=False
    )
    sizes = [score.agents for score in scores]
    for index in range(len(scores[0].rmse)):
        label = f"agent {index}"
        rmse = np.array([score.rmse[index] for score in scores], dtype=float)
        axes[0, 0].loglog(sizes, rmse, marker="o", label=label)
        if with_returns:
            axes[0, 1].semilogx(sizes, [(score.returns or [])[index] for score in scores], marker="o", label=label)
    axes[0, 0].set(ylabel="mean RMSE of 50-step rollouts", title=f"{environment}: error")
    if with_returns:
        axes[0, 1].set(ylabel="mean return of MPC episodes", title=f"{environment}: return")
    for axis in axes[0]:
        axis.set_xticks(sizes, list(map(str, sizes)))
        axis.minorticks_off()
        axis.set_xlabel("agents with one trajectory each")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return save_figure(figure, path)
