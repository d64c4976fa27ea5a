"""Patients who clear a substance at rates of their own, under doses and drugs."""

import datetime

import numpy as np

DECAY = {"none": 0.0, "weak": 0.05, "strong": 0.15}


def effect(agent, drug):
    """Patients differ in how fast they clear a substance, and in how well drugs work."""
    return 0.1 + 0.01 * agent + DECAY[drug] * (0.5 + 0.05 * agent)


def patients(agents, rows, first=0, seed=0, start=datetime.date(2024, 3, 1)):
    """One course of treatment each: a level that falls, a dose that raises it, and a drug that speeds the fall."""
    rng = np.random.default_rng(seed)
    table = {name: [] for name in ("patient", "day", "level", "constant", "dose", "drug", "comfort", "gone")}
    for agent in range(first, first + agents):
        level = rng.uniform(0.5, 1.5)
        for row in range(rows):
            dose, drug = rng.uniform(0, 0.4), str(rng.choice(list(DECAY)))
            following = level + dose - effect(agent, drug) * level
            last = row == rows - 1
            values = (f"p{agent}", start + datetime.timedelta(days=row), level, 7.0)
            acts = (None, None, None) if last else (dose, drug, -abs(following - 1))
            for name, value in zip(table, (*values, *acts, last and agent % 2 == 0), strict=True):
                table[name].append(value)
            level = following
    return table


ROLES = {"agent": "patient", "time": "day", "state": ["level", "constant"], "action": ["dose", "drug"]}
