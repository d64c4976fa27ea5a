"""Prints tables to a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of cells under headings, aligned to the right."""
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # Piped output has no terminal width; rich would assume 80 columns.
    Console(width=None if sys.stdout.isatty() else 160).print(table)
