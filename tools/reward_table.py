"""See `python tools/reward_table.py --help`."""

from persim_lightning.runs.fit import one_line_errors
from persim_lightning.studies.control import reward_table_command


@one_line_errors
def main() -> None:
    reward_table_command()


if __name__ == "__main__":
    main()
