"""Builds methods from their YAMLs."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from persim_lightning.errors import ConfigurationError, PersimError
from persim_lightning.methods.contract import Method
from persim_lightning.support.parsing import one_line, user_error


def build_method(values: dict[str, Any], source: str) -> Method:
    """Build a method from the content of a YAML such as conf/methods/persim.yaml.

    Parameters
    ----------
    values : dict
        `class_path` and `init_args`.
    source : str
        Name of the YAML in errors.

    Raises
    ------
    ConfigurationError
        If a class or an argument is unknown.
    """
    unknown = [name for name in values if name not in ("class_path", "init_args")]
    if unknown or "class_path" not in values:
        found = f"unknown key '{unknown[0]}'" if unknown else "no class_path"
        raise ConfigurationError(f"{source}: {found}: the YAML of a method holds class_path and init_args")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--method", type=Method, required=True)
    try:
        method = parser.instantiate(parser.parse_object({"method": values})).method
    except (ArgumentError, TypeError, ValueError, PersimError) as error:
        reason = one_line(user_error(error) or error).removeprefix('Parser key "method": ')
        raise ConfigurationError(f"{source}: {reason}") from error
    assert isinstance(method, Method)
    return method
