"""The prediction protocol against a plain loop over episodes, and its edge cases."""

import pyarrow as pa
import pytest
import torch
from torchmetrics.functional import r2_score

from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.evaluation.horizon import HorizonR2
from persim_lightning.evaluation.prediction import EpisodeWindows
from persim_lightning.evaluation.prediction_metric import PredictionMetric
from persim_lightning.types import Schema


@pytest.fixture
def test_data():
    """Two agents; episodes of 80, 30, 13 and 5 rows, so 50, 19, 2 and no scored steps."""
    rows = [(e, t) for e, length in enumerate((80, 30, 13, 5)) for t in range(length)]
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(len(rows), 2, generator=generator, dtype=torch.float64)
    table = pa.table(
        {
            "agent": [e // 2 for e, _ in rows],
            "episode": [e for e, _ in rows],
            "t": [t for _, t in rows],
            "x": walk[:, 0].numpy(),
            "y": walk[:, 1].numpy(),
            "action": [(e + t) % 3 for e, t in rows],
        }
    )
    return trajectories_from_table(table, Schema(("x", "y"), ("action",), 3), "t")


def test_windows(test_data):
    windows = EpisodeWindows.cut(test_data)
    assert windows.steps.tolist() == [50, 19, 2, 0]
    assert windows.agent.tolist() == [0, 0, 1, 1]
    for episode in range(3):
        first = int(test_data.offsets[episode]) + 10
        steps = int(windows.steps[episode])
        assert torch.equal(windows.start[episode], test_data.state[first])
        assert torch.equal(windows.target[episode, :steps], test_data.state[first + 1 : first + 1 + steps])
        assert torch.equal(windows.action[episode, :steps], test_data.action[first : first + steps])


def score(windows, predicted, num_agents=2, order=None):
    metric = PredictionMetric(windows.agent, num_agents)
    for part in order if order is not None else [torch.arange(len(windows.agent))]:
        metric.update(part, predicted[part], windows.select(part))
    return metric.compute()


def test_scores_equal_a_loop_over_episodes(test_data):
    windows = EpisodeWindows.cut(test_data)
    predicted = windows.target + 0.3 * torch.randn_like(windows.target)
    scores = score(windows, predicted, order=[torch.tensor([3, 0]), torch.tensor([1, 2])])
    rmse, r2 = [], []
    for episode in (0, 1):
        steps = int(windows.steps[episode])
        truth, guess = windows.target[episode, :steps].double(), predicted[episode, :steps].double()
        rmse.append((truth - guess).square().mean().sqrt())
        r2.append(r2_score(guess, truth, multioutput="variance_weighted"))
    assert scores.rmse[0].item() == pytest.approx(torch.stack(rmse).mean().item(), abs=1e-6)
    assert scores.r2[0].item() == pytest.approx(sum(r2).item() / 2, abs=1e-6)
    assert scores.scored.tolist() == [2, 0]
    assert scores.short.tolist() == [0, 2]


def test_perfect_and_constant_episodes_are_never_nan():
    windows = EpisodeWindows(
        torch.tensor([0, 1]), torch.zeros(2, 1), torch.zeros(2, 6), torch.ones(2, 6, 1), torch.tensor([6, 6])
    )
    predicted = windows.target.clone()
    predicted[1] += 0.5
    scores = score(windows, predicted)
    assert scores.r2.tolist() == [1.0, 0.0]
    assert scores.rmse.tolist() == [0.0, 0.5]


def test_diverged_predictions_count_as_the_worst(test_data):
    windows = EpisodeWindows.cut(test_data)
    predicted = windows.target.clone()
    predicted[:2, 3] = torch.nan
    scores = score(windows, predicted)
    assert scores.diverged.tolist() == [2, 0]
    assert scores.rmse[0] == torch.inf
    assert scores.r2[0] == -torch.inf


def test_garbage_after_the_end_does_not_count(test_data):
    windows = EpisodeWindows.cut(test_data)
    predicted = windows.target.clone()
    predicted[1, 19:] = torch.nan
    assert score(windows, predicted).rmse[0] == 0


def test_an_episode_counted_twice_or_never_is_an_error(test_data):
    windows = EpisodeWindows.cut(test_data)
    for order in ([torch.tensor([0, 1, 2, 3]), torch.tensor([0])], [torch.tensor([0, 1])]):
        with pytest.raises(RuntimeError, match="exactly once"):
            score(windows, windows.target, order=order)


def test_horizon_r2_equals_r2_over_episodes():
    torch.manual_seed(0)
    target = torch.randn(20, 10, 3)
    predicted = target + 0.2 * torch.randn_like(target)
    agent, steps = torch.arange(20) % 2, torch.full((20,), 10)
    steps[4:8] = 5
    metric = HorizonR2(2, 3, horizons=(1, 10))
    metric.update(agent[:9], predicted[:9], target[:9], steps[:9])
    metric.update(agent[9:], predicted[9:], target[9:], steps[9:])
    r2 = metric.compute()
    for row in range(2):
        for column, horizon in enumerate((1, 10)):
            kept = (agent == row) & (steps >= horizon)
            truth, guess = target[kept, horizon - 1].double(), predicted[kept, horizon - 1].double()
            expected = 1 - (truth - guess).square().sum() / (truth - truth.mean(0)).square().sum()
            assert r2[row, column].item() == pytest.approx(expected.item(), abs=1e-9)


def test_the_first_windows_of_every_agent_are_found_agent_by_agent():
    agent = torch.tensor([2, 0, 2, 1, 0, 2, 0])
    steps = torch.tensor([3, 5, 0, 1, 2, 4, 6])
    values = torch.arange(7.0)[:, None]
    windows = EpisodeWindows(agent, values, values, values[..., None], steps)
    assert windows.first_of_each(2, 100).start[:, 0].tolist() == [1, 4, 3, 0, 5]
    assert windows.first_of_each(1, 100).start[:, 0].tolist() == [1, 3, 0]
    assert windows.first_of_each(2, 3).agent.tolist() == [0, 0, 1]
    assert len(windows.select(torch.tensor([2])).first_of_each(2, 9).steps) == 0
