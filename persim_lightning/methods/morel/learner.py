"""MOReL: model-based offline reinforcement learning (Kidambi et al., 2020, https://arxiv.org/abs/2005.05951).

An ensemble of dynamics models is learned; where its members disagree, an episode on it halts at a price; a policy,
cloned from the recorded behavior, is improved on that pessimistic model.
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
from persim_lightning.errors import ConfigurationError, TableError
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
        Networks of the ensemble, and their two hidden layers.
    batch_size : int
        Transitions of a gradient step of each network.
    beta : float
        State-action pairs are unknown where the members disagree by more than β standard deviations above the mean of
        the recorded pairs.
    kappa : float
        What an unknown pair costs in each of all steps to come, on top of the worst recorded reward; in units of
        rewards.
    starts : {'any', 'first'}
        Simulated episodes begin in any recorded state that was left again, or in those in which trajectories began.
        From 'any', rewards are found that exploration from the first states would not reach.
    policy_width : int
        Two hidden layers of the policy.
    cloning_steps : int
        Gradient steps of the policy's warm start.
    policy_steps : int
        Simulated steps of policy optimization; 0 leaves the cloned policy as it is.
    episodes : int
        Simulated in parallel.
    rollout : int
        Steps of each between two updates of the policy.
    discount, trace, divergence : float
        Of TRPO: discount (below one), λ of the generalized advantages, and the Kullback-Leibler divergence of an
        update.
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
            raise ConfigurationError("discount 1: must be below 1, or to halt would cost infinitely much")
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
            raise TableError(f"no column '{trajectories.schema.reward}', so what {self.name}'s HALT costs is unknown")
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
        # Rewards such that HALT costs 1: whatever their units, the critic then meets values of about that size.
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
        """States in which trajectories of a transition or more began, shape (S, D)."""
        return trajectories.state[trajectories.offsets[:-1][trajectories.lengths > 1]]


def _trust_region() -> Any:
    # stable-baselines3 imports the old gym where it is installed, which then prints that it is unmaintained.
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return import_module("persim_lightning.methods.morel.trust_region")
        except ImportError as error:
            raise ConfigurationError("MOReL needs sb3-contrib: pip install 'persim-lightning[baselines]'") from error
