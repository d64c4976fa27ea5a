"""Small tables and simulators that many tests share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pyarrow as pa
import pytest
import torch
from matplotlib.figure import Figure

from persim_lightning import PersonalizedSimulator
from persim_lightning.data.tables.sources import write_table
from persim_lightning.models.config import Ranks, SimulatorConfig
from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Schema, WallContacts
from tests.fixtures.make import load_fixture

ROOT = Path(__file__).parents[1]
# Each worker of pytest-xdist has a core; two threads each would wait for one another.
torch.set_num_threads(1)
_SAVEFIG = Figure.savefig


@pytest.fixture
def schema() -> Schema:
    return Schema(state=("position", "velocity"), action=("action",), num_actions=3)


@pytest.fixture
def columns() -> dict[str, list]:
    """Two agents, three rows each; the last row of an agent has no action."""
    return {
        "agent": [0, 0, 0, 7, 7, 7],
        "t": [0, 1, 2, 0, 1, 2],
        "position": [0.0, 0.1, 0.3, 1.0, 1.5, 1.25],
        "velocity": [0.1, 0.2, 0.3, 0.5, -0.25, 0.0],
        "action": [0, 2, None, 1, 1, None],
        "terminated": [False, False, True, False, False, False],
    }


@pytest.fixture
def table_path(tmp_path: Path, columns: dict[str, list]) -> Path:
    path = tmp_path / "table.parquet"
    write_table(pa.table(columns), path)
    return path


def random_simulator(kind: str, num_actions: int | None, wall: float = torch.inf) -> Simulator:
    """An untrained simulator whose every parameter is random, so that no term hides behind a zero."""
    torch.manual_seed(3)
    ranks = Ranks(4, 4, 4) if kind == "cp" else Ranks(2, 4, 3)
    config = SimulatorConfig(
        num_agents=6,
        state_dim=3,
        action_dim=2 if num_actions is None else 1,
        num_actions=num_actions,
        members=3,
        ranks=ranks,
        factorization=kind,
        state_hidden=(8, 7),
        action_hidden=(5,),
        angles=(1,),
        walls=wall < torch.inf,
    )
    simulator = Simulator(config)
    with torch.no_grad():
        for parameter in simulator.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        simulator.delta_rms.copy_(torch.tensor([0.5, 2.0, 0.1]))
        contact = torch.full((3, 3), torch.nan)
        contact[0, 2] = 0.25
        bound = torch.full((3,), wall)
        simulator.walls.set(WallContacts(-bound, bound, contact, contact))
    return simulator


def random_actions(num_actions: int | None, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, 2) if num_actions is None else torch.randint(num_actions, shape)


@pytest.fixture(scope="session")
def switched() -> PersonalizedSimulator:
    """Rooms whose heater is off or on."""
    return load_fixture("switched")


@pytest.fixture(scope="session")
def dialed() -> PersonalizedSimulator:
    """Rooms with a heater that is dialed, and a mode without effect."""
    return load_fixture("dialed")


@pytest.fixture(scope="session")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of data sets that all workers share; what is collected there is collected once for the session."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "collected"


@pytest.fixture(scope="module")
def quick_figures() -> Iterator[None]:
    """Draw figures, but do not render them: laying out and rasterizing takes a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _save_blank)
        yield


def _save_blank(figure: Figure, path: Path, **options: object) -> None:
    matplotlib.image.imsave(path, np.zeros((1, 1)))


@contextlib.contextmanager
def rendered() -> Iterator[None]:
    """Render figures within a module that uses `quick_figures`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _SAVEFIG)
        yield
