"""Errors that are the user's to mend. Command lines print them as one line and exit with status 1."""


class PersimError(Exception):
    """Something in the user's input does not fit; the message says what and where, and what to do."""


class TableError(PersimError):
    """A table of trajectories does not have the promised form; names file, column, agent and row."""


class ConfigurationError(PersimError):
    """Settings contradict each other or the data."""


class SimulatorFileError(PersimError):
    """A saved simulator or checkpoint cannot be used for what was asked."""


class FitInterruptedError(PersimError):
    """Training was interrupted; the message says how to go on."""
