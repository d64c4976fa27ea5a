"""The small commands: `tools/collect.py`, `tools/evaluate.py` and `tools/train_policy.py`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.data.collecting.card import MARKDOWN
from persim_lightning.data.collecting.collect import ensure_test_data, ensure_training_data
from persim_lightning.data.collecting.policies import policy_name
from persim_lightning.envs import ENVIRONMENTS, get_environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.report import evaluate, without_agents
from persim_lightning.models.population import FittedPopulation
from persim_lightning.runs.fit import OneLineParser, print_scores
from persim_lightning.studies.prediction import COMPLETION, METHODS, study, table_rows, write_study
from persim_lightning.support.files import write_json
from persim_lightning.support.terminal import print_table
from persim_lightning.training.behavior_policy import train_behavior_policy


def collect_command(args: list[str] | None = None) -> None:
    """Make a data set: training and test trajectories, the agents' covariates, and cards that describe them."""
    parser = argparse.ArgumentParser(prog="collect.py", description=collect_command.__doc__)
    parser.add_argument("--env", required=True, choices=list(ENVIRONMENTS))
    parser.add_argument("--policy", default="random", choices=DATASETS, help="who moves the training agents")
    parser.add_argument(
        "--split",
        default="all",
        choices=("all", "train", "test"),
        help="training trajectories, test trajectories (always under the test policy), or both (default)",
    )
    parser.add_argument("--agents", type=int, default=500, help="size of the population (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="population and trajectories (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of data sets (default: %(default)s)")
    given = parser.parse_args(args)
    environment = get_environment(given.env)
    tables: list[Path] = []
    if given.split != "test":
        tables += ensure_training_data(given.root, environment, given.policy, given.agents, given.seed)
    if given.split != "train":
        tables.append(ensure_test_data(given.root, environment, given.seed))
    for path in tables:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    for folder in dict.fromkeys(path.parent for path in tables):
        print(f"what {folder} holds: {folder / MARKDOWN}")


def evaluate_command(args: list[str] | None = None) -> None:
    """Score 50-step rollouts per agent: of one run on a table of test trajectories, or of all data sets (Table 1)."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description=f"{evaluate_command.__doc__} Examples: python tools/evaluate.py --run RUN --data test.parquet; "
        "python tools/evaluate.py --all --env mountaincar --completion -- --data.agents 40",
    )
    one = parser.add_argument_group("one run")
    one.add_argument("--run", type=Path, help="run folder of tools/fit.py")
    one.add_argument("--data", type=Path, help="test trajectories, .parquet or .csv")
    one.add_argument(
        "--mean_agent", action="store_true", help="give every agent the population's mean factor, for comparison"
    )
    one.add_argument("--out", type=Path, help="JSON to write (default: RUN/prediction-NAME[-mean-agent].json)")
    table = parser.add_argument_group("all data sets")
    table.add_argument("--all", action="store_true", help="fit, or reuse, a run for each of the four data sets")
    table.add_argument("--env", nargs="+", choices=list(ENVIRONMENTS), default=list(ENVIRONMENTS), help="default: all")
    table.add_argument(
        "--without_agents", action="store_true", help="fit models whose agent factors are switched off, too"
    )
    table.add_argument(
        "--completion", action="store_true", help="complete the tensor of the binned data without networks, too"
    )
    table.add_argument("--conf", type=Path, default=Path("conf"), help="folder of ENV.yaml (default: %(default)s)")
    table.add_argument("--runs", type=Path, default=Path("runs/table1"), help="run folders (default: %(default)s)")
    table.add_argument("--root", type=Path, default=Path("data"), help="folder of data sets (default: %(default)s)")
    table.add_argument("options", nargs="*", help="further options of tools/fit.py for every run, after --")
    given = parser.parse_args(args)
    if given.all:
        if given.run or given.data or given.mean_agent or given.out:
            parser.error("--run, --data, --mean_agent and --out belong to a single run, not to --all")
        _evaluate_all(given)
    elif given.completion or given.without_agents:
        parser.error("--completion and --without_agents belong to --all")
    elif given.options or given.run is None or given.data is None:
        parser.error("give --run and --data and nothing after them, or --all")
    else:
        _evaluate_run(given)


def _evaluate_run(given: argparse.Namespace) -> None:
    personalized = FittedPopulation.load(given.run)
    if given.mean_agent:
        personalized = without_agents(personalized)
    records = evaluate(personalized, given.data)
    suffix = "-mean-agent" if given.mean_agent else ""
    out = given.out or given.run / f"prediction-{given.data.stem}{suffix}.json"
    write_json(records, out)
    print_scores(records, f"50-step rollouts on {given.data.name}")
    print(f"wrote {out}")


def _evaluate_all(given: argparse.Namespace) -> None:
    methods = list(METHODS) if given.without_agents else ["PerSim"]
    if given.completion:
        methods.append(COMPLETION)
    cells = study(given.env, methods, given.conf, given.runs, given.root, given.options)
    for environment in given.env:
        headings, *rows = table_rows(cells, environment)
        narrow = [[cell.replace(" (", "\n(") for cell in row] for row in rows]
        print_table(f"{environment}: mean RMSE (median R²) of 50-step rollouts", headings, narrow)
    for path in write_study(cells, given.runs):
        print(f"wrote {path}")


def train_policy(
    env: Literal["mountaincar", "cartpole", "halfcheetah"],
    algorithm: Literal["DQN", "TD3"],
    settings: dict[str, Any],
    pure_level: float,
    test_level: float,
    tolerance: PositiveFloat,
    max_steps: PositiveInt,
    evaluate_every: PositiveInt,
    evaluation_episodes: PositiveInt,
    agent: str = "test",
    seed: NonNegativeInt = 0,
    threads: PositiveInt = 1,
    out: Path = Path("policies"),
) -> None:
    """Train the behavior policy of one agent by stable-baselines3, until it has about a wanted return.

    Args:
        env: Environment.
        algorithm: DQN for discrete actions, TD3 for continuous ones.
        settings: Hyperparameters, as the algorithm's class in stable-baselines3 takes them.
        pure_level: Mean return at which training on a policy-training agent stops.
        test_level: Mean return at which training on the default agent stops.
        tolerance: Share of the level within which a return counts as having reached it.
        max_steps: Environment steps after which training gives up.
        evaluate_every: Environment steps between evaluations.
        evaluation_episodes: Episodes of one evaluation during training.
        agent: Position of a policy-training agent (0, 1, …), or test for the default agent.
        seed: Seed of networks, exploration and environment.
        threads: CPU threads.
        out: Folder that receives ENV_AGENT.safetensors and ENV_AGENT.json.
    """
    torch.set_num_threads(threads)
    environment = get_environment(env)
    trained_on = {str(index): covariates for index, covariates in enumerate(environment.policy_training_agents)}
    trained_on["test"] = environment.default_agent
    if agent not in trained_on:
        raise ConfigurationError(f"--agent {agent}: choose from {', '.join(trained_on)}")
    info = train_behavior_policy(
        environment,
        trained_on[agent],
        algorithm=algorithm,
        settings=settings,
        level=test_level if agent == "test" else pure_level,
        tolerance=tolerance,
        max_steps=max_steps,
        evaluate_every=evaluate_every,
        evaluation_episodes=evaluation_episodes,
        seed=seed,
        folder=out,
        name=policy_name(env, agent),
    )
    print(
        f"return {info.mean_return:.0f} ± {info.std_return:.0f} over {info.episodes} episodes after "
        f"{info.environment_steps} steps; wrote {out / policy_name(env, agent)}.safetensors and .json"
    )


def train_policy_command(args: list[str] | None = None) -> None:
    """Parse the command line of :func:`train_policy` and run it."""
    parser = OneLineParser(prog="train_policy.py", description=(train_policy.__doc__ or "").split("\n")[0])
    parser.add_argument("--config", action="config", help="YAML of these options, such as conf/policies/cartpole.yaml")
    parser.add_function_arguments(train_policy)
    given = parser.instantiate_classes(parser.parse_args(args))
    del given["config"]
    train_policy(**given.as_dict())
