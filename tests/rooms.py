"""Rooms that cool at rates of their own, with a heater that is switched or dialed."""

import numpy as np

TARGET, OUTSIDE = 21.0, 5.0


def following(room, temperature, heat):
    """Temperature an hour later."""
    return temperature + (0.03 + 0.005 * room) * (OUTSIDE - temperature) + 3.0 * heat


def rooms(count=16, hours=50, dial=False, seed=0):
    rng = np.random.default_rng(seed)
    table = {name: [] for name in ("room", "hour", "temperature", "heater", "mode", "comfort", "frozen")}
    for room in range(count):
        temperature = rng.uniform(12, 24)
        for hour in range(hours):
            on = rng.random() < 0.5
            heat = rng.uniform(0, 1) if dial else float(on)
            after = following(room, temperature, heat)
            values = (room, hour, temperature, heat if dial else ["off", "on"][on], rng.choice(["eco", "max"]))
            for name, value in zip(table, (*values, -abs(after - TARGET), False), strict=True):
                table[name].append(value)
            temperature = after
    return table


ROLES = {"agent": "room", "time": "hour", "state": ["temperature"], "reward": "comfort"}
QUICK = {"rank": 2, "members": 3, "hidden_width": 16, "epochs": 150, "progress": False}
