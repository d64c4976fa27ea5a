"""Tanks that drain at a rate of their own while water is poured in now and then, recorded at uneven times."""

from __future__ import annotations

import numpy as np

ROLES = {"agent": "tank", "time": "hour", "state": ["level"], "action": ["poured"]}
STEP = 1.0


def drain(tank: int) -> float:
    """Rate of a tank."""
    return 0.05 + 0.02 * (tank % 8)


def level_after(tank: int, level: float, poured: float, hours: float) -> float:
    """Level after water was poured in evenly over one hour, or less if `hours` is shorter."""
    rate, pouring = drain(tank), min(hours, STEP)
    level = poured / rate + (level - poured / rate) * np.exp(-rate * pouring)
    return float(level * np.exp(-rate * max(0.0, hours - STEP)))


def tanks(count: int, rows: int, seed: int = 0, first: int = 0, missing: float = 0.0) -> dict[str, list]:
    """A table of tanks: hours drawn from 1 to 2.5 apart, water poured in at two rows of five."""
    rng = np.random.default_rng(seed)
    table: dict[str, list] = {name: [] for name in ("tank", "hour", "level", "poured")}
    for tank in range(first, first + count):
        hour, level = 0.0, float(rng.uniform(0.5, 2.0))
        for row in range(rows):
            poured = float(rng.uniform(0.2, 1.0)) if rng.uniform() < 0.4 else 0.0
            empty = row > 0 and rng.uniform() < missing
            for name, value in zip(table, (f"t{tank}", hour, None if empty else level, poured), strict=True):
                table[name].append(value)
            pause = float(rng.uniform(1.0, 2.5))
            hour, level = hour + pause, level_after(tank, level, poured, pause)
    return table
