"""Simulators as ONNX models: onnxruntime and torch agree."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from persim_lightning.errors import ConfigurationError, PersimError
from persim_lightning.interop.onnx_export import export_onnx
from persim_lightning.models.population import FittedPopulation
from persim_lightning.types import Schema
from tests.conftest import random_simulator


def population(kind, num_actions, wall=torch.inf):
    actions = ("a",) if num_actions else ("a", "b")
    schema = Schema(("x", "y", "z"), actions, num_actions)
    return FittedPopulation(random_simulator(kind, num_actions, wall), schema, range(6))


@pytest.mark.parametrize(("kind", "num_actions", "wall"), [("cp", 3, 0.5), ("tucker", None, torch.inf)])
def test_onnxruntime_steps_as_torch_does(kind, num_actions, wall, tmp_path):
    """Discrete and continuous actions, angles, walls, both factorizations; any number of rows."""
    fitted = population(kind, num_actions, wall)
    path = export_onnx(fitted, 4, tmp_path / "agent.onnx")
    session = onnxruntime.InferenceSession(str(path))
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 7):
        states = torch.randn(3, rows, 3, generator=generator)
        actions = torch.randn(rows, 2, generator=generator)
        if num_actions is not None:
            actions = torch.randint(num_actions, (rows,), generator=generator)
        [found] = session.run(None, {"state": states.numpy(), "action": actions.numpy()})
        expected = fitted.simulator.step(torch.full((rows,), 4), states, actions).detach().numpy()
        np.testing.assert_allclose(found, expected, atol=2e-5)
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["agent"]) == 4
    assert Schema.from_dict(json.loads(properties["schema"])) == fitted.schema


def test_bad_requests_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"ends with \.onnx"):
        export_onnx(population("cp", 3), 0, tmp_path / "agent.pt")
    with pytest.raises(PersimError, match="unknown agent 9"):
        export_onnx(population("cp", 3), 9, tmp_path / "agent.onnx")
    assert not list(tmp_path.iterdir())
