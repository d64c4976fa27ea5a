"""MOReL: model-based offline reinforcement learning (Kidambi et al., 2020, https://arxiv.org/abs/2005.05951).

It learns an ensemble of dynamics models, on which episodes halt with a penalty where the members disagree. A policy
cloned from the recorded behavior is then improved on this pessimistic model.
"""

from __future__ import annotations

import contextlib
import io
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError, MissingPackageError, TableError
from persim_lightning.methods.contract import Learner
from persim_lightning.methods.morel.dynamics_ensemble import fit_dynamics_ensemble
from persim_lightning.methods.morel.pessimistic_mdp import PessimisticMDP, pessimism_of
from persim_lightning.policies.learned import LearnedPolicy, load_learned_policy
from persim_lightning.policies.networks import Net
from persim_lightning.policies.rules import ClippedMean, HighestLogit


class MOReL(Learner):
    """Learns on a pessimistic model of the recorded trajectories.

    Parameters
    ----------
    members, width : int
        Number of networks, and the width of their two hidden layers.
    batch_size : int
        Transitions of a gradient step of each network.
    beta : float
        State-action pairs are unknown if the members' disagreement exceeds the recorded pairs' mean by more than β
        standard deviations.
    kappa : float
        Penalty of an unknown pair in every future step, below the worst recorded reward; in units of rewards.
    starts : {'any', 'first'}
        Start simulated episodes in any recorded state but the last ones, or in the first states of trajectories. 'any'
        reaches rewards that exploration from the first states would not.
    policy_width : int
        Width of the policy's two hidden layers.
    cloning_steps : int
        Gradient steps of the policy's warm start.
    policy_steps : int
        Simulated steps of policy optimization; 0 keeps the cloned policy.
    episodes : int
        Number of episodes simulated in parallel.
    rollout : int
        Steps of each episode between two updates of the policy.
    discount, trace, divergence : float
        Settings of TRPO: discount (below one), λ of the generalized advantages, and the Kullback-Leibler divergence of
        an update.
    """

    def __init__(
        self,
        members: PositiveInt = 4,
        width: PositiveInt = 512,
        batch_size: PositiveInt = 128,
        beta: NonNegativeFloat = 5.0,
        kappa: PositiveFloat = 1.0,
        starts: Literal["any", "first"] = "any",
        policy_width: PositiveInt = 32,
        cloning_steps: NonNegativeInt = 1000,
        policy_steps: NonNegativeInt = 300_000,
        episodes: PositiveInt = 100,
        rollout: PositiveInt = 100,
        discount: ClosedUnitInterval = 0.99,
        trace: ClosedUnitInterval = 0.95,
        divergence: PositiveFloat = 0.02,
    ) -> None:
        if members < 2:
            raise ConfigurationError(f"members {members}: at least 2, or they cannot disagree")
        if discount == 1:
            raise ConfigurationError("discount 1: must be below 1, or the penalty of HALT is infinite")
        if episodes * rollout < 2:
            raise ConfigurationError("episodes 1 and rollout 1: an update needs more than one step")
        self._members, self._width, self._batch_size = members, width, batch_size
        self._beta, self._kappa, self._starts = beta, kappa, starts
        self._episodes, self._discount = episodes, discount
        self._policy = {
            "width": policy_width,
            "cloning_steps": cloning_steps,
            "policy_steps": policy_steps,
            "rollout": rollout,
            "discount": discount,
            "trace": trace,
            "divergence": divergence,
        }

    @property
    def name(self) -> str:
        return "MOReL"

    def learn(self, trajectories: Trajectories, environment: Environment, steps: int, seed: int) -> LearnedPolicy:
        """See :meth:`persim_lightning.methods.contract.Learner.learn`."""
        trust_region = _trust_region()
        if trajectories.reward is None:
            raise TableError(f"no column '{trajectories.schema.reward}', so the penalty of HALT is unknown")
        ensemble = fit_dynamics_ensemble(
            trajectories,
            members=self._members,
            width=self._width,
            batch_size=self._batch_size,
            steps=steps,
            seed=seed,
        )
        rows, _ = trajectories.split_rows(0.0)
        states, actions = trajectories.state[rows], trajectories.action[rows]
        disagreement = ensemble.disagreement(states, actions)
        pessimism = pessimism_of(disagreement, trajectories.reward[rows], self._beta, self._kappa, self._discount)
        starts = states if self._starts == "any" else self._first(trajectories)
        mdp = PessimisticMDP(ensemble, environment, starts, pessimism, self._episodes)
        mean, std = ensemble.scales.state_mean, ensemble.scales.state_std
        # Scale rewards so that HALT costs 1, which gives the critic values of about that size in any units.
        episodes = trust_region.StandardizedEpisodes(mdp, mean.numpy(), std.numpy(), -1 / pessimism.halt_reward)
        actor: Net = trust_region.optimize_policy(
            episodes, (states - mean) / std, actions, trust_region.TrustRegion(**self._policy), seed
        )
        facts = {
            "threshold": pessimism.threshold,
            "halt_reward": pessimism.halt_reward,
            "recorded_pairs_known": float((disagreement <= pessimism.threshold).double().mean()),
        }
        return LearnedPolicy(self._rule(environment)(actor), mean, std, facts)

    def load(self, folder: Path, environment: Environment) -> LearnedPolicy:
        """See :meth:`persim_lightning.methods.contract.Learner.load`."""
        return load_learned_policy(folder, self._rule(environment), environment)

    @staticmethod
    def _rule(environment: Environment) -> type[HighestLogit] | type[ClippedMean]:
        return ClippedMean if environment.num_actions is None else HighestLogit

    @staticmethod
    def _first(trajectories: Trajectories) -> Tensor:
        """Return the first states of trajectories with at least one transition, shape (S, D)."""
        return trajectories.state[trajectories.offsets[:-1][trajectories.lengths > 1]]


def _trust_region() -> Any:
    # stable-baselines3 imports the old gym if installed, which prints a warning.
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return import_module("persim_lightning.methods.morel.trust_region")
        except ImportError as error:
            raise MissingPackageError("MOReL", "sb3-contrib", "baselines") from error
