"""Generated tables, good and bad, as hypothesis strategies: what users bring, and what goes wrong with it."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

IDS = {
    "integer": lambda index: index,
    "large": lambda index: 2**63 + index,
    "text": lambda index: f"a{index}",
    "zeros": lambda index: f"{index:03d}",
    "na": lambda index: ["NA", "nan", "x", "y", "z", "w"][index % 6],
    "float": lambda index: float(index),
    "date": lambda index: datetime.date(2020, 1, 1 + index),
    "fraction": lambda index: index + 0.5,
    "boolean": lambda index: bool(index % 2),
}
CLOCKS = {
    "steps": lambda step, jitter: step,
    "uneven": lambda step, jitter: step + jitter,
    "gaps": lambda step, jitter: step + 50 * (step > 4),
    "days": lambda step, jitter: datetime.date(2024, 1, 1) + datetime.timedelta(days=step),
    "months": lambda step, jitter: datetime.date(2020 + step // 12, 1 + step % 12, 1),
    "stamps": lambda step, jitter: datetime.datetime(2024, 1, 1) + datetime.timedelta(minutes=5 * step + jitter),
    "text": lambda step, jitter: (datetime.date(2024, 1, 1) + datetime.timedelta(days=step)).isoformat(),
    "german": lambda step, jitter: (datetime.date(2024, 1, 1) + datetime.timedelta(days=step)).strftime("%d.%m.%Y"),
    "nanoseconds": lambda step, jitter: 1_700_000_000_000_000_000 + step * 10**9,
    "twice": lambda step, jitter: step // 2,
    "none": lambda step, jitter: None if step == 1 else step,
    "words": lambda step, jitter: "soon",
    "infinite": lambda step, jitter: math.inf if step == 1 else float(step),
}
STATES = {
    "smooth": lambda step, number: math.sin(step / 3) + number,
    "constant": lambda step, number: 4.0,
    "missing": lambda step, number: None if number < 0.5 else number,
    "empty": lambda step, number: None,
    "integers": lambda step, number: step,
    "offset": lambda step, number: 5e6 + step + number,
    "large": lambda step, number: 1e30 * number,
    "tiny": lambda step, number: 1e-30 * number,
    "text": lambda step, number: "." if step == 1 else f"{number:.3f}",
    "words": lambda step, number: "high",
    "infinite": lambda step, number: math.inf if step == 1 else number,
    "boolean": lambda step, number: number < 0.5,
}
ACTIONS = {
    "dose": lambda step, number: number,
    "rare": lambda step, number: number if number > 0.8 else 0.0,
    "missing": lambda step, number: None if number < 0.3 else number,
    "category": lambda step, number: "ab"[number < 0.5],
    "boolean": lambda step, number: number < 0.5,
    "one": lambda step, number: "same",
    "numerals": lambda step, number: f"{number:.1f}",
    "constant": lambda step, number: 1.0,
    "empty": lambda step, number: None,
    "codes": lambda step, number: int(3 * number),
    "date": lambda step, number: datetime.date(2024, 1, 1),
    "large": lambda step, number: 1e200 * number,
}
COVARIATES = {
    "number": lambda index, step: 10.0 * index,
    "category": lambda index, step: "mf"[index % 2],
    "missing": lambda index, step: None if index % 2 else 1.0 + index,
    "varying": lambda index, step: float(step),
    "empty": lambda index, step: None,
}


# Kinds that are accepted; drawn as often as all others together.
_GOOD = {"integer", "text", "zeros", "steps", "uneven", "gaps", "days", "stamps", "smooth", "missing", "offset"}
_GOOD |= {"dose", "rare", "category", "number"}


def _kinds(made: dict[str, Any]) -> st.SearchStrategy[str]:
    """One of the kinds, half of the time one that is accepted."""
    good = [kind for kind in made if kind in _GOOD]
    return st.one_of(st.sampled_from(good), st.sampled_from(good), st.sampled_from(sorted(made)))


@dataclass
class Generated:
    """A table by column, and what its columns are said to be."""

    columns: dict[str, list[Any]]
    roles: dict[str, Any]
    medium: str = "memory"
    kinds: dict[str, Any] = field(default_factory=dict)


@st.composite
def tables(draw: st.DrawFn) -> Generated:
    """Draw a table of up to six agents with up to fourteen rows each."""
    kinds = {
        "id": draw(_kinds(IDS)),
        "clock": draw(_kinds(CLOCKS)),
        "states": draw(st.lists(_kinds(STATES), min_size=1, max_size=2)),
        "actions": draw(st.lists(_kinds(ACTIONS), max_size=2)),
        "inputs": draw(st.lists(_kinds(ACTIONS), max_size=1)),
        "covariates": draw(st.lists(_kinds(COVARIATES), max_size=1)),
    }
    lengths = draw(st.lists(st.integers(1, 14), min_size=1, max_size=6))
    rows = sum(lengths)
    numbers = draw(st.lists(st.floats(0, 1, width=32), min_size=rows, max_size=rows))
    columns: dict[str, list[Any]] = {"agent": [], "t": []}
    row = 0
    for index, length in enumerate(lengths):
        for step in range(length):
            number = numbers[row]
            row += 1
            columns["agent"].append(IDS[kinds["id"]](index))
            columns["t"].append(CLOCKS[kinds["clock"]](step, number))
            for role, made in (("states", STATES), ("actions", ACTIONS), ("inputs", ACTIONS)):
                for place, kind in enumerate(kinds[role]):
                    columns.setdefault(f"{role}{place}", []).append(made[kind](step, number))
            for place, kind in enumerate(kinds["covariates"]):
                columns.setdefault(f"covariates{place}", []).append(COVARIATES[kind](index, step))
    roles: dict[str, Any] = {
        "state": [f"states{place}" for place in range(len(kinds["states"]))],
        "action": [f"actions{place}" for place in range(len(kinds["actions"]))],
        "inputs": [f"inputs{place}" for place in range(len(kinds["inputs"]))],
        "covariates": [f"covariates{place}" for place in range(len(kinds["covariates"]))],
        "gaps": draw(st.sampled_from(["keep", "keep", "keep", "split", "error"])),
    }
    if "codes" in kinds["actions"]:
        roles["categorical"] = [f"actions{kinds['actions'].index('codes')}"]
    return Generated(columns, roles, draw(st.sampled_from(["memory", "csv", "parquet"])), kinds)
