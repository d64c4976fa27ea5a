"""Tables from any source."""

import pyarrow as pa
import pytest
import torch

from persim_lightning.data.tables.sources import as_table, write_table
from persim_lightning.data.tables.user import user_trajectories
from persim_lightning.errors import TableError
from tests.data.tables.patients import COLUMNS, patients, read


@pytest.mark.parametrize("kind", ["path", "pandas", "polars", "arrow", "dict"])
def test_any_source_gives_the_same(tmp_path, kind):
    if kind in ("pandas", "polars"):
        frame = pytest.importorskip(kind).DataFrame(patients())
        given = frame.astype({"drug": "category"}) if kind == "pandas" else frame
    elif kind == "path":
        given = tmp_path / "patients.csv"
        write_table(pa.table(patients()), given)
    else:
        given = pa.table(patients()) if kind == "arrow" else patients()
    table, _ = as_table(given)
    read_in, expected = user_trajectories(table, COLUMNS, "mine"), read(patients())
    for name in ("state", "action", "delta", "offsets", "agent", "reward"):
        assert torch.equal(getattr(read_in, name), getattr(expected, name))
    assert read_in.schema == expected.schema


def test_dates_as_text_and_categories_of_polars():
    days = [f"2024-03-{day:02d}" for day in (3, 1, 11, 2, 12, 13)]
    assert read({**patients(), "day": days}).schema.step == 86400
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(patients()).with_columns(polars.col("drug", "patient").cast(polars.Categorical))
    read_in = user_trajectories(as_table(frame)[0], COLUMNS, "mine")
    assert torch.equal(read_in.action, read(patients()).action)
    assert read_in.agent_ids == ("bob", "eve")


def test_sources_have_a_known_kind():
    with pytest.raises(TableError, match=r"table: give a path.*not builtins\.int"):
        as_table(3)
    with pytest.raises(TableError, match="has no rows"):
        as_table({"a": []})
    with pytest.raises(TableError, match="cannot be read"):
        as_table({"a": [1], "b": [1, 2]})
