"""Command lines and settings files: what is wrong with them is said in one line."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from persim_lightning.errors import ConfigurationError, PersimError

Args = ParamSpec("Args")
Settings = TypeVar("Settings")


def one_line(text: object) -> str:
    """A message without line breaks."""
    return " ".join(str(text).split())


def user_error(error: BaseException) -> PersimError | None:
    """The PersimError that an exception is or was raised from; libraries wrap what a constructor raises."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PersimError):
        cause = cause.__cause__ or cause.__context__
    return cause


def one_line_errors(command: Callable[Args, None]) -> Callable[Args, None]:
    """Let a command end with one line on standard error and status 1 where the user's input is at fault."""

    @functools.wraps(command)
    def wrapped(*args: Args.args, **kwargs: Args.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            sys.exit("interrupted")
        except OSError as error:
            if error.filename is None:
                raise
            sys.exit(f"error: {error.filename}: {error.strerror or type(error).__name__}")
        except Exception as error:
            message = user_error(error) if isinstance(error, PersimError | ValueError) else _lightning_error(error)
            if message is None:
                raise
            sys.exit(f"error: {one_line(message)}")

    return wrapped


def _lightning_error(error: Exception) -> Exception | None:
    """A complaint of Lightning's about the settings of its Trainer; Lightning is not imported for it."""
    exceptions: Any = sys.modules.get("pytorch_lightning.utilities.exceptions")
    is_complaint = exceptions is not None and isinstance(error, exceptions.MisconfigurationException)
    return error if is_complaint else None


class OneLineErrors:
    """Mixin of argument parsers: reports errors in one line, without the usage text."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with status 2."""
        sys.stderr.write(f"error: {one_line(message)} (see --help)\n")
        sys.exit(2)


class CommandParser(OneLineErrors, argparse.ArgumentParser):
    """Parses the options of a command."""


class SettingsParser(OneLineErrors, ArgumentParser):
    """Parses options and YAMLs that hold the arguments of classes and functions."""


def build_settings(kind: type[Settings], source: Path | dict[str, Any]) -> Settings:
    """An instance of a class from a YAML, or from the content of one, that holds its constructor's arguments.

    Raises
    ------
    ConfigurationError
        If an argument is unknown or has a wrong value.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    try:
        parsed = parser.parse_object(source) if isinstance(source, dict) else parser.parse_path(source)
        return kind(**parser.instantiate(parsed).as_dict())
    except (ArgumentError, TypeError) as error:
        name = "settings" if isinstance(source, dict) else source
        raise ConfigurationError(f"{name}: {one_line(user_error(error) or error)}") from error


def choose_agents(agent_ids: Sequence[int | str], text: str) -> tuple[int | str, ...]:
    """Agent ids from ids and ranges of integers, separated by commas: `0-4,17`.

    Parameters
    ----------
    agent_ids : sequence of int or str
        All ids.
    text : str

    Raises
    ------
    ConfigurationError
        If an agent is unknown; lists ids that exist.
    """
    by_name = {str(label): label for label in agent_ids}
    names: list[str] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if part not in by_name and dash and first.isdigit() and last.isdigit():
            names += map(str, range(int(first), int(last) + 1))
        else:
            names.append(part)
    unknown = [name for name in names if name not in by_name]
    some = ", ".join(list(by_name)[:5]) + (", …" if len(by_name) > 5 else "")
    if unknown:
        raise ConfigurationError(f"agent '{unknown[0]}': there are {len(by_name)} agents ({some})")
    if not names:
        raise ConfigurationError(f"agents '{text}' names no agent; there are {len(by_name)} ({some})")
    return tuple(dict.fromkeys(by_name[name] for name in names))
