"""The command `persim`: finds the subcommand, and imports no other."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from persim_lightning.errors import ConfigurationError, PersimWarning
from persim_lightning.support.parsing import one_line_errors

COMMANDS = {
    "fit": "fit a personalized simulator of every agent, on a table or an environment",
    "adapt": "add agents to a fitted population from a few rows of each, or from covariates",
    "evaluate": "score 50-step rollouts of a run on test trajectories",
    "forecast": "predict the states of rows to come, from a table of agents, times and actions",
    "plan": "play MPC episodes planned on each agent's simulator, in the real environment",
    "report": "one HTML page of a run, with a what-if panel",
    "export": "one agent's simulator as ONNX, or trajectories as a Minari data set",
    "theorem": "check the low-rank theorem on a run or an environment",
    "collect": "make a data set of one of the three environments",
    "benchmark": "compare methods on a grid of data sets and seeds; the paper's Tables 1 to 3",
    "unseen": "study: how many rows an unseen agent needs",
    "scarcity": "study: how many agents a population needs",
    "train-policy": "train a behavior policy by stable-baselines3",
}
_WIDTH = max(map(len, COMMANDS))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Print a warning about the user's input as one line, and others as Python does."""
    if issubclass(category, PersimWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@one_line_errors
def run(command: str, arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; ends the process with one line on standard error where the input is at fault.

    Parameters
    ----------
    command : str
        A key of `COMMANDS`.
    arguments : sequence of str, optional
        The process's own by default.
    """
    # A command that is terminated ends like one that is interrupted, and says how to resume.
    with contextlib.suppress(ValueError):  # signals belong to the main thread
        signal.signal(signal.SIGTERM, _interrupt)
    warnings.showwarning = _show_warning
    # A user's reward or method may be defined in the current folder.
    sys.path.append(str(Path.cwd()))
    module = import_module(f"persim_lightning.cli.{command.replace('-', '_')}")
    module.main(sys.argv[1:] if arguments is None else list(arguments))


@one_line_errors
def main() -> None:
    """Entry point of the console script."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(_help())
    elif command == "--version":
        print(f"persim-lightning {version('persim-lightning')}")
    elif command in COMMANDS:
        run(command, arguments)
    else:
        raise ConfigurationError(f"unknown command '{command}': choose from {', '.join(COMMANDS)} (see persim --help)")


def _help() -> str:
    lines = [f"  {name:<{_WIDTH}}  {words}" for name, words in COMMANDS.items()]
    return "\n".join(
        [
            "usage: persim COMMAND [OPTIONS]",
            "",
            "Personalized simulators of many different agents, from one trajectory each.",
            "",
            *lines,
            "",
            "persim COMMAND --help lists the options of a command; persim --version prints the version.",
        ]
    )
