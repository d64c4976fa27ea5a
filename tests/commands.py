"""Commands as users run them, without starting Python anew for each: importing takes longer than most of them."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from tests.conftest import ROOT

# Of each test agent; and where data sets lie that tests of commands share (set by their conftest).
TEST_EPISODES = 12
data_root: Path | None = None


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and what it printed, as in `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def environment() -> dict[str, str]:
    """No W&B account, no network use, nothing inherited from another fit."""
    hidden = ("WANDB", "PERSIM", "NETRC")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return {**kept, "NETRC": os.devnull, "HOME": kept.get("HOME", "/"), "OMP_NUM_THREADS": "1"}


def run_tool(name: str, folder: Path, *options: str) -> Done:
    """`python tools/NAME.py OPTIONS` in `folder`, run in this process."""
    script = str(ROOT / f"tools/{name}.py")
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment(), clear=True),
        patch.object(sys, "argv", [script, *options]),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = 0
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            # As the interpreter does: a text goes to standard error and means status 1.
            if isinstance(ended.code, str):
                print(ended.code, file=sys.stderr)
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Done(code, out.getvalue(), err.getvalue())
