"""One agent's simulator as an ONNX model, for programs without Python or torch (https://onnx.ai)."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from persim_lightning.errors import ConfigurationError, MissingPackageError
from persim_lightning.models.agent_simulator import AgentSimulator
from persim_lightning.models.contraction import network_inputs, select_outputs
from persim_lightning.models.integrate import integrate
from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.files import atomic_write

# Lowest version with GELU as one operator.
_OPSET = 20


class PlainStep(nn.Module):
    """One step of one agent's simulator without in-place operations, so that it can be exported.

    Parameters
    ----------
    simulator : AgentSimulator
        Simulator of a single agent.
    """

    def __init__(self, simulator: AgentSimulator) -> None:
        super().__init__()
        self.simulator = simulator

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """States (M, B, D), actions (B,) int64 or (B, A) -> next states (M, B, D)."""
        simulator = self.simulator
        stop = simulator.walls.stop if simulator.walls.enabled else nn.Identity()
        return integrate(lambda states: self._rate(states, action), state, None, simulator.integrator, stop)

    def _rate(self, state: Tensor, action: Tensor) -> Tensor:
        """Predict changes per base step (M, B, D)."""
        simulator, parts = self.simulator, self.simulator.parts
        dtype = parts.head_bias.dtype
        inputs = features = network_inputs(state.mT, simulator.angles, parts.center, dtype)
        for weight, bias in parts.hidden:
            features = F.gelu(weight @ features + bias)
        output = parts.head_inputs[0] @ inputs + parts.head_bias[0]
        if parts.head_hidden.shape[-1]:
            output = output + parts.head_hidden[0] @ features
        return select_outputs(output, action, state.shape[-1], simulator.action_encoder)


def export_onnx(population: FittedPopulation, agent: int | str, path: Path) -> Path:
    """Write one agent's simulator as ONNX, atomically.

    Parameters
    ----------
    population : FittedPopulation
    agent : int or str
    path : Path
        An .onnx file. Inputs `state` (M, B, D), a trajectory for every ensemble member, of the schema's type, and
        `action` (B,) int64 or (B, A) float32; output `next_state` (M, B, D), all in raw units. B is free. The file's
        metadata hold the agent and the columns; the prediction is the mean over M.

    Raises
    ------
    PersimError
        If the agent is unknown, the path has another suffix, or onnxscript is not installed.
    """
    if path.suffix != ".onnx":
        raise ConfigurationError(f"{path}: give a file that ends with .onnx")
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("export to ONNX", "onnx and onnxscript", "interop") from error
    schema, simulator = population.schema, population.personalize(agent)
    state = torch.zeros(simulator.members, 2, schema.state_dim, dtype=schema.state_dtype)
    action = torch.zeros(2, dtype=torch.int64) if schema.num_actions is not None else torch.zeros(2, schema.action_dim)
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            PlainStep(simulator).eval(),
            (state, action),
            input_names=["state", "action"],
            output_names=["next_state"],
            dynamic_shapes={"state": {1: batch}, "action": {0: batch}},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {"agent": json.dumps(agent), "schema": json.dumps(schema.to_dict())})
    with atomic_write(path) as temporary:
        onnx.save(model, temporary)
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings about torchvision and deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message=".*axis name: batch will not be used")
            yield
    finally:
        logger.setLevel(level)
