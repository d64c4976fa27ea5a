"""Parses command lines and settings files; reports the user's errors in one line."""

from __future__ import annotations

import argparse
import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from persim_lightning.errors import ConfigurationError, PersimError
from persim_lightning.support.parsing_errors import explain

Args = ParamSpec("Args")
Settings = TypeVar("Settings")
# A full disk may be reported without a file name.
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Arguments of the command that is being parsed.
_command_line: ContextVar[tuple[str, ...]] = ContextVar("_command_line", default=())


def one_line(text: object) -> str:
    """Remove the line breaks from a message."""
    return " ".join(str(text).split())


def user_error(error: BaseException) -> PersimError | None:
    """Return the PersimError that caused an exception, or None; libraries wrap the errors of constructors."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PersimError):
        cause = cause.__cause__ or cause.__context__
    return cause


def one_line_errors(command: Callable[Args, None]) -> Callable[Args, None]:
    """Decorate a command: print errors in the user's input as one line on standard error, and exit with status 1."""

    @functools.wraps(command)
    def wrapped(*args: Args.args, **kwargs: Args.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            sys.exit("interrupted")
        except BrokenPipeError:
            # Whoever read the output has enough, such as `| head`; nothing can be printed any more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            if error.filename is None and error.errno not in _FULL:
                raise
            where = "" if error.filename is None else f"{error.filename}: "
            sys.exit(f"error: {where}{error.strerror or type(error).__name__}")
        except Exception as error:
            message = user_error(error) if isinstance(error, PersimError | ValueError) else _lightning_error(error)
            if message is None:
                raise
            sys.exit(f"error: {one_line(message)}")

    return wrapped


def _lightning_error(error: Exception) -> Exception | None:
    """Return the error if Lightning raised it about its Trainer's settings. Does not import Lightning."""
    exceptions: Any = sys.modules.get("pytorch_lightning.utilities.exceptions")
    is_misconfiguration = exceptions is not None and isinstance(error, exceptions.MisconfigurationException)
    return error if is_misconfiguration else None


class OneLineErrors(argparse.ArgumentParser):
    """Reports errors in one line, without the usage text and without the internals of jsonargparse."""

    def parse_args(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Parse, and keep the command line, so that errors can name the option or the file."""
        # Parsers of nested classes are called by the command's parser.
        outer = _command_line.get()
        token = _command_line.set(outer or tuple(sys.argv[1:] if args is None else args))
        try:
            return super().parse_args(args, *rest, **options)
        finally:
            _command_line.reset(token)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with status 2."""
        sys.stderr.write(f"error: {explain(one_line(message), _command_line.get())} (see --help)\n")
        sys.exit(2)


class CommandParser(OneLineErrors):
    """Parses the options of a command."""


class SettingsParser(OneLineErrors, ArgumentParser):
    """Parses options and YAMLs that hold the arguments of classes and functions."""


def build_settings(kind: type[Settings], source: Path | dict[str, Any]) -> Settings:
    """Create an instance of a class from a YAML, or from the content of a YAML, with its constructor's arguments.

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
        raise ConfigurationError(f"{name}: {user_error(error) or explain(one_line(error))}") from error


def choose_agents(agent_ids: Sequence[int | str], text: str) -> tuple[int | str, ...]:
    """Select agents by ids and ranges of integers, separated by commas: `0-4,17`.

    Parameters
    ----------
    agent_ids : sequence of int or str
        All ids.
    text : str

    Returns
    -------
    tuple of int or str
        Selected ids, each once, in the order of `text`.

    Raises
    ------
    ConfigurationError
        If an agent is unknown; lists ids that exist.
    """
    by_name = {str(label): label for label in agent_ids}
    names: list[str] = []
    for item in text.split(","):
        first, dash, last = item.partition("-")
        if item not in by_name and dash and first.isdigit() and last.isdigit():
            names += map(str, range(int(first), int(last) + 1))
        else:
            names.append(item)
    unknown = [name for name in names if name not in by_name]
    examples = ", ".join(list(by_name)[:5]) + (", …" if len(by_name) > 5 else "")
    if unknown:
        raise ConfigurationError(f"unknown agent '{unknown[0]}': choose from the {len(by_name)} agents ({examples})")
    if not names:
        raise ConfigurationError(f"agents '{text}' names no agent; choose from the {len(by_name)} ({examples})")
    return tuple(dict.fromkeys(by_name[name] for name in names))
