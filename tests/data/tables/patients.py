"""A user's table of two patients, for tests."""

import numpy as np
import pyarrow as pa

from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.user import user_trajectories

COLUMNS = TableColumns(
    state=["glucose"], action=["dose", "drug"], agent="patient", time="day", reward="well", terminated="cured"
)


def patients() -> dict[str, list]:
    """Two patients: rows out of order, an unused column, mixed actions."""
    return {
        "patient": ["eve", "eve", "bob", "eve", "bob", "bob"],
        "day": [2, 0, 10, 1, 11, 12],
        "glucose": [5.0, 7.0, 4.0, 6.5, 4.5, 4.25],
        "dose": [None, 1.0, 0.0, 0.5, 2.0, None],
        "drug": [None, "b", "a", "c", "a", None],
        "well": [None, 1.0, 2.0, 3.0, 4.0, None],
        "cured": [True, False, False, False, False, False],
        "name": ["x"] * 6,
    }


def read(values, columns=COLUMNS):
    return user_trajectories(pa.table(values), columns, "mine")


def long_table(days):
    count = len(days)
    return {
        "patient": ["eve"] * count,
        "day": days,
        "glucose": np.arange(count, dtype=float),
        "dose": np.ones(count),
    }


GAPPY = TableColumns(["glucose"], ["dose"], "patient", "day")
