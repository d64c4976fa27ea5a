"""See `python tools/train_policy.py --help`."""

from persim_lightning.cli.commands import train_policy_command
from persim_lightning.runs.fit import one_line_errors


@one_line_errors
def main() -> None:
    train_policy_command()


if __name__ == "__main__":
    main()
