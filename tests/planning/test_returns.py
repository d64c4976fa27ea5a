"""Scores of plans: the fast path against whole trajectories; termination, pessimism and clamping."""

import pytest
import torch

from persim_lightning.models.agent_simulator import personalize
from persim_lightning.models.rollout import rollout
from persim_lightning.planning.actions import Discrete
from persim_lightning.planning.mpc import MPC
from persim_lightning.planning.objective import Objective, Peak, trajectory_values
from persim_lightning.planning.planner import Decision, Planner
from persim_lightning.planning.returns import ClampedDynamics, EnsembleReturns, TrajectoryReturns
from persim_lightning.planning.shared_noise import SharedNoise
from tests.conftest import random_actions, random_simulator


def reward(states, actions, following):
    cost = actions.float() if actions.ndim < states.ndim else actions.sum(-1)
    return following[..., 0] - 0.1 * cost + states[..., 1]


def terminated(states):
    return states[..., 2] > 0.4


def never(states):
    return torch.zeros(states.shape[:-1], dtype=torch.bool)


def value_by_hand(objective, states, actions):
    """One trajectory, one step at a time."""
    total, top = 0.0, -torch.inf
    for h in range(len(actions)):
        total += float(objective.reward(states[h], actions[h], states[h + 1]))
        if objective.peak:
            top = max(top, float(states[h + 1][objective.peak.coordinate]))
        if objective.terminated(states[h + 1]):
            break
    return total + (objective.peak.weight * top if objective.peak else 0.0)


@torch.no_grad()
@pytest.mark.parametrize("peak", [None, Peak(1, 2.5)])
@pytest.mark.parametrize("ends", [terminated, never])
@pytest.mark.parametrize("num_actions", [4, None])
@pytest.mark.parametrize("pessimism", [0.0, 0.7])
def test_fast_scores_equal_trajectories_scored_one_by_one(num_actions, ends, peak, pessimism):
    simulator = random_simulator("cp", num_actions, wall=2.0).double()
    chosen = personalize(simulator, 4, 1)
    objective = Objective(reward, ends, peak)
    states, agents = torch.randn(3, 3).double(), torch.tensor([0, 0, 1])
    plans = random_actions(num_actions, 3, 40, 12)
    plans = plans.double() if num_actions is None else plans
    scores = EnsembleReturns(chosen, objective, states, agents, pessimism)(plans)
    for row in range(3):
        index = torch.full((40,), (4, 1)[agents[row]])
        trajectories = simulator.rollout(index, states[row].expand(40, -1), plans[row])
        values = torch.tensor(
            [
                [value_by_hand(objective, trajectories[m, p], plans[row, p]) for p in range(40)]
                for m in range(simulator.members)
            ]
        )
        expected = values.mean(0) - pessimism * values.std(0, correction=0)
        torch.testing.assert_close(scores[row].float(), expected.float(), atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_trajectory_returns_equal_the_fast_path_and_values_by_hand():
    simulator = random_simulator("cp", 4)
    objective = Objective(reward, terminated, Peak(0, 1.0))
    states, plans = torch.randn(2, 3), torch.randint(4, (2, 7, 9))

    def rollout(states, plans):
        flat = simulator.rollout(torch.zeros(14, dtype=torch.long), states.repeat_interleave(7, 0), plans.flatten(0, 1))
        return flat.unflatten(1, (2, 7))

    slow = TrajectoryReturns(rollout, objective, states)(plans)
    fast = EnsembleReturns(personalize(simulator, 0), objective, states, torch.zeros(2, dtype=torch.long))(plans)
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-4)
    trajectories = rollout(states, plans)
    values = trajectory_values(objective, trajectories, plans.expand(3, -1, -1, -1))
    assert values[1, 1, 3].item() == pytest.approx(
        value_by_hand(objective, trajectories[1, 1, 3], plans[1, 3]), abs=1e-4
    )


class Drift:
    """One member that moves by action and noise; rows last in memory, the layout that planners expect."""

    members = 1

    def __init__(self, noise):
        self._noise = noise

    def step(self, states, actions, agents):
        moved = states + self._noise.next((1, 3, 1), states.device).mT
        moved[..., 0] += actions
        return moved.mT.contiguous().mT


@torch.no_grad()
def test_all_blocks_of_plans_have_the_same_noise(monkeypatch):
    states, agents = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    plans = torch.randint(3, (2, 10, 4), generator=torch.Generator().manual_seed(0))
    plans[1] = plans[0]

    def score():
        noise = SharedNoise(torch.Generator().manual_seed(1))
        returns = EnsembleReturns(Drift(noise), Objective(reward, never), states, agents, noise=noise)
        return returns(plans), returns(plans)

    whole, again = score()
    assert torch.equal(whole[0], whole[1])
    # The next decision has new noise.
    assert not torch.allclose(whole, again)
    monkeypatch.setattr("persim_lightning.planning.returns._BLOCK_ROWS", 7)
    torch.testing.assert_close(score()[0], whole)


