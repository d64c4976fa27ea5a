"""Methods as their YAMLs describe them."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from persim_lightning.baselines.method import Method
from persim_lightning.errors import ConfigurationError, PersimError


def build_method(values: dict[str, Any], source: str) -> Method:
    """A method from what its YAML holds, such as conf/methods/persim.yaml.

    Parameters
    ----------
    values : dict
        `class_path` and `init_args`.
    source : str
        Names it in errors.

    Raises
    ------
    ConfigurationError
        If it says something unknown.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Method, "method")
    try:
        method = parser.instantiate(parser.parse_object({"method": values})).method
    except (ArgumentError, TypeError, ValueError, PersimError) as error:
        # jsonargparse wraps whatever a constructor raises.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, PersimError):
            cause = cause.__cause__ or cause.__context__
        raise ConfigurationError(f"{source}: {' '.join(str(cause or error).split())}") from error
    assert isinstance(method, Method)
    return method
