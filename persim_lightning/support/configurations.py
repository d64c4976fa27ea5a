"""Finds the configurations that ship with the package, by name or by path, from any working folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from persim_lightning.errors import ConfigurationError

_OPTIONS = ("--config", "-c")


def shipped_folder() -> Path:
    """Return the folder of the shipped YAMLs: in the installed package, or at the top of a checkout.

    Raises
    ------
    ConfigurationError
        If the folder is missing.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "table.yaml").is_file():
            return folder
    raise ConfigurationError(f"{package / 'conf'}: no such folder; the installation is incomplete")


def find_configuration(name: str | Path, kind: str = "", folder: Path | None = None) -> Path:
    """Return the path of a configuration.

    Parameters
    ----------
    name : str or Path
        Path of a YAML, or the name of one in `folder`, such as `mountaincar`. If a file has the same name as a
        configuration, the file is used, and a note says so.
    kind : str
        Subfolder: `planning`, `methods`, `benchmark` or `policies`; empty for fits.
    folder : Path, optional
        Folder in which names are looked up; the shipped configurations by default.

    Raises
    ------
    ConfigurationError
        If there is no such configuration; lists the names that exist.
    """
    path = Path(name)
    names = configuration_names(kind, folder)
    if path.is_file():
        if str(name) in names:
            print(f"note: using the file {path.absolute()}, not the configuration of this name", file=sys.stderr)
        return path
    if str(name) in names:
        return (folder or shipped_folder()) / kind / f"{name}.yaml"
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigurationError(f"{path}: no such file; configurations by name: {', '.join(names)}")
    raise ConfigurationError(f"no configuration '{name}': choose from {', '.join(names)}, or give the path of a YAML")


def configuration_names(kind: str = "", folder: Path | None = None) -> list[str]:
    """Return the names of the configurations of a kind, sorted."""
    return sorted(path.stem for path in ((folder or shipped_folder()) / kind).glob("*.yaml"))


def with_paths(arguments: Sequence[str], kind: str = "") -> list[str]:
    """Replace the values of `--config` and `-c` in command-line arguments by the paths of configurations.

    Raises
    ------
    ConfigurationError
        If there is no such configuration, or it is not a YAML of settings.
    """
    replaced: list[str] = []
    for position, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if equals and option in _OPTIONS:
            replaced.append(f"{option}={_find_readable(value, kind)}")
        elif position and arguments[position - 1] in _OPTIONS:
            replaced.append(str(_find_readable(argument, kind)))
        else:
            replaced.append(argument)
    return replaced


def _find_readable(name: str, kind: str) -> Path:
    """Find a configuration, and check that it is a YAML, since parsers report a damaged one without its path."""
    path = find_configuration(name, kind)
    read_yaml(path)
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML of settings.

    Raises
    ------
    ConfigurationError
        If it is missing, or is not a YAML of settings.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such file")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not a YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} holds no settings")
    return values