@torch.no_grad()
def test_blocks_of_plans_score_as_one(monkeypatch):
    simulator = personalize(random_simulator("cp", 4).double(), 0, 3)
    objective = Objective(reward, terminated)
    returns = EnsembleReturns(simulator, objective, torch.randn(4, 3).double(), torch.tensor([0, 0, 1, 1]))
    plans = torch.randint(4, (4, 25, 8))
    whole = returns(plans)
    monkeypatch.setattr("persim_lightning.planning.returns._BLOCK_ROWS", 9)
    torch.testing.assert_close(returns(plans), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_clamping_keeps_states_in_range_and_is_counted():
    simulator = personalize(random_simulator("cp", 4), 2)
    low, high = torch.full((3,), -0.5), torch.tensor([0.5, 0.5, torch.inf])
    clamped = ClampedDynamics(simulator, low, high)
    states, actions = torch.zeros(3, 5, 3), torch.randint(4, (5,))
    free = simulator.step(states, actions)
    inside = clamped.step(states, actions, torch.zeros(5, dtype=torch.long))
    assert torch.equal(inside, free.clamp(low, high))
    assert clamped.clamped == int((free != inside).sum()) > 0
    assert clamped.predicted == free.numel()


class Remember(Planner):
    """Plays the number of the decision and records the memory of every problem."""

    def __init__(self):
        self.seen = []

    def plan(self, problem, memory, generator):
        ages = torch.zeros(problem.batch) if memory is None else memory[0] + 1
        self.seen.append(ages.tolist())
        plan = ages.long()[:, None].expand(-1, problem.horizon)
        return Decision(plan, problem.score(plan[:, None])[:, 0], (ages,))


def test_mpc_plays_first_actions_and_drops_ended_episodes():
    planner, rows_seen = Remember(), []

    def make_score(states, rows):
        rows_seen.append(rows.tolist())
        assert len(states) == len(rows)
        return lambda plans: plans.float().sum((1, 2))[:, None]

    policy = MPC(planner, Discrete(9), 3, make_score, lambda states: states[..., 0] > 0, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    going, ended = torch.zeros(3, 1), torch.tensor([[0.0], [1.0], [0.0]])
    assert policy(going, generator).tolist() == [0, 0, 0]
    assert policy(ended, generator).tolist() == [1, 0, 1]
    # An ended episode stays ended, even if its state is not terminal any more.
    assert policy(going, generator).tolist() == [2, 0, 2]
    assert rows_seen == [[0, 1, 2], [0, 2], [0, 2]]
    assert planner.seen == [[0, 0, 0], [1, 1], [2, 2]]


@torch.no_grad()
@pytest.mark.parametrize("ends", [terminated, never])
@pytest.mark.parametrize("alike", [0, 5, 12])
def test_plans_that_begin_alike_share_it_and_score_as_alone(ends, alike):
    """The first `alike` of 12 actions are those of one of three plans, so that plans differ late or never."""
    simulator = personalize(random_simulator("cp", 4).double(), 0, 3)
    objective = Objective(reward, ends, Peak(1, 0.5))
    states, agents = torch.randn(3, 3).double(), torch.tensor([0, 0, 1])
    plans = torch.randint(4, (3, 60, 12))
    plans[:, :, :alike] = plans[:, torch.arange(60) % 3, :alike]
    steps = []

    class Counting:
        members = simulator.members

        def step(self, states, actions, agents):
            steps.append(states.shape[1])
            return simulator.step(states, actions, agents)

    scores = EnsembleReturns(Counting(), objective, states, agents)(plans)
    if alike:
        assert max(steps[:alike]) <= 9
    for row in range(3):
        for plan in (0, 1, 31, 59):
            one = EnsembleReturns(simulator, objective, states[row : row + 1], agents[row : row + 1])
            torch.testing.assert_close(scores[row, plan], one(plans[row : row + 1, plan : plan + 1])[0, 0])


@torch.no_grad()
@pytest.mark.parametrize("slow", [False, True])
def test_a_plan_whose_states_break_is_not_finite_whatever_the_reward(slow):
    """Reward 1 per step, as in CartPole: otherwise a plan with NaN states would never end and would win."""
    simulator = random_simulator("cp", 4)
    simulator.delta_rms.fill_(torch.nan)
    alive = Objective(lambda states, actions, following: torch.ones_like(following[..., 0]), terminated)
    states, plans = torch.zeros(1, 3), torch.randint(4, (1, 5, 6))
    if slow:

        def rollout(states, plans):
            owner = torch.zeros(5, dtype=torch.long)
            return simulator.rollout(owner, states.expand(5, -1), plans[0])[:, None]

        scores = TrajectoryReturns(rollout, alive, states)(plans)
    else:
        scores = EnsembleReturns(personalize(simulator, 0), alive, states, torch.zeros(1, dtype=torch.long))(plans)
    assert scores.isnan().all()


@pytest.mark.parametrize("slow", [False, True])
def test_one_broken_plan_spoils_no_other(slow):
    """NaN before a plan ends makes its score NaN; after it ends, and for other plans, it does not count."""

    class Falling:
        members = 1

        def step(self, states, actions, agents):
            # Action 1 breaks the state, action 2 ends the episode.
            moved = states + 1
            moved = torch.where((actions == 2)[None, :, None], torch.full_like(moved, -5.0), moved)
            return torch.where((actions == 1)[None, :, None], torch.full_like(moved, torch.nan), moved)

    dynamics = Falling()
    objective = Objective(
        lambda states, actions, following: torch.ones_like(following[..., 0]), lambda s: s[..., 0] < 0
    )
    plans = torch.tensor([[[0] * 7, [0, 1, 0, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 2, 1]]])
    states = torch.zeros(1, 1)
    if slow:
        paths = rollout(lambda s, a: dynamics.step(s, a, None), 1, states.expand(4, -1), plans[0])
        scores = trajectory_values(objective, paths, plans)[0]
    else:
        scores = EnsembleReturns(dynamics, objective, states, torch.zeros(1, dtype=torch.long))(plans)[0]
    assert scores[0] == 7
    assert scores[1].isnan()
    assert scores[2] == 1
    assert scores[3] == 6
