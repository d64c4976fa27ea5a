"""Planners on objectives whose best plan is known."""

import pytest
import torch

from persim_lightning.planning.actions import Box, Discrete
from persim_lightning.planning.cem import CEM
from persim_lightning.planning.icem import ICEM
from persim_lightning.planning.mppi import MPPI
from persim_lightning.planning.noise import colored
from persim_lightning.planning.planner import Problem, evaluate
from persim_lightning.planning.shooting import RandomShooting

HORIZON = 6
PLANNERS = {
    "shooting": RandomShooting(plans=4000),
    "cem": CEM(plans=200, rounds=8, elites=20),
    "icem": ICEM(plans=200, rounds=8, elites=20, color=0.5),
    "mppi": MPPI(plans=200, rounds=8, temperature=0.2),
}
# Three problems with different targets: alternating, constant, and one change.
DISCRETE_TARGETS = torch.tensor([[0, 2, 0, 2, 0, 2], [1, 1, 1, 1, 1, 1], [2, 2, 2, 0, 0, 0]])
CONTINUOUS_TARGETS = torch.tensor([[-0.5, 0.5, -0.5, 0.5, -0.5, 0.5], [0.3] * 6, [0.9, 0.9, 0.9, -0.9, -0.9, -0.9]])[
    ..., None
]


def discrete_problem(rows=slice(None)):
    targets = DISCRETE_TARGETS[rows]
    score = lambda plans: (plans == targets[:, None]).float().sum(-1)  # noqa: E731
    return Problem(score, Discrete(3), len(targets), HORIZON)


def continuous_problem(rows=slice(None)):
    targets = CONTINUOUS_TARGETS[rows]
    score = lambda plans: -(plans - targets[:, None]).square().sum((-1, -2))  # noqa: E731
    return Problem(score, Box(1), len(targets), HORIZON)


def solve(planner, problem, decisions=1, seed=0):
    generator, memory = torch.Generator().manual_seed(seed), None
    for _ in range(decisions):
        decision = planner.plan(problem, memory, generator)
        memory = decision.memory
    return decision


@pytest.mark.parametrize("name", PLANNERS)
def test_discrete_optimum_is_found(name):
    decision = solve(PLANNERS[name], discrete_problem())
    assert torch.equal(decision.plan, DISCRETE_TARGETS)
    assert decision.score.tolist() == [HORIZON] * 3


@pytest.mark.parametrize("name", PLANNERS)
def test_continuous_optimum_is_found(name):
    decision = solve(PLANNERS[name], continuous_problem())
    tolerance = {"shooting": 0.6, "mppi": 0.25}.get(name, 0.15)
    assert (decision.plan - CONTINUOUS_TARGETS).abs().max() < tolerance


@pytest.mark.parametrize("make", [discrete_problem, continuous_problem])
@pytest.mark.parametrize("name", PLANNERS)
def test_problems_solved_together_are_solved_as_alone(name, make):
    together = solve(PLANNERS[name], make(), decisions=2)
    for row in range(3):
        alone = solve(PLANNERS[name], make(slice(row, row + 1)), decisions=2)
        torch.testing.assert_close(together.plan[row], alone.plan[0])
        torch.testing.assert_close(together.score[row], alone.score[0])


@pytest.mark.parametrize("make", [discrete_problem, continuous_problem])
@pytest.mark.parametrize("name", PLANNERS)
def test_same_seed_same_plan_and_another_seed_another_search(name, make):
    first, again = solve(PLANNERS[name], make(), seed=5), solve(PLANNERS[name], make(), seed=5)
    assert torch.equal(first.plan, again.plan)
    # With a score that ignores the actions, the result depends on the samples only.
    blind = make()._replace(score=lambda plans: torch.arange(plans.shape[1]).expand(plans.shape[:2]) % 7 * 1.0)
    assert torch.equal(solve(PLANNERS[name], blind, seed=5).plan, solve(PLANNERS[name], blind, seed=5).plan)
    assert not torch.equal(solve(PLANNERS[name], blind, seed=5).plan, solve(PLANNERS[name], blind, seed=6).plan)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", PLANNERS)
def test_plans_that_break_the_model_are_never_chosen(name, bad):
    """Plans that begin with action 2 score NaN or ±inf; the best other plan is 1, 1, …"""

    def score(plans):
        value = (plans == 1).float().sum(-1)
        return torch.where(plans[..., 0] == 2, bad, value)

    decision = solve(PLANNERS[name], Problem(score, Discrete(3), 1, HORIZON))
    assert decision.plan.tolist() == [[1] * HORIZON]


