"""Runs MPC episodes of a run's agents in the real environment, planned on its simulators and on the true dynamics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from persim_lightning.evaluation.control import PlanningSettings, play_agents, return_cell, simulator_mpc, true_mpc
from persim_lightning.evaluation.episode_media import check_video, draw_first_episodes, film_episode
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.store.names import CONTROL, WEIGHTS
from persim_lightning.store.work import Work
from persim_lightning.support.files import check_writable, file_sha256, read_json, write_json
from persim_lightning.support.parsing import choose_agents
from persim_lightning.support.terminal import print_table

PERSIM = "PerSim + MPC"
TRUE_ENV = "True env + MPC"


@dataclass(frozen=True)
class PlayRequest:
    """Agents, episodes and settings of planning.

    Attributes
    ----------
    run : FittedRun
    planning : dict
        Settings of planning, as in conf/planning/ENV.yaml.
    agents : str
        Ids and ranges, such as `0-4,17`.
    episodes : int
        Number of episodes of every agent.
    seed : int
        Seed of initial states and planning noise.
    true_env : bool
        Whether to plan on the true dynamics as well.
    out : Path, optional
        JSON of the results (RUN/control.json by default); a figure is written beside it.
    video : Path, optional
        Video of the first episode, .gif or .mp4.
    """

    run: FittedRun
    planning: dict[str, Any]
    agents: str = "0-4"
    episodes: int = 20
    seed: int = 0
    true_env: bool = True
    out: Path | None = None
    video: Path | None = None

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the results, ready for JSON."""
        return {
            "environment": self.run.real_environment().name,
            "simulator_sha256": file_sha256(self.run.folder / WEIGHTS),
            **{name: getattr(self, name) for name in ("agents", "episodes", "seed", "true_env")},
            "settings": self.planning,
        }

    @property
    def results_path(self) -> Path:
        """Path of the results."""
        return self.out or self.run.folder / CONTROL


def play(request: PlayRequest) -> dict[str, Any]:
    """Run the episodes, print a table, and write results and a figure.

    Returns
    -------
    dict
        Results by method, as :meth:`~persim_lightning.evaluation.control.ControlScores.to_dict` gives them.

    Raises
    ------
    PersimError
        If an agent is unknown, a setting is invalid for the environment, or a file cannot be written.
    """
    run, out, count, seed = request.run, request.results_path, request.episodes, request.seed
    for path in (out, request.video):
        if path is not None:
            check_writable(path)
    environment, settings = run.real_environment(), PlanningSettings.of(request.planning)
    agents = choose_agents(run.personalized.agent_ids, request.agents)
    covariates = run.covariates(agents)
    if request.video is not None:
        check_video(environment, request.video)
    policy, clamped = simulator_mpc(environment, run.personalized, agents, count, settings)
    scores = play_agents(environment, policy, covariates, count, seed, PERSIM)
    results = {PERSIM: scores.to_dict(agents)}
    if clamped is not None:
        share = clamped.clamped / max(1, clamped.predicted)
        results[PERSIM]["clamped_share"] = share
        print(f"{clamped.clamped} of {clamped.predicted} predicted coordinates were clamped ({share:.2%})")
    if request.true_env:
        true = true_mpc(environment, covariates.repeat_interleave(count, dim=0), settings)
        results[TRUE_ENV] = play_agents(environment, true, covariates, count, seed, TRUE_ENV).to_dict(agents)
    write_json({"request": request.identity(), "threads": torch.get_num_threads(), "results": results}, out)
    _print(environment.name, count, results)
    written = [out, draw_first_episodes(environment, scores.episodes, agents, out.with_suffix(".png"))]
    if request.video is not None:
        written.append(film_episode(environment, covariates[0].tolist(), scores.episodes, 0, request.video))
    for path in written:
        print(f"wrote {path}")
    return results


def play_once(request: PlayRequest, folder: Path) -> dict[str, Any]:
    """Run :func:`play` unless `folder` holds its results.

    Returns
    -------
    dict
        Results as read from JSON, where None stands for NaN.

    Raises
    ------
    PersimError
        As for :func:`play`, and if the folder holds results under other settings.
    """
    if not Work(folder, request.identity(), CONTROL).open():
        play(replace(request, out=folder / CONTROL))
    results: dict[str, Any] = read_json(folder / CONTROL)["results"]
    return results


def _print(environment: str, episodes: int, results: dict[str, Any]) -> None:
    columns = [result["agents"] for result in results.values()]
    rows = [[str(records[0]["agent"]), *map(return_cell, records)] for records in zip(*columns, strict=True)]
    speeds = ["decisions/s", *(f"{result['decisions_per_second']:.0f}" for result in results.values())]
    title = f"{environment}: return, mean ± std over {episodes} episodes"
    print_table(title, ("agent", *results), [*rows, speeds])
