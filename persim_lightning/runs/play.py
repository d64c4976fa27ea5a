"""The command `tools/plan.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from jsonargparse.typing import NonNegativeInt, PositiveInt

from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.control import PlanningSettings, play_agents, return_cell, simulator_mpc, true_mpc
from persim_lightning.evaluation.episode_media import check_video, draw_first_episodes, film_episode
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.models.population import WEIGHTS
from persim_lightning.runs.fit import OneLineParser
from persim_lightning.support.files import check_writable, file_sha256, read_json, write_json
from persim_lightning.support.parsing import choose_agents
from persim_lightning.support.terminal import print_table

PERSIM = "PerSim + MPC"
TRUE_ENV = "True env + MPC"
DESCRIPTION = """Play episodes in the real environment, planned on each agent's own simulator, beside the same planner
on the true dynamics. Example: python tools/plan.py --run RUN --agents 0-4 --episodes 20"""


class PlanRequest(NamedTuple):
    """A parsed command line of `tools/plan.py`.

    Attributes
    ----------
    run : FittedRun
    given : namespace
        Options.
    settings : PlanningSettings
    described : dict
        The settings as YAML holds them.
    """

    run: FittedRun
    given: Any
    settings: PlanningSettings
    described: dict[str, Any]

    def identity(self) -> dict[str, Any]:
        """Everything that decides the results, ready for JSON."""
        return {
            "environment": self.run.real_environment().name,
            "simulator_sha256": file_sha256(self.run.folder / WEIGHTS),
            **{name: self.given[name] for name in ("agents", "episodes", "seed", "true_env")},
            "settings": self.described,
        }

    @property
    def out(self) -> Path:
        """JSON of the results."""
        given: Path | None = self.given.out
        return given or self.run.folder / "control.json"


def plan_command(args: list[str] | None = None) -> None:
    """Parse the command line of `tools/plan.py` and play."""
    play_request(parse_request(args))


def parse_request(args: list[str] | None = None) -> PlanRequest:
    """Parse the command line of `tools/plan.py`.

    Raises
    ------
    PersimError
        If the run or the settings cannot be read.
    """
    # A user's reward may lie in the current folder, which is no script's own.
    sys.path.append(str(Path.cwd()))
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--run", type=Path)
    first.add_argument("--config")
    early = first.parse_known_args(args)[0]
    run = None if early.run is None else FittedRun.load(early.run)
    parser = _parser(None if run is None else run.real_environment().name, early.config is not None)
    given = parser.parse_args(args)
    if run is None:
        raise ConfigurationError("--run has to be given on the command line, not in a YAML")
    if early.config is None and not Path(parser.default_config_files[0]).is_file():
        raise ConfigurationError(f"{parser.default_config_files[0]}: no such file; say by --config how to plan")
    instantiated = parser.instantiate(given)
    settings = PlanningSettings(**{name: instantiated[name] for name in _setting_names()})
    described = {name: value for name, value in yaml.safe_load(parser.dump(given)).items() if name in _setting_names()}
    return PlanRequest(run, given, settings, described)


def _setting_names() -> list[str]:
    return list(PlanningSettings.__dataclass_fields__)


def _parser(environment: str | None, own_config: bool) -> OneLineParser:
    parser = OneLineParser(prog="plan.py", description=DESCRIPTION)
    default = f"conf/planning/{environment or 'ENV'}.yaml"
    if environment is not None and not own_config:
        parser.default_config_files = [default]
    parser.add_argument("--config", action="config", help=f"YAML of how to plan (default: {default}).")
    parser.add_argument("--run", type=Path, required=True, help="Run folder of tools/fit.py.")
    parser.add_argument("--agents", type=str, default="0-4", help="Ids and ranges, such as 0-4,17.")
    parser.add_argument("--episodes", type=PositiveInt, default=20, help="Episodes an agent.")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="First states and planning noise.")
    parser.add_argument("--threads", type=PositiveInt, default=torch.get_num_threads(), help="CPU threads.")
    parser.add_argument(
        "--true_env", type=bool, default=True, help="Play on the true dynamics too, with the same planner and seed."
    )
    parser.add_argument("--video", type=Path | None, default=None, help="Film the first episode: .gif or .mp4.")
    parser.add_argument(
        "--out",
        type=Path | None,
        default=None,
        help="JSON to write; a picture lies beside it (default: RUN/control.json).",
    )
    parser.add_class_arguments(PlanningSettings, None)
    return parser


def play_request(request: PlanRequest) -> dict[str, Any]:
    """Play, print a table, write results and picture; returns the results by method."""
    run, given, settings, _ = request
    torch.set_num_threads(given.threads)
    for path in (request.out, given.video):
        if path is not None:
            check_writable(path)
    agents = choose_agents(run.personalized.agent_ids, given.agents)
    covariates = run.covariates(agents)
    if given.video is not None:
        check_video(run.real_environment(), given.video)
    environment, count = run.real_environment(), given.episodes
    policy, clamped = simulator_mpc(environment, run.personalized, agents, count, settings)
    scores = play_agents(environment, policy, covariates, count, given.seed, PERSIM)
    results = {PERSIM: scores.to_dict(agents)}
    if clamped is not None:
        share = clamped.clamped / max(1, clamped.predicted)
        results[PERSIM]["clamped_share"] = share
        print(f"{clamped.clamped} of {clamped.predicted} predicted coordinates were clamped ({share:.2%})")
    if given.true_env:
        true = true_mpc(environment, covariates.repeat_interleave(count, dim=0), settings)
        played = play_agents(environment, true, covariates, count, given.seed, TRUE_ENV)
        results[TRUE_ENV] = played.to_dict(agents)
    out = request.out
    write_json({"request": request.identity(), "threads": given.threads, "results": results}, out)
    _print(environment.name, count, results)
    picture = draw_first_episodes(environment, scores.episodes, agents, out.with_suffix(".png"))
    made = [out, picture]
    if given.video is not None:
        made.append(film_episode(environment, covariates[0].tolist(), scores.episodes, 0, given.video))
    for path in made:
        print(f"wrote {path}")
    return results


def played_once(run: Path, options: list[str]) -> dict[str, Any]:
    """Results on one run; what was played under the same settings is not played again."""
    request = parse_request(["--run", str(run), *options])
    if request.out.is_file():
        record = read_json(request.out)
        if record.get("request") == request.identity():
            results: dict[str, Any] = record["results"]
            return results
    return play_request(request)


def _print(environment: str, episodes: int, results: dict[str, Any]) -> None:
    columns = [result["agents"] for result in results.values()]
    rows = [[str(records[0]["agent"]), *map(return_cell, records)] for records in zip(*columns, strict=True)]
    speeds = ["decisions/s", *(f"{result['decisions_per_second']:.0f}" for result in results.values())]
    title = f"{environment}: return, mean ± std over {episodes} episodes"
    print_table(title, ("agent", *results), [*rows, speeds])
