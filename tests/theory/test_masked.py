"""Decompositions of observed cells: exact on exact tensors, and equal to slower solutions of the same problem."""

import numpy as np
import pytest
import tensorly as tl
import torch
from tensorly.decomposition import parafac

from persim_lightning.errors import ConfigurationError
from persim_lightning.models.config import Ranks
from persim_lightning.models.factorization import to_dense
from persim_lightning.theory.masked import complete
from persim_lightning.theory.observed_cells import ObservedCells, average_rows

SHAPE, DIM = (40, 30, 6), 3


def low_rank(kind: str, ranks: Ranks, seed: int = 0) -> torch.Tensor:
    """A random tensor (N, S, A, D) whose coordinates have very different scales."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    core = normal(*ranks)
    if kind == "cp":
        core = torch.zeros_like(core)
        core[(torch.arange(ranks.agent),) * 3] = 1
    agents, states, actions = SHAPE
    factors = normal(agents, ranks.agent), normal(states, DIM, ranks.state), normal(actions, ranks.action)
    return torch.einsum("ijk,ni,sdj,ak->nsad", core, *factors) * torch.tensor([1.0, 1e-3, 100.0])


def seen_cells(tensor: torch.Tensor, share: float, seed: int = 1) -> ObservedCells:
    seen = torch.rand(tensor.shape[:3], generator=torch.Generator().manual_seed(seed)) < share
    agent, state, action = seen.nonzero().T
    weight = torch.ones(len(agent), dtype=torch.float64)
    return ObservedCells(tuple(tensor.shape[:3]), agent, state, action, tensor[agent, state, action], weight)


def dense(completion, shape=SHAPE, dim=DIM) -> torch.Tensor:
    """(N, S·D, A) -> (N, S, A, D)."""
    agents, states, actions = shape
    return torch.from_numpy(to_dense(completion.tensor)).view(agents, states, dim, actions).movedim(2, 3)


def assert_near(one, other, tolerance):
    scale = other.square().mean((0, 1, 2)).sqrt()
    torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("kind", "ranks"), [("cp", Ranks(3, 3, 3)), ("tucker", Ranks(2, 4, 3))])
def test_unseen_cells_of_an_exact_tensor_are_recovered(kind, ranks):
    tensor = low_rank(kind, ranks)
    completion = complete(seen_cells(tensor, 0.3), ranks, kind, ridge=0, iterations=500, tolerance=1e-6)
    assert completion.converged
    assert completion.history[-1] < 1e-6
    assert completion.tensor.shape == (40, 90, 6)
    assert_near(dense(completion), tensor, 1e-5)


def test_a_superdiagonal_core_is_a_cp_decomposition():
    """Tucker with a core of one number: there, both are the same model."""
    observed = seen_cells(low_rank("cp", Ranks(3, 3, 3)), 0.5)
    options = {"ridge": 0.0, "iterations": 300, "tolerance": 1e-12}
    cp, tucker = (complete(observed, Ranks(1, 1, 1), kind, **options) for kind in ("cp", "tucker"))
    assert cp.history[-1] == pytest.approx(tucker.history[-1], rel=1e-6)
    assert_near(dense(cp), dense(tucker), 1e-3)


def test_no_worse_than_tensorly_on_noisy_cells():
    """TensorLy's masked decomposition, with enough sweeps, reaches the same least-squares error."""
    tensor = low_rank("cp", Ranks(2, 2, 2)) / torch.tensor([1.0, 1e-3, 100.0])
    tensor += 0.1 * torch.randn(tensor.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    observed = seen_cells(tensor, 0.5)
    ours = complete(observed, Ranks(2, 2, 2), ridge=0, iterations=500, tolerance=1e-9)
    mask = torch.zeros(SHAPE, dtype=torch.float64)
    mask[observed.agent, observed.state, observed.action] = 1
    merged = tensor.movedim(3, 2).flatten(1, 2).numpy()
    full_mask = mask[:, :, None].expand(-1, -1, DIM, -1).flatten(1, 2).numpy()
    theirs = parafac(merged, 2, mask=full_mask, n_iter_max=1000, tol=1e-12, init="svd", random_state=0)
    error = [np.linalg.norm(full_mask * (merged - guess)) for guess in (tl.cp_to_tensor(theirs), to_dense(ours.tensor))]
    assert error[1] == pytest.approx(error[0], rel=1e-2)


@pytest.mark.parametrize(("kind", "ranks"), [("cp", Ranks(2, 2, 2)), ("tucker", Ranks(2, 3, 2))])
def test_every_factor_solves_its_dense_least_squares(kind, ranks):
    """After convergence, every factor and the core equal their weighted least-squares fit to all cells."""
    tensor = low_rank("cp", Ranks(4, 4, 4))
    observed = seen_cells(tensor, 0.6)
    weight = torch.rand(len(observed.weight), dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.5
    observed = observed._replace(weight=weight)
    completion = complete(observed, ranks, kind, ridge=0, iterations=3000, tolerance=1e-13)
    outer, (agent, state, action) = completion.tensor
    core = torch.from_numpy(np.asarray(outer))
    core = torch.diag_embed(torch.diag(core)) if core.ndim == 1 else core
    agent, action = torch.from_numpy(agent), torch.from_numpy(action)
    scale = ((weight[:, None] * observed.value.square()).sum(0) / weight.sum()).sqrt()
    state = torch.from_numpy(state).view(SHAPE[1], DIM, -1) / scale[:, None]
    value = observed.value / scale
    n, s, a = observed.agent, observed.state, observed.action
    root = weight.sqrt()[:, None]

    def fit(design, target):
        return torch.linalg.lstsq((design * root.unsqueeze(2)).flatten(0, 1), (target * root).flatten()).solution

    for index in (0, 7):
        rows = n == index
        design = torch.einsum("ijk,esj,ek->esi", core, state[s], action[a])
        solution = torch.linalg.lstsq(
            (design * root.unsqueeze(2))[rows].flatten(0, 1), (value * root)[rows].flatten()
        ).solution
        torch.testing.assert_close(agent[index], solution, rtol=1e-3, atol=1e-4)
    design = torch.einsum("ei,edj,ek->edijk", agent[n], state[s], action[a]).flatten(2)
    if kind == "tucker":
        torch.testing.assert_close(core.flatten(), fit(design, value), rtol=1e-3, atol=1e-4)


def test_weights_count_like_repeated_rows():
    tensor = low_rank("cp", Ranks(4, 4, 4))
    cells = seen_cells(tensor, 0.3)
    generator = torch.Generator().manual_seed(4)
    repeats = torch.randint(1, 4, (len(cells.weight),), generator=generator)
    weighted = complete(cells._replace(weight=repeats.double()), Ranks(2, 2, 2), iterations=20)
    index = torch.repeat_interleave(torch.arange(len(repeats)), repeats)
    rows = ObservedCells(cells.shape, *(value[index] for value in cells[1:]))
    repeated = complete(rows, Ranks(2, 2, 2), iterations=20)
    assert weighted.history == pytest.approx(repeated.history, rel=1e-6)
    unweighted = complete(cells, Ranks(2, 2, 2), iterations=20)
    assert abs(unweighted.history[-1] / weighted.history[-1] - 1) > 1e-3
    observed = average_rows(rows.agent, rows.state, rows.action, rows.value, cells.shape)
    assert len(observed.weight) == len(cells.weight)
    assert_near(dense(complete(observed, Ranks(2, 2, 2), iterations=20)), dense(weighted), 1e-5)


def test_rows_of_a_cell_are_averaged():
    value = torch.tensor([[1.0, 2.0], [5.0, 5.0], [3.0, 4.0]])
    agent, state, action = torch.tensor([[2, 0, 2], [1, 1, 1], [0, 3, 0]])
    observed = average_rows(agent, state, action, value, (3, 2, 4))
    assert observed.agent.tolist() == [0, 2]
    assert (observed.state.tolist(), observed.action.tolist()) == ([1, 1], [3, 0])
    assert (observed.value.tolist(), observed.weight.tolist()) == ([[5.0, 5.0], [2.0, 3.0]], [1.0, 2.0])


def test_agents_without_rows_get_the_mean_and_those_with_few_stay_near():
    tensor = low_rank("cp", Ranks(3, 3, 3)) / torch.tensor([1.0, 1e-3, 100.0])
    tensor += 2.0 * torch.randn(tensor.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    cells = seen_cells(tensor, 0.5)
    # Agent 0 is not seen at all, agent 1 twice.
    kept = (cells.agent > 1) | ((cells.agent == 1) & ((cells.agent == 1).cumsum(0) <= 2))
    completion = complete(ObservedCells(cells.shape, *(value[kept] for value in cells[1:])), Ranks(3, 3, 3))
    agent = torch.from_numpy(completion.tensor.factors[0])
    mean = agent[1:].mean(0)
    spread = agent[1:].std(0)
    torch.testing.assert_close(agent[0], mean, rtol=0, atol=1e-3 * float(spread.max()))
    assert float(((agent[1] - mean) / spread).norm()) < 0.5 * float(((agent[2:] - mean) / spread).norm(dim=1).mean())


def test_same_seed_same_factors():
    cells = seen_cells(low_rank("tucker", Ranks(2, 4, 3)), 0.3)
    one, same, other = (complete(cells, Ranks(2, 3, 2), "tucker", iterations=5, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one.tensor.factors, same.tensor.factors, strict=True))
    assert one.history == same.history != other.history


def test_zeros_and_ranks_above_the_shape():
    cells = seen_cells(torch.zeros(*SHAPE, DIM, dtype=torch.float64), 0.3)
    for kind in ("cp", "tucker"):
        assert float(dense(complete(cells, Ranks(9, 9, 9), kind)).abs().max()) == 0
    cells = seen_cells(low_rank("cp", Ranks(2, 2, 2)), 0.5)
    assert complete(cells, Ranks(9, 9, 9), "tucker", iterations=3).tensor.core.shape == (9, 9, 6)
    assert np.isfinite(complete(cells, Ranks(9, 9, 9), iterations=20).history).all()


def test_unknown_models_are_refused():
    cells = seen_cells(low_rank("cp", Ranks(2, 2, 2)), 0.5)
    with pytest.raises(ConfigurationError, match="one rank"):
        complete(cells, Ranks(2, 3, 2))
    with pytest.raises(ConfigurationError, match="unknown factorization 'tt'"):
        complete(cells, Ranks(2, 2, 2), "tt")
