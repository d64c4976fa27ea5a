"""Writes files atomically; reads and writes strict JSON; formats Markdown tables."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from persim_lightning.errors import ConfigurationError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    The temporary file is removed if the block fails. Missing folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check that a file can be written, before its content is computed.

    Raises
    ------
    ConfigurationError
        If it cannot be written.
    """
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error.strerror or error})") from error


def write_json(values: Any, path: Path) -> None:
    """Write strict JSON atomically; NaN and infinities become null."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(_finite(values), indent=2, allow_nan=False) + "\n")


def as_json(values: Any) -> Any:
    """What :func:`read_json` returns after :func:`write_json` wrote `values`."""
    return json.loads(json.dumps(_finite(values), allow_nan=False))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ConfigurationError
        If the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ConfigurationError(f"{path} is damaged ({error}): remove it, or create it again") from error


def _finite(values: Any) -> Any:
    """Replace NaN and infinities, which JSON does not know, by None."""
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return values


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in (headings, ["---"] * len(headings), *rows))
    return [f"| {' | '.join(cells)} |" for cells in escaped]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
