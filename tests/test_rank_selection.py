"""How a rank is chosen from errors, and what the errors are."""

import math

import pytest
import torch

from persim_lightning.data.datamodule import open_data
from persim_lightning.rank_selection import (
    TAIL,
    RankSelection,
    _short_fit,
    choose,
    rollout_error,
    select_rank,
    write_selection,
)
from persim_lightning.training.persim import PerSimModule


def test_a_further_rank_has_to_pay():
    assert choose({2: 0.2, 3: 0.005, 4: 0.0045, 16: 0.0016}) == 3
    assert choose({2: 0.2, 3: 0.005, 4: 0.003, 16: 0.0016}) == 4
    # Two ranks more for a tenth of the error pay, although the first alone does not.
    assert choose({3: 1.0, 4: 0.9, 5: 0.1}) == 5
    assert choose({3: math.inf, 4: 0.9}) == 4


def test_selection_survives_a_file(tmp_path):
    selection = RankSelection(3, 2, {2: math.inf, 3: 0.01})
    written = write_selection(selection, tmp_path)
    assert RankSelection.load(tmp_path) == selection
    assert all(path.stat().st_size > 0 for path in written)


@pytest.mark.parametrize("start", [1, 4, 9])
def test_search_walks_to_the_best_rank_from_either_side(monkeypatch, capsys, start):
    """Errors fall tenfold a rank up to 6, then stay: wherever the spectrum points, 6 is found."""
    monkeypatch.setattr("persim_lightning.rank_selection._short_fit", lambda build, rank, *rest, **options: rank)
    monkeypatch.setattr("persim_lightning.rank_selection.rollout_error", lambda rank, data: 10.0 ** -min(rank, 6))
    monkeypatch.setattr("persim_lightning.rank_selection._spectral_rank", lambda rank, data: start)
    selection = select_rank(None, None, 0)
    assert (selection.rank, selection.start) == (6, start)
    assert {5, 6, 7, 16} <= set(selection.errors)
    assert "rank 6: rollout error 1e-06" in capsys.readouterr().out


def test_rollout_error_is_the_mean_log_over_tails(fitted_module):
    """One trajectory after the other, step by step."""
    model, data = fitted_module
    simulator, trajectories = model.simulator, data.trajectories
    logs = []
    for agent in range(trajectories.num_agents):
        first, last = (int(trajectories.offsets[agent + side]) for side in (0, 1))
        transitions = last - first - 1
        begin = first + transitions - int(transitions * 0.2)
        steps = min(50, last - 1 - begin)
        states = simulator.rollout(
            torch.tensor([agent]), trajectories.state[begin][None], trajectories.action[begin : begin + steps][None]
        )[:, 0].mean(0)
        difference = (
            states[1:] - trajectories.state[begin + 1 : begin + 1 + steps]
        ) / simulator.state_encoder.state_std
        logs.append(0.5 * math.log(float(difference.double().square().mean())))
    assert rollout_error(model, data) == pytest.approx(math.exp(sum(logs) / len(logs)), rel=1e-4)


@pytest.fixture
def fitted_module(tmp_path):
    data = open_data("mountaincar", root=tmp_path, agents=6, val_fraction=TAIL)
    data.prepare_data()

    def build(rank):
        return PerSimModule(data.num_agents, 2, 1, 3, rank=rank, members=2, hidden_width=8)

    return _short_fit(build, 3, data, 0, max_epochs=1), data
