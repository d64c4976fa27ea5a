"""Springs of different stiffness that are pushed left, not at all, or right."""

import pyarrow as pa
import torch

from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.types import Schema

SCHEMA = Schema(("position", "speed"), ("push",), 3)


def springs(agents, steps, seed):
    """One trajectory of every agent."""
    generator = torch.Generator().manual_seed(seed)
    stiffness = torch.linspace(0.5, 8.0, agents, dtype=torch.float64)
    state = 2 * torch.rand(agents, 2, generator=generator, dtype=torch.float64) - 1
    columns = {name: [] for name in ("agent", "t", "position", "speed", "push")}
    for t in range(steps + 1):
        push = torch.randint(3, (agents,), generator=generator)
        values = (torch.arange(agents), torch.full((agents,), t), *state.T, push)
        for name, value in zip(columns, values, strict=True):
            columns[name] += value.tolist()
        speed = state[:, 1] + 0.1 * (2.0 * (push - 1) - stiffness * state[:, 0])
        state = torch.stack((state[:, 0] + 0.1 * speed, speed), 1)
    return trajectories_from_table(pa.table(columns), SCHEMA, "springs")
