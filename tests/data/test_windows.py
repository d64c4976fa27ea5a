"""Windows against a loop over steps."""

import pyarrow as pa
import pytest
import torch

from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.data.windows import WindowGather
from persim_lightning.types import Schema

PAST, FUTURE = 3, 4


@pytest.fixture(params=[None, 3], ids=["continuous", "discrete"])
def data(request):
    """Two agents, the second with two trajectories; no two rows are alike."""
    generator = torch.Generator().manual_seed(0)
    rows = [(agent, episode, t) for agent, episode, length in ((0, 0, 7), (5, 0, 2), (5, 1, 5)) for t in range(length)]
    count = len(rows)
    columns = {name: [row[place] for row in rows] for place, name in enumerate(("agent", "episode", "t"))}
    columns |= {name: torch.randn(count, generator=generator).tolist() for name in ("x", "y")}
    if request.param is None:
        columns |= {name: torch.randn(count, generator=generator).tolist() for name in ("push", "turn")}
        schema = Schema(("x", "y"), ("push", "turn"), None)
    else:
        columns["a"] = torch.randint(3, (count,), generator=generator).tolist()
        schema = Schema(("x", "y"), ("a",), 3)
    return trajectories_from_table(pa.table(columns), schema, "t")


def test_windows_hold_what_stands_around_their_row(data):
    rows, _ = data.split_rows(0.0)
    # One transition is not to be learned from.
    wanted = rows[rows != 2]
    windows = WindowGather(data, wanted, PAST, FUTURE)(rows.view(1, -1))
    for number, row in enumerate(rows.tolist()):
        trajectory = int((data.offsets[1:] <= row).sum())
        first, last = data.offsets[trajectory : trajectory + 2].tolist()
        for k in range(PAST):
            before = row - PAST + k
            assert windows.past_valid[0, number, k] == (before >= first)
            inside = float(before >= first)
            assert torch.equal(windows.past_delta[0, number, k], data.delta[before] * inside)
            assert torch.equal(windows.past_action[0, number, k], data.action[before] * int(inside))
        for f in range(FUTURE):
            after = row + f
            exists = after < last - 1 and after != 2
            assert windows.valid[0, number, f] == exists
            if exists:
                for name in ("state", "action", "delta"):
                    assert torch.equal(getattr(windows, name)[0, number, f], getattr(data, name)[after])


def test_shapes(data):
    rows, _ = data.split_rows(0.0)
    gather = WindowGather(data, rows, PAST, FUTURE)
    assert gather.rows_each == PAST + FUTURE
    windows = gather(rows[:6].view(2, 3))
    assert windows.past_delta.shape == (2, 3, PAST, 2)
    assert windows.state.shape == (2, 3, FUTURE, 2)
    assert windows.valid.shape == (2, 3, FUTURE)
