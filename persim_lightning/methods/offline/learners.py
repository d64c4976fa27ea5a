"""Offline reinforcement learning without a model, through d3rlpy: BCQ and CQL.

d3rlpy is an optional dependency, needed to learn policies but not to use them.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from jsonargparse.typing import OpenUnitInterval, PositiveFloat, PositiveInt

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.methods.contract import Learner
from persim_lightning.methods.offline.d3rlpy_training import TransitionTable, copy_net, import_d3rlpy, train
from persim_lightning.policies.learned import LearnedPolicy, load_learned_policy
from persim_lightning.policies.rules import BestOfSamples, HighestLikelyValue, HighestValue, Rule, SquashedMean


class _D3rlpyLearner(Learner):
    """Base of BCQ and CQL: trains an algorithm of d3rlpy, and copies its networks into a rule that acts.

    Subclasses configure the algorithm and choose the networks for each kind of actions.
    """

    # For discrete and for continuous actions.
    _rules: tuple[type[Rule], type[Rule]]

    def __init__(self, hidden: tuple[int, ...], batch: int, discount: float, reward_size: float) -> None:
        self._hidden, self._batch, self._discount, self._reward_size = tuple(hidden), batch, discount, reward_size

    def learn(self, trajectories: Trajectories, environment: Environment, steps: int, seed: int) -> LearnedPolicy:
        d3rlpy = import_d3rlpy()
        table = TransitionTable.of(trajectories, environment, self._reward_size)
        encoder = d3rlpy.models.VectorEncoderFactory(list(self._hidden))
        shared = {"batch_size": self._batch, "gamma": self._discount}
        depth = len(self._hidden) + 1
        if environment.num_actions is not None:
            config = self._discrete_config(d3rlpy.algos, encoder, shared)
            trained = train(d3rlpy, config, table, environment.num_actions, steps, seed, self.name)
            rule = self._discrete_rule(trained.impl.modules, depth)
        else:
            config = self._continuous_config(d3rlpy.algos, encoder, shared)
            trained = train(d3rlpy, config, table, len(environment.action_names), steps, seed, self.name)
            rule = self._continuous_rule(trained.impl.modules, depth)
        return LearnedPolicy(rule, table.mean, table.std)

    def load(self, folder: Path, environment: Environment) -> LearnedPolicy:
        discrete, continuous = self._rules
        return load_learned_policy(folder, continuous if environment.num_actions is None else discrete, environment)

    @abstractmethod
    def _discrete_config(self, algorithms: Any, encoder: Any, shared: dict[str, Any]) -> Any: ...

    @abstractmethod
    def _discrete_rule(self, modules: Any, depth: int) -> Rule: ...

    @abstractmethod
    def _continuous_config(self, algorithms: Any, encoder: Any, shared: dict[str, Any]) -> Any: ...

    @abstractmethod
    def _continuous_rule(self, modules: Any, depth: int) -> Rule: ...


class BCQ(_D3rlpyLearner):
    """Batch-constrained Q-learning: maximizes values only over actions that the data support.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers of every network.
    learning_rate : float
    batch : int
        Transitions of a gradient step.
    discount : float
    reward_size : float
        Root mean square of scaled rewards.
    target_interval : int
        Gradient steps between copies of the value network to its target; discrete actions only.
    threshold : float
        Minimum probability of an action in the data, as a share of the most likely action's; discrete actions only.
    logit_penalty : float
        Weight of the squared logits of the behavior network; discrete actions only. d3rlpy's default .5 shrinks the
        probabilities of even a deterministic behavior to within the threshold.
    target_rate : float
        Rate of the running average of target networks; continuous actions only.
    flexibility : float
        Largest perturbation of a sampled action; continuous actions only.
    samples : int
        Number of sampled actions, of which the best is used in targets and in acting; continuous actions only.

    References
    ----------
    Fujimoto et al. (2019), Off-policy deep reinforcement learning without exploration; for discrete actions, Fujimoto
    et al. (2019), Benchmarking batch deep reinforcement learning algorithms.
    """

    _rules = HighestLikelyValue, BestOfSamples

    def __init__(
        self,
        hidden: tuple[PositiveInt, ...] = (256, 256),
        learning_rate: PositiveFloat = 1e-3,
        batch: PositiveInt = 256,
        discount: OpenUnitInterval = 0.99,
        reward_size: PositiveFloat = 0.1,
        target_interval: PositiveInt = 100,
        threshold: OpenUnitInterval = 0.3,
        logit_penalty: PositiveFloat = 1e-2,
        target_rate: OpenUnitInterval = 0.005,
        flexibility: PositiveFloat = 0.05,
        samples: PositiveInt = 10,
    ) -> None:
        super().__init__(hidden, batch, discount, reward_size)
        self._rate, self._target_interval, self._target_rate = learning_rate, target_interval, target_rate
        self._threshold, self._logit_penalty = threshold, logit_penalty
        self._flexibility, self._samples = flexibility, samples

    @property
    def name(self) -> str:
        return "BCQ"

    def _discrete_config(self, algorithms: Any, encoder: Any, shared: dict[str, Any]) -> Any:
        return algorithms.DiscreteBCQConfig(
            learning_rate=self._rate,
            encoder_factory=encoder,
            action_flexibility=self._threshold,
            beta=self._logit_penalty,
            target_update_interval=self._target_interval,
            share_encoder=False,
            **shared,
        )

    def _discrete_rule(self, modules: Any, depth: int) -> HighestLikelyValue:
        return HighestLikelyValue(
            copy_net(modules.q_funcs[0], depth), copy_net(modules.imitator, depth), self._threshold
        )

    def _continuous_config(self, algorithms: Any, encoder: Any, shared: dict[str, Any]) -> Any:
        return algorithms.BCQConfig(
            **{f"{part}_learning_rate": self._rate for part in ("actor", "critic", "imitator")},
            **{f"{part}_encoder_factory": encoder for part in ("actor", "critic", "imitator")},
            tau=self._target_rate,
            action_flexibility=self._flexibility,
            n_action_samples=self._samples,
            **shared,
        )

    def _continuous_rule(self, modules: Any, depth: int) -> BestOfSamples:
        decoder, perturbation, value = (
            copy_net(net, depth) for net in (modules.vae_decoder, modules.policy, modules.q_funcs[0])
        )
        return BestOfSamples(decoder, perturbation, value, self._flexibility, self._samples)


class CQL(_D3rlpyLearner):
    """Conservative Q-learning: penalizes values of actions that are not in the data.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers of every network.
    learning_rate : float
        Learning rate of the values.
    actor_rate : float
        Learning rate of the policy; continuous actions only.
    batch : int
        Transitions of a gradient step.
    discount : float
    reward_size : float
        Root mean square of scaled rewards. Larger rewards lower the relative weight of the penalty.
    conservatism : float
        Weight of the penalty on values of actions that are not in the data.
    target_interval : int
        Gradient steps between copies of the value network to its target; discrete actions only.
    target_rate : float
        Rate of the running average of target networks; continuous actions only.
    samples : int
        Number of actions of each of three kinds that estimate the penalty; continuous actions only.

    References
    ----------
    Kumar et al. (2020), Conservative Q-learning for offline reinforcement learning.
    """

    _rules = HighestValue, SquashedMean

    def __init__(
        self,
        hidden: tuple[PositiveInt, ...] = (256, 256),
        learning_rate: PositiveFloat = 1e-3,
        actor_rate: PositiveFloat = 1e-3,
        batch: PositiveInt = 256,
        discount: OpenUnitInterval = 0.99,
        reward_size: PositiveFloat = 1.0,
        conservatism: PositiveFloat = 1.0,
        target_interval: PositiveInt = 100,
        target_rate: OpenUnitInterval = 0.005,
        samples: PositiveInt = 10,
    ) -> None:
        super().__init__(hidden, batch, discount, reward_size)
        self._rate, self._actor_rate, self._conservatism = learning_rate, actor_rate, conservatism
        self._target_interval, self._target_rate, self._samples = target_interval, target_rate, samples

    @property
    def name(self) -> str:
        return "CQL"

    def _discrete_config(self, algorithms: Any, encoder: Any, shared: dict[str, Any]) -> Any:
        return algorithms.DiscreteCQLConfig(
            learning_rate=self._rate,
            encoder_factory=encoder,
            alpha=self._conservatism,
            target_update_interval=self._target_interval,
            **shared,
        )

    def _discrete_rule(self, modules: Any, depth: int) -> HighestValue:
        return HighestValue(copy_net(modules.q_funcs[0], depth))

    def _continuous_config(self, algorithms: Any, encoder: Any, shared: dict[str, Any]) -> Any:
        return algorithms.CQLConfig(
            actor_learning_rate=self._actor_rate,
            critic_learning_rate=self._rate,
            temp_learning_rate=self._actor_rate,
            # The temperature has the units of a reward.
            initial_temperature=self._reward_size,
            # Fixed weight, as in the paper's MuJoCo experiments.
            alpha_learning_rate=0.0,
            conservative_weight=self._conservatism,
            actor_encoder_factory=encoder,
            critic_encoder_factory=encoder,
            tau=self._target_rate,
            n_action_samples=self._samples,
            **shared,
        )

    def _continuous_rule(self, modules: Any, depth: int) -> SquashedMean:
        return SquashedMean(copy_net(modules.policy, depth))
