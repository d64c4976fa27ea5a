"""Errors that the user can fix. Command lines print them as one line and exit with status 1."""


class PersimError(Exception):
    """The user's input is wrong; the message says what is wrong, where, and what to do."""


class TableError(PersimError):
    """A table of trajectories is malformed; the message names file, column, agent and row."""


class ConfigurationError(PersimError):
    """Settings contradict each other or the data."""


class SimulatorFileError(PersimError):
    """A saved simulator or checkpoint cannot be used for the requested purpose."""


class FitInterruptedError(PersimError):
    """Training was interrupted; the message says how to resume it."""


class MissingPackageError(ConfigurationError):
    """An optional package is not installed.

    Parameters
    ----------
    purpose, package, extra : str
        What needs which package, and the extra of this package that installs it.
    """

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'persim-lightning[{extra}]'")


class PersimWarning(UserWarning):
    """Something in the user's input is probably not as meant; commands print it as one line."""
