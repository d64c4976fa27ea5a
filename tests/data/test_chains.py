"""Chains over incomplete rows, and batches of them, against slow and obvious ones."""

from __future__ import annotations

from dataclasses import replace

import torch

from persim_lightning.data.chains import ChainGather, chain_rows, sample_batches
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.types import Chains, Schema, Transitions


def trajectories(observed=None, duration=None):
    """Two trajectories of 6 and 4 rows with two coordinates."""
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(10, 2, generator=generator)
    delta = torch.zeros(10, 2)
    delta[:-1] = state.diff(dim=0)
    delta[[5, 9]] = 0
    return Trajectories(
        schema=Schema(("x", "y"), ("u",), None),
        agent_ids=("a", "b"),
        agent=torch.tensor([0, 1]),
        offsets=torch.tensor([0, 6, 10]),
        state=state,
        action=torch.randn(10, 1, generator=generator),
        delta=delta,
        terminated=torch.zeros(2, dtype=torch.bool),
        observed=observed,
        duration=duration,
    )


def mask(*missing):
    observed = torch.ones(10, 2, dtype=torch.bool)
    for row, column in missing:
        observed[row, column] = False
    return observed


def test_complete_rows_are_chains_of_one_step():
    data = trajectories(duration=torch.tensor([1.0, 2, 1, 1, 0.5, 0, 1, 1, 1, 0]))
    starts, lengths = chain_rows(data, data.split_rows(0.0)[0])
    assert starts.tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    assert lengths.tolist() == [1] * 8


def test_chains_lead_through_incomplete_rows_to_the_next_complete_one():
    data = trajectories(mask((1, 0), (2, 0), (2, 1), (7, 1), (9, 0)))
    starts, lengths = chain_rows(data, data.split_rows(0.0)[0])
    assert list(zip(starts.tolist(), lengths.tolist(), strict=True)) == [(0, 3), (3, 1), (4, 1), (6, 2), (8, 1)]


def test_chains_start_where_every_coordinate_is_known_and_end_with_the_head():
    data = trajectories(mask((0, 0), (5, 0), *((row, 1) for row in range(6, 10))))
    head, _ = data.split_rows(0.4)
    assert head.tolist() == [0, 1, 2, 6, 7]
    starts, lengths = chain_rows(data, head)
    # The second agent's y is never seen, so that its rows are a single chain.
    assert list(zip(starts.tolist(), lengths.tolist(), strict=True)) == [(1, 1), (2, 1), (6, 2)]


def test_chains_without_a_measurement_are_left_out():
    data = trajectories(mask(*((row, column) for row in range(1, 6) for column in range(2))))
    starts, _ = chain_rows(data, data.split_rows(0.0)[0])
    assert starts.tolist() == [6, 7, 8]


def test_batches_hold_the_rows_of_their_chains():
    observed = mask((1, 0), (2, 0), (2, 1), (7, 1))
    duration = torch.tensor([1.0, 2, 1, 1, 0.5, 0, 1, 1, 1, 0])
    data = trajectories(observed, duration)
    starts, lengths = chain_rows(data, data.split_rows(0.0)[0])
    gather = ChainGather(data, starts, lengths)
    assert gather.rows_each == 3
    batch = gather(starts)
    for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        assert int(batch.agent[number]) == int(start >= 6)
        assert torch.equal(batch.state[number], data.state[start])
        for step in range(3):
            if step < length:
                assert torch.equal(batch.action[number, step], data.action[start + step])
                assert torch.equal(batch.target[number, step], data.state[start + step + 1])
                assert float(batch.duration[number, step]) == float(duration[start + step])
                assert torch.equal(batch.observed[number, step], observed[start + step + 1])
            else:
                assert float(batch.duration[number, step]) == 0
                assert not bool(batch.observed[number, step].any())
    assert torch.equal(batch.scored, batch.observed)


def test_targets_on_walls_are_not_scored():
    data = trajectories(mask((1, 0)))
    low = torch.tensor([float(data.state[3, 0]), -torch.inf])
    nowhere = torch.full((2, 2), torch.nan)
    walls = data.walls()._replace(low=low, high=torch.full((2,), torch.inf), low_contact=nowhere, high_contact=nowhere)
    starts, lengths = chain_rows(data, data.split_rows(0.0)[0])
    batch = ChainGather(data, starts, lengths, walls)(starts)
    before = starts.tolist().index(2)
    assert bool(batch.observed[before, 0].all())
    assert not bool(batch.scored[before, 0].any())


def test_regular_tables_give_transitions():
    data = trajectories()
    rows = data.split_rows(0.0)[0]
    [regular] = sample_batches(data, rows, None)
    assert isinstance(regular, Transitions)
    [chained] = sample_batches(replace(data, duration=torch.ones(10)), rows, None)
    assert isinstance(chained, Chains)
    assert torch.equal(chained.target[:, 0] - chained.state, regular.delta)
