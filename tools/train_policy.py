"""See `python tools/train_policy.py --help`."""

from persim_lightning.cli import one_line_errors
from persim_lightning.commands import train_policy_command


@one_line_errors
def main() -> None:
    train_policy_command()


if __name__ == "__main__":
    main()
