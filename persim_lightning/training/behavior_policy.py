"""Trains the behavior policies of the data sets by stable-baselines3 up to a target return (PerSim, section 5).

Uses DQN for discrete and TD3 for continuous actions. stable-baselines3 is an optional dependency, needed to train
policies but not to use them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from persim_lightning.data.collecting.episodes import play
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError, MissingPackageError, PersimError
from persim_lightning.policies.behavior import PolicyInfo, greedy_policy, save_policy

_PACKAGES = ("stable-baselines3", "gymnasium", "mujoco", "torch", "numpy")
_EPISODES = 100
_EVALUATION_SEED = 12345


def train_behavior_policy(
    environment: Environment,
    covariates: tuple[float, ...],
    *,
    algorithm: str,
    settings: dict[str, Any],
    level: float,
    tolerance: float,
    max_steps: int,
    evaluate_every: int,
    evaluation_episodes: int,
    seed: int,
    folder: Path,
    name: str,
) -> PolicyInfo:
    """Train on one agent until the greedy policy's mean return is about `level`, and save its weights.

    The policy is saved at every evaluation that is nearer to the level than all before, so that an interruption loses
    little.

    Parameters
    ----------
    environment : Environment
    covariates : tuple of float
        Covariates of the agent.
    algorithm : {'DQN', 'TD3'}
    settings : dict
        Keyword arguments of the algorithm's class in stable-baselines3. `action_noise` is the standard deviation of
        Gaussian exploration.
    level : float
        Target of the mean return.
    tolerance : float
        Training stops at the first evaluation within this share of the level that a second one over other episodes
        confirms. If returns jump over the level, training continues until they come back.
    max_steps : int
        Environment steps after which training gives up.
    evaluate_every : int
        Environment steps between evaluations.
    evaluation_episodes : int
        Episodes of one evaluation during training.
    seed : int
    folder, name
        Destination, as in :func:`persim_lightning.policies.behavior.save_policy`.

    Returns
    -------
    PolicyInfo
        Includes the return over 100 episodes.

    Raises
    ------
    ConfigurationError
        If stable-baselines3 is not installed, the policy exists, or a setting is invalid.
    PersimError
        If the level is not reached; the nearest weights are still written.
    """
    sb3 = _stable_baselines3()
    if (folder / name).exists():
        raise ConfigurationError(f"{folder / name} exists: remove it, or choose another folder (--out)")
    discrete = environment.num_actions is not None
    if algorithm != ("DQN" if discrete else "TD3"):
        raise ConfigurationError(f"{environment.name}: DQN needs discrete actions, TD3 continuous ones")
    named: dict[str, Any] = environment.covariate_dict(covariates)
    options = dict(settings)
    if "action_noise" in options:
        dims = len(environment.action_names)
        noise = import_module("stable_baselines3.common.noise").NormalActionNoise
        options["action_noise"] = noise(np.zeros(dims), np.full(dims, options["action_noise"]))
    agent_env = gymnasium.make(environment.gym_id, None, **named)
    try:
        model: Any = getattr(sb3, algorithm)("MlpPolicy", agent_env, seed=seed, **options)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"invalid settings of {algorithm} of stable-baselines3: {error}") from error
    agent = torch.tensor([covariates], dtype=torch.float64)

    def evaluate(weights: dict[str, Tensor], episodes: int, evaluation_seed: int) -> Tensor:
        policy = greedy_policy(weights, discrete)
        return play(environment, policy, agent.expand(episodes, -1), environment.max_steps, evaluation_seed).returns

    def is_near(mean: float) -> bool:
        return abs(mean - level) <= tolerance * abs(level)

    def save(weights: dict[str, Tensor], steps: int, returns: Tensor, evaluation_seed: int) -> PolicyInfo:
        info = PolicyInfo(
            environment=environment.name,
            covariates=named,
            algorithm=algorithm,
            settings=settings,
            level=level,
            seed=seed,
            environment_steps=steps,
            episodes=len(returns),
            evaluation_seed=evaluation_seed,
            mean_return=float(returns.mean()),
            std_return=float(returns.std()),
            versions={package: version(package) for package in _PACKAGES},
        )
        save_policy(folder, name, greedy_policy(weights, discrete), info)
        return info

    best: dict[str, Tensor] = {}
    best_steps, best_return = 0, -float("inf")
    reached = False
    with Progress() as progress:
        task = progress.add_task(name, total=max_steps)

        def on_step(local: dict[str, Any], _: dict[str, Any]) -> bool:
            nonlocal best, best_steps, best_return, reached
            steps = model.num_timesteps
            if steps % evaluate_every:
                return True
            weights = _greedy_weights(model, discrete)
            # Another seed than the final evaluation's, which would be biased by the choice of weights.
            returns = evaluate(weights, evaluation_episodes, seed)
            mean = float(returns.mean())
            progress.update(task, completed=steps, description=f"{name}: return {mean:.0f}")
            # Confirm on other episodes, since the nearest of many evaluations is partly luck.
            reached = is_near(mean) and is_near(float(evaluate(weights, evaluation_episodes, seed + 1).mean()))
            if reached or not best or abs(mean - level) < abs(best_return - level):
                progress.console.print(f"{name}: step {steps}, return {mean:.0f} ± {float(returns.std()):.0f}")
                best, best_steps, best_return = weights, steps, mean
                save(weights, steps, returns, seed)
            return not reached

        model.learn(max_steps, callback=on_step)
    if not best:
        raise ConfigurationError(f"evaluate_every {evaluate_every} is more than max_steps {max_steps}")
    info = save(best, best_steps, evaluate(best, _EPISODES, _EVALUATION_SEED), _EVALUATION_SEED)
    if not reached:
        raise PersimError(
            f"{name}: {max_steps} steps did not end near a return of {level:g} (nearest: {info.mean_return:.0f}, "
            f"written to {folder}); try another seed or more steps"
        )
    return info


def _stable_baselines3() -> ModuleType:
    try:
        return import_module("stable_baselines3")
    except ImportError as error:
        raise MissingPackageError("training of policies", "stable-baselines3", "policies") from error


def _greedy_weights(model: Any, discrete: bool) -> dict[str, Tensor]:
    """Copy the linear layers of the policy without exploration."""
    network = model.policy.q_net.q_net if discrete else model.policy.actor.mu
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
