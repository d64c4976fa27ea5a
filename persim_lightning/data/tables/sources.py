"""Reads tables from files, data frames, dicts of columns and Minari data sets; writes files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from persim_lightning.data.tables.csv_files import read_csv
from persim_lightning.errors import TableError
from persim_lightning.support.files import atomic_write

_INDEX = re.compile(r"__index_level_\d+__")


def read_table(path: Path, ids: Sequence[str] = ()) -> pa.Table:
    """Read a Parquet or CSV file, a folder of Parquet files, or a Minari data set: its folder or `main_data.hdf5`.

    CSV files may be compressed (.csv.gz), and separated by semicolons with decimal commas, or by tabs.

    Parameters
    ----------
    path : Path
    ids : sequence of str
        Columns of ids, which stay text in a CSV file unless all of them are plain integers: `001` is text.

    Raises
    ------
    TableError
        If the file is missing, has another suffix, cannot be parsed, or has no rows.
    """
    parquet_folder = path.is_dir() and any(path.glob("*.parquet"))
    if not parquet_folder and (path.is_dir() or (path.suffix == ".hdf5" and path.is_file())):
        # Imported late: gymnasium is slow to load, and most tables are files.
        from persim_lightning.data.tables.minari import minari_table, open_minari

        return minari_table(open_minari(path), str(path))
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if not parquet_folder and suffix not in ("parquet", "csv", "tsv", "hdf5"):
        raise TableError(f"{path}: cannot read '{path.suffix}'; give a .parquet or .csv file, or a Minari data set")
    if not path.exists():
        raise TableError(f"{path}: no such file")
    try:
        table = pq.read_table(path) if parquet_folder or suffix == "parquet" else read_csv(path, ids)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise TableError(f"{path}: not a readable {suffix} file ({str(error).splitlines()[0]})") from error
    if table.num_rows == 0:
        raise TableError(f"{path}: the table has no rows")
    return table


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet or CSV file, whole or not at all."""
    if path.suffix not in (".parquet", ".csv"):
        raise TableError(f"{path}: cannot write '{path.suffix}'; choose .parquet or .csv")
    with atomic_write(path) as temporary:
        if path.suffix == ".csv":
            pa.csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary, compression="zstd")


def as_table(source: Any, name: str = "table", ids: Sequence[str] = ()) -> tuple[pa.Table, str]:
    """Convert a user's data to an Arrow table, and return it with its name for error messages.

    Parameters
    ----------
    source : path, pyarrow.Table, pandas or polars DataFrame, dict of columns, or minari.MinariDataset
        A path names a .parquet or .csv file, or the folder of a Minari data set. Data frames need no further packages.
    name : str
        Name of the table in error messages, unless it is a file.
    ids : sequence of str
        As for :func:`read_table`.

    Raises
    ------
    TableError
        If the source has another type, or no rows.
    """
    if isinstance(source, str | Path):
        return read_table(Path(source), ids), str(source)
    try:
        if isinstance(source, pa.Table):
            table = source
        elif hasattr(source, "iterate_episodes"):
            from persim_lightning.data.tables.minari import minari_table  # late, as above

            table = minari_table(source, name)
        elif isinstance(source, Mapping):
            table = pa.table({str(label): values for label, values in source.items()})
        elif _is_pandas(source) and hasattr(source, "columns"):
            table = _pandas_table(source)
        elif hasattr(source, "__arrow_c_stream__"):
            table = pa.table(source)
        else:
            kind = f"{type(source).__module__}.{type(source).__qualname__}"
            raise TableError(
                f"{name}: give a path, a pyarrow table, a pandas or polars data frame, a Minari data set "
                f"or a dict of columns, not {kind}"
            )
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TableError(f"{name}: cannot be read ({str(error).splitlines()[0]})") from error
    if not table.num_rows:
        raise TableError(f"{name}: the table has no rows")
    # The unnamed index of a pandas data frame is not a column of the user's.
    return table.drop_columns([label for label in table.column_names if _INDEX.fullmatch(label)]), name


def _is_pandas(source: Any) -> bool:
    return type(source).__module__.partition(".")[0] == "pandas"


def _pandas_table(frame: Any) -> pa.Table:
    """Convert a pandas data frame; its labels may be numbers, and those of columns that nobody uses may repeat."""
    if frame.columns.nlevels > 1:
        return pa.table(frame)
    if frame.columns.is_unique:
        return pa.table(frame.rename(columns=str))
    if frame.index.name is not None:
        frame = frame.reset_index()
    columns = [pa.array(frame.iloc[:, index]) for index in range(frame.shape[1])]
    return pa.Table.from_arrays(columns, [str(label) for label in frame.columns])


def like(source: Any, table: pa.Table) -> Any:
    """Convert a table to the kind of `source`: a pandas or polars data frame; an Arrow table for all others."""
    if _is_pandas(source):
        return table.to_pandas()
    if type(source).__module__.partition(".")[0] == "polars":
        import polars  # the user has it

        return polars.from_arrow(table)
    return table
