"""`python -m persim_lightning.cli`: the command `persim` where its script is not on the path."""

from persim_lightning.cli.main import main

main()
