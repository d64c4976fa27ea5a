"""Reads CSV files as they come: separators, decimal commas, encodings and compression are found."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

_SEPARATORS = (",", ";", "\t", "|")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_PLAIN_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
# Lines from which separators are found.
_LINES = 20


def read_csv(path: Path, ids: Sequence[str] = ()) -> pa.Table:
    """Read a CSV file; empty cells are null.

    Parameters
    ----------
    path : Path
        May be compressed by gzip.
    ids : sequence of str
        Columns of ids: integers if all are written plainly, text otherwise.

    Raises
    ------
    pyarrow.ArrowException, OSError, UnicodeError
        If the file cannot be parsed.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        # Every byte is a character of Latin-1.
        text = data.decode("latin-1")
    head = text.splitlines()[:_LINES]
    separator = _separator(head)
    comma = separator != "," and any(
        _DECIMAL_COMMA.fullmatch(cell) for row in csv.reader(head[1:], delimiter=separator) for cell in row
    )
    options = pa.csv.ConvertOptions(
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        decimal_point="," if comma else ".",
        column_types=dict.fromkeys(ids, pa.string()),
    )
    parse = pa.csv.ParseOptions(delimiter=separator)
    table = pa.csv.read_csv(io.BytesIO(text.encode()), parse_options=parse, convert_options=options)
    for name in ids:
        if name in table.column_names:
            column = table[name]
            plain = pc.all(pc.match_substring_regex(column, _PLAIN_INTEGER)).as_py()
            if plain:
                table = table.set_column(table.column_names.index(name), name, column.cast(pa.int64()))
    return table


def _separator(lines: Sequence[str]) -> str:
    """Find the separator that divides the header into most columns, a comma in doubt."""
    if not lines:
        return ","
    counts = [len(next(csv.reader(lines[:1], delimiter=separator))) for separator in _SEPARATORS]
    return _SEPARATORS[counts.index(max(counts))]