@pytest.mark.parametrize("space", [Discrete(3), Box(2)])
@pytest.mark.parametrize("name", PLANNERS)
def test_a_model_that_always_breaks_gives_some_plan_and_finite_memory(name, space):
    problem = Problem(lambda plans: torch.full(plans.shape[:2], torch.nan), space, 2, HORIZON)
    decision = solve(PLANNERS[name], problem, decisions=2)
    assert decision.score.tolist() == [-torch.inf] * 2
    assert all(torch.isfinite(part.double()).all() for part in (decision.plan, *decision.memory))


@pytest.mark.parametrize("name", PLANNERS)
def test_memory_starts_from_the_previous_plan_shifted(name):
    """The second decision has few samples: it needs the memory of the first one."""
    targets = DISCRETE_TARGETS[2:]
    shifted = torch.tensor([[2, 2, 0, 0, 0, 0]])
    first = solve(PLANNERS[name], Problem(lambda p: (p == targets).float().sum(-1), Discrete(3), 1, HORIZON))
    second = Problem(lambda p: (p == shifted).float().sum(-1), Discrete(3), 1, HORIZON)
    few = {
        "shooting": RandomShooting(plans=3),
        "cem": CEM(plans=40, rounds=1, elites=2),
        "icem": ICEM(plans=3, rounds=1, elites=1),
        "mppi": MPPI(plans=40, rounds=1),
    }[name]
    warm = few.plan(second, first.memory, torch.Generator().manual_seed(1))
    cold = few.plan(second, None, torch.Generator().manual_seed(1))
    assert warm.score >= HORIZON - 1
    assert warm.score > cold.score


def test_cem_beats_shooting_with_as_many_samples():
    shooting = solve(RandomShooting(plans=600), continuous_problem())
    cem = solve(CEM(plans=100, rounds=6, elites=10), continuous_problem())
    assert (cem.score > shooting.score).all()


def test_scores_are_finite_or_minus_infinity():
    scores = torch.tensor([[1.0, torch.nan, torch.inf, -torch.inf]])
    problem = Problem(lambda plans: scores, Discrete(2), 1, 1)
    assert evaluate(problem, torch.zeros(1, 4, 1)).tolist() == [[1.0, -torch.inf, -torch.inf, -torch.inf]]


@pytest.mark.parametrize("steps", [30, 31])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_colored_noise_has_unit_variance_and_the_named_spectrum(exponent, steps):
    noise = colored(torch.randn(20_000, steps, 1, generator=torch.Generator().manual_seed(0)), exponent)
    assert (noise.var(0) - 1).abs().max() < 0.06
    power = torch.fft.rfft(noise[..., 0], dim=1).abs().square().mean(0)[1 : steps // 2]
    frequency = torch.arange(1, steps // 2).float()
    slope = torch.linalg.lstsq(
        torch.stack((frequency.log(), torch.ones_like(frequency)), 1), power.log()[:, None]
    ).solution[0]
    assert slope.item() == pytest.approx(-exponent, abs=0.05)


def test_uniform_actions_are_uniform():
    noise = torch.randn(30_000, 1, 1, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(Discrete(3).uniform(noise)[:, 0], minlength=3) / 30_000
    assert (counts - 1 / 3).abs().max() < 0.01
    actions = Box(1, low=-2.0, high=4.0).uniform(noise)
    assert actions.min() >= -2
    assert actions.max() <= 4
    assert actions.mean() == pytest.approx(1.0, abs=0.05)
    assert actions.std() == pytest.approx(6 / 12**0.5, abs=0.05)


def test_categorical_samples_follow_their_probabilities():
    probabilities = torch.tensor([[[0.1, 0.6, 0.3]], [[0.8, 0.0, 0.2]]])
    noise = torch.randn(30_000, 1, 1, generator=torch.Generator().manual_seed(0))
    plans = Discrete(3).sample((probabilities,), noise)
    for row in range(2):
        share = torch.bincount(plans[row, :, 0], minlength=3) / 30_000
        assert (share - probabilities[row, 0]).abs().max() < 0.01


@pytest.mark.parametrize("make", [discrete_problem, continuous_problem])
@pytest.mark.parametrize("name", PLANNERS)
def test_scores_in_double_precision_are_taken(name, make):
    """True environments return them."""
    problem = make()
    double = problem._replace(score=lambda plans: problem.score(plans).double())
    torch.testing.assert_close(solve(PLANNERS[name], double, 2).plan, solve(PLANNERS[name], problem, 2).plan)
