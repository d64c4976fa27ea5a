"""`persim train-policy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.policies.behavior import policy_name
from persim_lightning.support.configurations import with_paths
from persim_lightning.support.parsing import SettingsParser
from persim_lightning.training.behavior_policy import train_behavior_policy


def main(arguments: list[str]) -> None:
    """Train the behavior policy of one agent."""
    parser = SettingsParser(prog="persim train-policy", description=(train_policy.__doc__ or "").split("\n")[0])
    parser.add_argument("--config", action="config", help="Name or YAML of these options, such as cartpole.")
    parser.add_function_arguments(train_policy)
    args = parser.instantiate_classes(parser.parse_args(with_paths(arguments, "policies")))
    del args["config"]
    train_policy(**args.as_dict())


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
        out: Folder that receives a folder ENV_AGENT with policy.safetensors and policy.json.
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
        f"{info.environment_steps} steps; wrote {out / policy_name(env, agent)}"
    )
