"""CSV files as they come, and columns of every type."""

from __future__ import annotations

import datetime
import decimal
import gzip
import uuid

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.sources import as_table, read_table, write_table
from persim_lightning.data.tables.user import user_trajectories
from persim_lightning.errors import TableError

ROWS = [("001", 0, 1.5, 2.0), ("001", 1, 1.25, 3.0), ("002", 0, 7.0, 0.5), ("002", 1, 7.5, 0.25)]
COLUMNS = TableColumns(["x"], ["u"], "who", "t")


def read(path):
    return user_trajectories(read_table(path, ["who"]), COLUMNS, str(path))


def text_of(separator=",", decimal_point="."):
    lines = [separator.join(("who", "t", "x", "u", "größe"))]
    lines += [separator.join((*map(str, row), "ä")).replace(".", decimal_point) for row in ROWS]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", text_of().encode()),
        ("UPPER.CSV", text_of().encode()),
        ("bom.csv", b"\xef\xbb\xbf" + text_of().encode()),
        ("latin.csv", text_of().encode("latin-1")),
        ("semicolon.csv", text_of(";", ",").encode()),
        ("tabs.tsv", text_of("\t").encode()),
        ("packed.csv.gz", gzip.compress(text_of().encode(), mtime=0)),
    ],
)
def test_files_are_read_alike(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    trajectories = read(path)
    assert trajectories.agent_ids == ("001", "002")
    assert trajectories.state[:, 0].tolist() == [1.5, 1.25, 7.0, 7.5]
    assert trajectories.action[[0, 2], 0].tolist() == [2.0, 0.5]


def test_plain_integers_are_integer_ids(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("who,t,x,u\n10,0,1,2\n10,1,1,2\n9,0,1,2\n9,1,2,2\n")
    assert read(path).agent_ids == (9, 10)
    path.write_text("who,t,x,u\nNA,0,1,2\nNA,1,1,2\n")
    assert read(path).agent_ids == ("NA",)


def test_folders_of_parquet_files(tmp_path):
    table = pa.table(dict(zip(("who", "t", "x", "u"), zip(*ROWS, strict=True), strict=True)))
    for part in range(2):
        pq.write_table(table.slice(2 * part, 2), tmp_path / f"part{part}.parquet")
    assert read(tmp_path).agent_ids == ("001", "002")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([2**63, 2**63, 1, 1], pa.uint64()), ("1", str(2**63))),
        (pa.array([1.0, 1.0, 2.0, 2.0]), (1, 2)),
        ([uuid.UUID(int=1)] * 2 + [uuid.UUID(int=2)] * 2, (str(uuid.UUID(int=1)), str(uuid.UUID(int=2)))),
        ([datetime.date(2024, 1, 1)] * 2 + [datetime.date(2024, 1, 2)] * 2, ("2024-01-01", "2024-01-02")),
        (pa.array(["b", "b", "a", "a"]).dictionary_encode(), ("a", "b")),
    ],
)
def test_ids_of_every_type(ids, expected):
    ids = [str(label) for label in ids] if isinstance(ids, list) and isinstance(ids[0], uuid.UUID) else ids
    table = pa.table({"who": ids, "t": [0, 1, 0, 1], "x": [1.0, 2, 3, 4], "u": [1.0] * 4})
    assert user_trajectories(table, COLUMNS, "mine").agent_ids == expected
    with pytest.raises(TableError, match="column 'who' has type double, expected integers or text"):
        user_trajectories(table.set_column(0, "who", pa.array([0.5] * 4)), COLUMNS, "mine")


@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"],
        ["31.12.2023", "01.01.2024"],
        [np.datetime64("2024-01-01T00:00:00.000000001"), np.datetime64("2024-01-02T00:00:00.000000002")],
        [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)],
    ],
)
def test_times_of_every_type(times):
    table = pa.table({"who": ["a", "a"], "t": pa.array(times), "x": [1.0, 2.0], "u": [1.0, 1.0]})
    assert user_trajectories(table, COLUMNS, "mine").schema.step == 86400


def test_numbers_of_every_type():
    base = {"who": ["a", "a"], "t": [0, 1], "u": [1.0, 1.0]}
    for values in (
        pa.array([decimal.Decimal("1.5"), decimal.Decimal("2.5")]),
        pa.array(np.array([1.5, 2.5], dtype=np.float16)),
        pa.array(["1.5", " 2.5 "]),
    ):
        assert user_trajectories(pa.table({**base, "x": values}), COLUMNS, "mine").state[:, 0].tolist() == [1.5, 2.5]
    doses = user_trajectories(pa.table({**base, "x": [1.0, 2.0], "u": ["0.5", "1"]}), COLUMNS, "mine")
    assert doses.schema.action_columns[0].categories is None
    with pytest.raises(TableError, match="mine: column 'x', row 1: too large a number"):
        user_trajectories(pa.table({**base, "x": [1.0, 1e30]}), COLUMNS, "mine")


def test_columns_that_are_there_twice_are_refused_if_they_are_used():
    values = [["a"] * 2, [0, 1], [1.0] * 2, [1.0] * 2, [2.0] * 2]
    table = pa.table(values, names=["who", "t", "x", "u", "note"])
    twice = table.append_column("note", pa.array([3.0] * 2))
    user_trajectories(twice, COLUMNS, "mine")
    with pytest.raises(TableError, match="mine: there are several columns 'x'"):
        user_trajectories(table.append_column("x", pa.array([3.0] * 2)), COLUMNS, "mine")


def test_the_index_of_a_data_frame_is_no_column(tmp_path):
    frame = pandas.DataFrame({"who": ["a"], "weight": [1.0]}, index=[7])
    assert as_table(frame)[0].column_names == ["who", "weight"]
    write_table(pa.table({"who": ["a"]}), tmp_path / "a.csv")
    assert as_table(tmp_path / "a.csv")[0].column_names == ["who"]
