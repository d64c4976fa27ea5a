"""Saved simulators that do not hold together are refused in one line, before memory is taken for them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from persim_lightning.errors import SimulatorFileError
from persim_lightning.models.population import FittedPopulation
from tests.conftest import ROOT


@pytest.fixture
def saved(tmp_path):
    return shutil.copytree(ROOT / "tests/fixtures/switched", tmp_path / "saved")


def change(saved, **values):
    path = saved / "simulator.json"
    description = json.loads(path.read_text())
    for name, value in values.items():
        part = description if name in description else description["architecture"]
        part[name] = value
    path.write_text(json.dumps(description))


def test_as_many_ids_as_factors(saved):
    change(saved, agent_ids=[0, 1])
    with pytest.raises(SimulatorFileError, match="2 different agent ids for 16 agents"):
        FittedPopulation.load(saved)
    change(saved, agent_ids=[0] * 16)
    with pytest.raises(SimulatorFileError, match="1 different agent ids for 16 agents"):
        FittedPopulation.load(saved)


def test_sizes_are_compared_before_memory_is_taken(saved):
    change(saved, agent_ids=list(range(16)), members=10**9)
    with pytest.raises(SimulatorFileError, match=r"agent factors have shape \[3, 16, 2\], but must have \[1000000000"):
        FittedPopulation.load(saved)


def test_weights_are_finite(saved):
    state = load_file(saved / "simulator.safetensors")
    state["agent_encoder.shared"] = torch.full_like(state["agent_encoder.shared"], torch.nan)
    save_file(state, saved / "simulator.safetensors")
    with pytest.raises(SimulatorFileError, match=r"agent_encoder\.shared is not finite"):
        FittedPopulation.load(saved)
