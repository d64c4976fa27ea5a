"""Tensor completion as a simulator, on populations whose dynamics are known."""

import copy
from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.evaluation.prediction import score_predictions
from persim_lightning.methods.completion_model import Cells, CompletionSettings, fit_completion
from persim_lightning.models.config import Ranks
from persim_lightning.models.factorization import to_dense
from persim_lightning.types import Schema

DISCRETE = Schema(state=("x", "y"), action=("action",), num_actions=3)
CONTINUOUS = Schema(state=("x", "y"), action=("push",), num_actions=None)
AGENTS, STEPS = 12, 300


def play(step, schema, start, seed=0, steps=STEPS):
    """One trajectory of every agent."""
    generator = torch.Generator().manual_seed(seed)
    agents, state = torch.arange(AGENTS), start(generator)
    columns = {name: [] for name in ("agent", "t", *schema.state, *schema.action)}
    for t in range(steps + 1):
        if schema.num_actions is None:
            action = 2 * torch.rand(AGENTS, generator=generator, dtype=torch.float64) - 1
        else:
            action = torch.randint(schema.num_actions, (AGENTS,), generator=generator)
        values = (agents, torch.full((AGENTS,), t), *state.T, action)
        for name, value in zip(columns, values, strict=True):
            columns[name] += value.tolist()
        state = step(agents, state, action)
    return trajectories_from_table(pa.table(columns), schema, "a made-up population")


def test_dynamics_that_are_constant_on_cells_are_rolled_out_exactly():
    """A walk on a ring of 4 × 4 points: all states are centers of cells."""

    def start(generator):
        return torch.randint(4, (AGENTS, 2), generator=generator).double()

    def hop(agents, states, actions):
        # Even agents move x, odd ones y, by what the action says, and the other coordinate always by one.
        amount = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[actions]
        moved = states + 1
        moved[torch.arange(len(agents)), agents % 2] += amount
        return moved % 4

    train, test = (play(hop, DISCRETE, start, seed) for seed in (0, 1))
    rows, _ = train.split_rows(0.0)
    for kind in ("cp", "tucker"):
        settings = CompletionSettings(state_cells=16, ridge=0.0, iterations=300, interpolate=False)
        simulator, completion = fit_completion(train, rows, Ranks(6, 6, 6), kind, settings)
        assert completion.history[-1] < 1e-6
        scores = score_predictions(simulator, torch.arange(AGENTS), test)
        assert scores.rmse.max() < 1e-3
        assert scores.r2.min() > 0.9999


def spring(agents, states, actions):
    """A pendulum whose pull differs between agents."""
    push = actions - 1 if actions.dtype == torch.int64 else actions
    speed = states[:, 1] + 0.1 * (0.5 * push - (0.5 + 0.1 * agents) * torch.sin(3 * states[:, 0]))
    return torch.stack((states[:, 0] + 0.1 * speed, speed), 1)


def scattered(schema, episodes, seed):
    """Single steps of the spring from everywhere."""
    parts = [play(spring, schema, anywhere, seed=1000 * seed + index, steps=1) for index in range(episodes)]
    state, delta, action = (torch.cat([getattr(part, name) for part in parts]) for name in ("state", "delta", "action"))
    count = torch.arange(episodes * AGENTS)
    return replace(
        parts[0],
        agent=count % AGENTS,
        offsets=2 * torch.arange(len(count) + 1),
        state=state,
        delta=delta,
        action=action,
        terminated=torch.zeros(len(count), dtype=torch.bool),
    )


def anywhere(generator):
    return 2 * torch.rand(AGENTS, 2, generator=generator, dtype=torch.float64) - 1


@pytest.fixture(scope="module", params=[DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def smooth(request):
    schema = request.param
    train, test = scattered(schema, 500, seed=1), play(spring, schema, anywhere, steps=60)
    rows, _ = train.split_rows(0.0)
    settings = CompletionSettings(state_cells=150, action_cells=12)
    simulator, completion = fit_completion(train, rows, Ranks(3, 3, 3), settings=settings)
    return train, test, settings, simulator, completion


def test_interpolation_beats_the_nearest_cell_on_a_smooth_system(smooth):
    train, _, _, simulator, _ = smooth
    unseen = scattered(train.schema, 50, seed=2)
    rows, _ = unseen.split_rows(0.0)
    batch = unseen.transitions(rows, unseen.row_agent())
    nearest = copy.copy(simulator)
    nearest.interpolate = False

    def error(model, agents):
        delta = model.rollout(agents, batch.state, batch.action[:, None])[0, :, 1] - batch.state
        return float((delta - batch.delta).square().mean().sqrt())

    assert error(simulator, batch.agent) < 0.9 * error(nearest, batch.agent)
    # Agents differ, and the simulator knows how.
    assert error(simulator, batch.agent) < 0.9 * error(simulator, torch.zeros_like(batch.agent))


def test_same_seed_same_predictions(smooth):
    train, test, settings, simulator, _ = smooth
    rows, _ = train.split_rows(0.0)
    repeated, _ = fit_completion(train, rows, Ranks(3, 3, 3), settings=settings)
    other, _ = fit_completion(train, rows, Ranks(3, 3, 3), settings=settings, seed=1)
    first, again, different = (
        score_predictions(model, torch.arange(AGENTS), test).rmse for model in (simulator, repeated, other)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, different)


@pytest.mark.parametrize("kind", ["cp", "tucker"])
def test_look_ups_equal_the_dense_tensor(smooth, kind):
    """The factors contracted for a query against TensorLy's reconstruction of all cells."""
    train, _, settings, _, _ = smooth
    rows, _ = train.split_rows(0.0)
    simulator, completion = fit_completion(train, rows, Ranks(3, 3, 3), kind, settings)
    dense = torch.from_numpy(to_dense(completion.tensor)).view(AGENTS, 150, 2, -1)
    batch = train.transitions(rows[::50], train.row_agent())
    agent, state, action = batch.agent, batch.state, batch.action
    if simulator.actions is None:
        action_weight, action_cell = torch.ones(len(agent), 1), action[:, None]
    else:
        action_weight, action_cell = simulator.actions.weigh(action, 2)
    weight, cell = simulator.states.weigh(state, 3)
    looked_up = dense[agent[:, None, None], cell[:, :, None], :, action_cell[:, None]].float()
    delta = torch.einsum("bi,bj,bijd->bd", weight, action_weight, looked_up)
    rolled = simulator.rollout(agent, state, action[:, None])
    assert rolled.shape == (1, len(agent), 2, 2)
    assert torch.equal(rolled[0, :, 0], state)
    torch.testing.assert_close(rolled[0, :, 1], state + delta, rtol=1e-5, atol=1e-5)


def test_weights_of_cells():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
    cells = Cells.fit(points.repeat(5, 1), 10, seed=0)
    assert len(cells.center) == 4
    weight, index = cells.weigh(points, 3)
    # A point on a center gets that cell alone.
    assert torch.equal(index[:, 0], cells.assign(points))
    torch.testing.assert_close(weight[:, 0], torch.ones(4))
    weight, _ = cells.weigh(torch.tensor([[0.5, 1.0]]), 9)
    torch.testing.assert_close(weight, torch.full((1, 4), 0.25))
