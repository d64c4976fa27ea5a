"""Small tasks that several methods are tested on."""

from pathlib import Path

import pyarrow.compute as pc
import pytest
import yaml

from persim_lightning.data.collecting.collect import ensure_test_data, ensure_training_data
from persim_lightning.data.datamodule import open_data
from persim_lightning.data.tables.sources import read_table, write_table
from persim_lightning.envs import get_environment
from persim_lightning.evaluation.control import PlanningSettings
from persim_lightning.methods.contract import Task
from persim_lightning.planning.shooting import RandomShooting
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def small_task(small_data):
    """Makes tasks of five agents in a real environment, with 40 steps and a few test episodes each."""

    def make(name: str, workspace: Path, seed: int = 0, dataset: str = "random", steps: int = 4) -> Task:
        configuration = yaml.safe_load((ROOT / f"conf/{name}.yaml").read_text())
        environment = get_environment(name)
        made = ensure_training_data(small_data, environment, dataset, 5, 0)
        train, test = (small_data / f"{name}-{dataset}-{kind}.parquet" for kind in ("train", "test"))
        table = read_table(made.table)
        write_table(table.filter(pc.less(table["t"], 41)), train)
        table = read_table(ensure_test_data(small_data, environment, 0))
        write_table(table.filter(pc.less(table["episode"], 4)), test)
        data = open_data(name, path=train, test_path=test, agents_path=made.agents)
        planning = PlanningSettings(RandomShooting(plans=4), horizon=3)
        return Task(environment, data.recordings, (0, 3), planning, configuration, steps, seed, workspace)

    return make


@pytest.fixture
def cartpole_task(small_task, tmp_path):
    return lambda **changes: small_task("cartpole", tmp_path / "workspace", **changes)
