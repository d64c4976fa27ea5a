"""Reads the record file of an offline W&B run: a LevelDB log (blocks of 32 KiB) behind a header of seven bytes.

Format: https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import json
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def logged_values(path: Path) -> dict[str, list]:
    """Everything that was logged, key by key, in order."""
    values = defaultdict(list)
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                values[item.key or "/".join(item.nested_key)].append(json.loads(item.value_json))
    return dict(values)


def values_when_written(path: Path, key: str) -> dict[str, list]:
    """As :func:`logged_values`, once `key` is there: W&B's own process may still be writing."""
    begun = time.monotonic()
    while key not in (values := logged_values(path)):
        assert time.monotonic() - begun < 60, f"{key} was not logged"
        time.sleep(0.1)
    return values
