"""Rewards and ends learned from a table, on held-out transitions whose truth is known."""

import pyarrow as pa
import pytest
import torch

from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.user import user_trajectories
from persim_lightning.training.outcomes import fit_outcomes, outcomes_of


def table(discrete, seed=0, agents=40):
    """Walks that end beyond 1; what is earned depends on state, action and next state."""
    generator = torch.Generator().manual_seed(seed)
    columns = {name: [] for name in ("agent", "t", "x", "act", "gain", "over")}
    for agent in range(agents):
        x, over = float(torch.rand((), generator=generator)) - 0.5, False
        for t in range(60):
            act = (
                int(torch.randint(3, (), generator=generator)) - 1
                if discrete
                else float(2 * torch.rand((), generator=generator) - 1)
            )
            following = x + 0.3 * act + 0.05
            over = abs(x) > 1
            gain = following**2 - 0.5 * x * act
            name = {-1: "left", 0: "stay", 1: "right"}[act] if discrete else act
            end = over or t == 59
            for column, value in zip(
                columns, (agent, t, x, None if end else name, None if end else gain, over), strict=True
            ):
                columns[column].append(value)
            if end:
                break
            x = following
    roles = TableColumns(["x"], ["act"], reward="gain", terminated="over")
    return user_trajectories(pa.table(columns), roles, "walks")


@pytest.mark.parametrize("discrete", [True, False])
def test_rewards_and_ends_hold_on_other_walks(discrete, monkeypatch):
    monkeypatch.setattr("persim_lightning.training.outcomes._STEPS", 600)
    train, test = table(discrete), table(discrete, seed=1)
    assert bool(train.terminated.any())
    model = fit_outcomes(train, seed=0)
    told = outcomes_of(test, test.split_rows(0.0)[0])
    error = model.reward(told.state, told.action, told.next_state) - told.reward
    assert float(error.square().mean() / told.reward.var()) < 0.01
    assert float((model.terminated(told.next_state) == told.terminated).float().mean()) > 0.97
    again = fit_outcomes(train, seed=0)
    torch.testing.assert_close(model.state_dict(), again.state_dict(), rtol=0, atol=0)


def test_a_table_without_rewards_or_ends_teaches_nothing():
    columns = {"agent": [0, 0, 0], "t": [0, 1, 2], "x": [0.0, 1.0, 2.0], "act": [1.0, 0.0, None]}
    assert fit_outcomes(user_trajectories(pa.table(columns), TableColumns(["x"], ["act"]), "t"), seed=0) is None
