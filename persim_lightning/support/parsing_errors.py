"""Rewrites the errors of jsonargparse for users."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

# Types as users know them; other names are printed as they are.
_TYPES = {
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "Path": "a path",
    "NoneType": "null",
    "list": "a list",
    "dict": "a mapping",
    "PositiveInt": "a positive integer",
    "NonNegativeInt": "an integer of at least 0",
    "PositiveFloat": "a positive number",
    "NonNegativeFloat": "a number of at least 0",
    "OpenUnitInterval": "a number between 0 and 1",
    "ClosedUnitInterval": "a number from 0 to 1",
}
_KEY = re.compile(r'^Parser key "(?P<key>[^"]+)": (?P<reason>.*)$')
_NOT_ACCEPTED = re.compile(
    r"^Option '(?P<key>[^']+)' is not accepted|^Group '(?P<group>.+)' does not accept option '(?P<option>.+)'"
)
_VALUES = (
    re.compile(r"Given value: (.*)$"),
    re.compile(r"Got value: (.*)$"),
    re.compile(r"(?:with base 10|string to float): '([^']*)'$"),
)
_UNION = re.compile(r"Subtypes: \[(?P<types>.*?)\] Errors:")
_SINGLE = re.compile(r"^(?:Not of type|Expected an?) (?P<type>typing\.Literal\[.*?\]|<class '[^']+'>|\w+)")


def explain(message: str, arguments: Sequence[str] = ()) -> str:
    """Rewrite a message of jsonargparse; leave other messages as they are.

    Parameters
    ----------
    message : str
        In one line.
    arguments : sequence of str
        The command line, from which the whole name of the option, or the file that holds it, is found.
    """
    rejected = _NOT_ACCEPTED.match(message)
    if rejected is not None:
        key = rejected["key"] or f"{rejected['group']}.{rejected['option']}"
        return f"{_locate(key, arguments)}: no such option"
    invalid = _KEY.match(message)
    if invalid is None:
        return message
    where = _locate(invalid["key"], arguments)
    expected = _expected(invalid["reason"])
    given = next((found for pattern in _VALUES if (found := pattern.search(invalid["reason"]))), None)
    if not expected or given is None:
        return f"{where}: {invalid['reason']}"
    return f"{where}: '{given[1]}' is not {' or '.join(expected)}"


def _expected(reason: str) -> list[str]:
    """List the types that a value may have, in words."""
    union = _UNION.search(reason)
    names = re.split(r", (?![^\[]*\])", union["types"]) if union is not None else _SINGLE.findall(reason)[:1]
    return [word for name in names for word in _describe(name)]


def _describe(name: str) -> list[str]:
    literal = re.fullmatch(r"typing\.Literal\[(.*)\]", name)
    if literal is not None:
        return literal[1].split(", ")
    short = name.removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
    return [_TYPES.get(short, short)]


def _locate(key: str, arguments: Sequence[str]) -> str:
    """Find an option in the command line or in its YAMLs, since parsers of nested classes know only the last key."""
    for argument in arguments:
        option = argument.partition("=")[0]
        if option == f"--{key}" or (option.startswith("--") and option.endswith(f".{key}")):
            return option
    for path in map(Path, arguments):
        if path.suffix in (".yaml", ".yml") and path.is_file():
            for name in _dotted(yaml.safe_load(path.read_text())):
                if name == key or name.endswith(f".{key}"):
                    return f"{path}: {name}"
    return key


def _dotted(values: Any, prefix: str = "") -> Iterator[str]:
    """Yield all keys of nested mappings, such as `model.init_args.rank`."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")
