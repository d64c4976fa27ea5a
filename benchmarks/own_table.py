"""Fitting users' own tables: time, coverage of intervals, adaptation, and memory for very many agents.

`python benchmarks/own_table.py` (one thread; about two minutes; the options make it smaller). Agents are leaking tanks:
each has a leak and a pump of its own.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pyarrow as pa
import torch

from persim_lightning import PersonalizedSimulator
from persim_lightning.support.terminal import print_table

ROLES = {"agent": "tank", "time": "hour", "state": ["level"], "action": ["inflow"]}


def tanks(agents: int, rows: int, seed: int) -> tuple[pa.Table, np.ndarray]:
    """A table of tanks, and their levels (agents, rows). Tanks with the same number are the same, whatever the seed."""
    own = np.random.default_rng(0)
    leak, pump = own.uniform(0.05, 0.2, agents), own.uniform(0.05, 0.15, agents)
    rng = np.random.default_rng(seed)
    inflow = rng.uniform(0, 1, (agents, rows))
    level = np.empty((agents, rows))
    level[:, 0] = rng.uniform(0.5, 1.5, agents)
    for hour in range(rows - 1):
        flow = pump * inflow[:, hour] - leak * level[:, hour] ** 0.5
        level[:, hour + 1] = np.maximum(level[:, hour] + flow, 0.05)
    columns = {
        "tank": np.repeat(np.arange(agents), rows),
        "hour": np.tile(np.arange(rows), agents),
        "level": level.ravel(),
        "inflow": inflow.ravel(),
    }
    return pa.table(columns), level


def covered(simulator: PersonalizedSimulator, rows: int, level: float) -> float:
    """Share of true levels inside intervals: the last tenth of other courses of the same tanks."""
    inside = []
    start = rows - 1 - (rows - 1) // 10
    for seed in (1, 2, 3):
        table, levels = tanks(len(simulator.agents), rows, seed)
        inflow = table["inflow"].to_numpy().reshape(levels.shape)
        for tank in simulator.agents:
            actions = {"inflow": inflow[tank, start:-1].tolist()}
            low, high = simulator.rollout(tank, [levels[tank, start]], actions, level).interval
            inside.append((low[1:, 0] <= levels[tank, start + 1 :]) & (levels[tank, start + 1 :] <= high[1:, 0]))
    return float(np.mean(inside))


def peak() -> float:
    """Largest memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=480, help="of each of 30 agents")
    parser.add_argument("--many", type=int, default=100_000, help="agents of 20 rows each")
    parser.add_argument("--epochs", type=int, help="of both fits (default: as many as make 4,000 steps)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table, _ = tanks(30, args.rows, 0)
    start = time.perf_counter()
    simulator = PersonalizedSimulator.fit(table, **ROLES, epochs=args.epochs, progress=False)
    seconds = time.perf_counter() - start
    new = tanks(31, 21, 5)[0].slice(30 * 21)
    start = time.perf_counter()
    simulator.adapt(new)
    rows = [
        (f"fit of 30 agents × {args.rows} rows", f"{seconds:.0f} s"),
        ("adapting to an agent from 20 transitions", f"{1000 * (time.perf_counter() - start):.0f} ms"),
        *(
            (f"coverage of {level:.0%} intervals", f"{covered(simulator, args.rows, level):.1%}")
            for level in (0.8, 0.9, 0.95)
        ),
    ]
    before = peak()
    large, _ = tanks(args.many, 20, 0)
    start = time.perf_counter()
    fitted = PersonalizedSimulator.fit(large, **ROLES, rank=4, epochs=args.epochs, progress=False)
    model = sum(value.numel() * value.element_size() for value in fitted.population.simulator.parameters()) / 1e6
    rows += [
        (f"fit of {args.many:,} agents × 20 rows", f"{time.perf_counter() - start:.0f} s"),
        ("its table, its model", f"{large.nbytes / 1e6:.0f} MB, {model:.0f} MB"),
        ("its peak memory above what was used before", f"{peak() - before:.0f} MB"),
    ]
    print_table("own tables, one thread", ("", "measured"), rows)


if __name__ == "__main__":
    main()
