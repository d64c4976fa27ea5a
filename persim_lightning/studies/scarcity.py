"""The scarcity study: prediction error and returns against the number of agents (PerSim, section 6 and appendix)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.compute as pc
import yaml
from jsonargparse.typing import PositiveInt

from persim_lightning.data.tables.sources import read_table, write_table
from persim_lightning.envs import ENVIRONMENTS
from persim_lightning.errors import ConfigurationError
from persim_lightning.runs.play import PERSIM, played_once
from persim_lightning.studies.runs import fit_or_reuse
from persim_lightning.support.figures import save_figure
from persim_lightning.support.files import atomic_write, markdown_table, read_json, write_json
from persim_lightning.support.terminal import print_table

AGENTS = (25, 50, 100, 250, 500)


@dataclass(frozen=True)
class ScarcityScores:
    """What a population of one size comes to, on the same test agents.

    Attributes
    ----------
    agents : int
    rmse, r2 : list of float
        Mean RMSE and median R² of 50-step rollouts, by test agent.
    returns : list of float, or None
        Mean return of MPC episodes, by test agent.
    """

    agents: int
    rmse: list[float]
    r2: list[float]
    returns: list[float] | None


def scarcity_command(args: list[str] | None = None) -> None:
    """Fit populations of 25 to 500 agents with equally many optimizer steps, and score the same five test agents."""
    parser = argparse.ArgumentParser(
        prog="scarcity.py",
        description=f"{scarcity_command.__doc__} Example: python tools/scarcity.py --env cartpole --episodes 5",
    )
    parser.add_argument("--env", required=True, choices=list(ENVIRONMENTS))
    parser.add_argument(
        "--agents", type=PositiveInt, nargs="+", default=list(AGENTS), help="sizes (default: %(default)s)"
    )
    parser.add_argument("--episodes", type=int, default=0, help="MPC episodes an agent, for returns (default: none)")
    parser.add_argument("--conf", type=Path, default=Path("conf"), help="folder of ENV.yaml (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of data sets (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/scarcity"), help="run folders (default: %(default)s)")
    parser.add_argument("options", nargs="*", help="further options of tools/fit.py for every run, after --")
    given = parser.parse_args(args)
    options = ["--data.root", str(given.root), "--check_theorem", "false", "--wandb", "disabled", *given.options]
    config = given.conf / f"{given.env}.yaml"
    scores = scarcity_study(given.env, config, given.runs, sorted(set(given.agents)), given.episodes, options)
    agents = range(len(scores[0].rmse))
    headings = ["agents", *(f"agent {index}" for index in agents)]
    rows = [
        [str(own.agents), *(f"{rmse:.3g} ({r2:.3f})" for rmse, r2 in zip(own.rmse, own.r2, strict=True))]
        for own in scores
    ]
    print_table(f"{given.env}: mean RMSE (median R²) of 50-step rollouts", headings, rows)
    lines = [f"{given.env}: mean RMSE (median R²) of 50-step rollouts", "", *markdown_table(headings, rows)]
    if given.episodes:
        rows = [[str(own.agents), *(f"{value:.1f}" for value in own.returns or ())] for own in scores]
        title = f"{given.env}: mean return of {given.episodes} MPC episodes"
        print_table(title, headings, rows)
        lines += ["", title, "", *markdown_table(headings, rows)]
    page, values, picture = (given.runs / f"scarcity-{given.env}{suffix}" for suffix in (".md", ".json", ".png"))
    with atomic_write(page) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    write_json([asdict(own) for own in scores], values)
    draw_scarcity(given.env, scores, picture)
    print(f"wrote {page}, {values}, {picture}")


def scarcity_study(
    environment: str, config: Path, runs: Path, sizes: Sequence[int], episodes: int, options: Sequence[str]
) -> list[ScarcityScores]:
    """Fit and score populations of several sizes.

    Parameters
    ----------
    environment : str
    config : Path
    runs : Path
        Folder of the runs; finished ones are kept.
    sizes : sequence of int
        Numbers of agents, ascending: the smaller populations are the first agents of the largest.
    episodes : int
        MPC episodes of every test agent; 0 for no returns.
    options : sequence of str
        Of `tools/fit.py`, for every run.

    Raises
    ------
    ConfigurationError
        If a population would not hold the test agents.
    """
    if not config.is_file():
        raise ConfigurationError(f"{config}: no such file (--conf says where configurations lie)")
    tested = len(ENVIRONMENTS[environment].test_agents)
    if sizes[0] < tested:
        raise ConfigurationError(f"{sizes[0]} agents are too few: the first {tested} are the test agents")
    largest, epochs = sizes[-1], yaml.safe_load(config.read_text())["trainer"]["max_epochs"]
    whole = fit_or_reuse(runs / f"{environment}-{largest}", config, [*options, "--data.agents", str(largest)])
    files = read_json(whole / "provenance.json")["data"]
    table = read_table(Path(files["path"]))
    scores = []
    for size in sizes:
        run = whole
        if size < largest:
            path = runs / f"{environment}-{size}.parquet"
            write_table(table.filter(pc.less(table["agent"], size)), path)
            own = ["--data.path", str(path), "--trainer.max_epochs", str(round(epochs * largest / size))]
            own += ["--data.test_path", files["test_path"], "--data.agents_path", files["agents_path"]]
            run = fit_or_reuse(runs / f"{environment}-{size}", config, [*own, *options])
        records = read_json(run / "prediction.json")
        returns = None
        if episodes:
            played = played_once(run, ["--episodes", str(episodes), "--true_env", "false"])
            returns = [record["mean_return"] for record in played[PERSIM]["agents"]]
        rmse, r2 = ([record[name] for record in records] for name in ("rmse", "r2"))
        scores.append(ScarcityScores(size, rmse, r2, returns))
    return scores


def draw_scarcity(environment: str, scores: Sequence[ScarcityScores], path: Path) -> Path:
    """A line for every test agent: error, and returns where they are known, against the number of agents."""
    known = scores[0].returns is not None
    figure, axes = plt.subplots(1, 1 + known, figsize=(5.5 + 5 * known, 4.2), layout="constrained", squeeze=False)
    sizes = [own.agents for own in scores]
    for index in range(len(scores[0].rmse)):
        label = f"agent {index}"
        rmse = np.array([own.rmse[index] for own in scores], dtype=float)
        axes[0, 0].loglog(sizes, rmse, marker="o", label=label)
        if known:
            axes[0, 1].semilogx(sizes, [(own.returns or [])[index] for own in scores], marker="o", label=label)
    axes[0, 0].set(ylabel="mean RMSE of 50-step rollouts", title=f"{environment}: error")
    if known:
        axes[0, 1].set(ylabel="mean return of MPC episodes", title=f"{environment}: return")
    for own in axes[0]:
        own.set_xticks(sizes, list(map(str, sizes)))
        own.minorticks_off()
        own.set_xlabel("agents with one trajectory each")
        own.grid(alpha=0.3)
        own.legend(fontsize=8)
    return save_figure(figure, path)
