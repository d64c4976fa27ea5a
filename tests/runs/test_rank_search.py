"""How a rank is chosen from errors, and what the errors are."""

import math

import pytest
import torch

from persim_lightning.data.datamodule import open_data
from persim_lightning.runs.rank_search import (
    TAIL,
    RankSelection,
    _one_step_loss,
    _short_fit,
    _spectral_rank,
    choose,
    rollout_error,
    select_rank,
    short_epochs,
    write_selection,
)
from persim_lightning.training.persim import PerSimModule
from persim_lightning.types import Transitions


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
    monkeypatch.setattr("persim_lightning.runs.rank_search._short_fit", lambda build, rank, *rest, **options: rank)
    monkeypatch.setattr("persim_lightning.runs.rank_search.rollout_error", lambda rank, data: 10.0 ** -min(rank, 6))
    monkeypatch.setattr("persim_lightning.runs.rank_search._spectral_rank", lambda rank, data: start)
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


def test_short_fits_take_enough_steps_but_no_more_than_the_whole_one(capsys):
    assert short_epochs(300, 100) == 50
    assert short_epochs(30, 100) == 15
    assert "too few" not in capsys.readouterr().out
    assert short_epochs(10, 100) == 10
    assert "fits of 1000 steps: too few to be reliable" in capsys.readouterr().out


def test_one_step_loss_is_the_mean_over_all_held_out_transitions(fitted_module):
    model, data = fitted_module
    shared = Transitions(
        *(
            part.expand(2, *part.shape)
            for part in data.trajectories.transitions(data.validation_rows, data.trajectories.row_agent())
        )
    )
    with torch.no_grad():
        assert _one_step_loss(model, data) == pytest.approx(float(model.loss(shared).mean()), rel=1e-5)


def test_the_search_starts_at_the_rank_that_explains_the_fit_up_to_its_own_error(fitted_module, monkeypatch):
    """One member of rank 3, its factors random: three terms explain it, and an error as large as it needs but one."""
    _, data = fitted_module
    torch.manual_seed(0)
    model = PerSimModule(6, 2, 1, 3, rank=3, members=1, hidden_width=8)
    with torch.no_grad():
        model.simulator.agent_encoder.deviation.normal_()
    model.trainer = fitted_module[0].trainer
    for loss, rank in ((1e-10, 3), (1.0, 1)):
        monkeypatch.setattr("persim_lightning.runs.rank_search._one_step_loss", lambda *_, loss=loss: loss)
        assert _spectral_rank(model, data) == rank


@pytest.fixture
def fitted_module(tmp_path):
    data = open_data("mountaincar", root=tmp_path, agents=6, val_fraction=TAIL)
    data.prepare_data()

    def build(rank):
        return PerSimModule(data.num_agents, 2, 1, 3, rank=rank, members=2, hidden_width=8)

    return _short_fit(build, 3, data, 0, max_epochs=1), data
