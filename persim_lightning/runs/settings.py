"""Parses the YAML and the options of a fit into a plain dict."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytorch_lightning as pl
import yaml
from jsonargparse.typing import NonNegativeInt, PositiveInt
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from persim_lightning.data.datamodule import open_data
from persim_lightning.errors import ConfigurationError
from persim_lightning.support.configurations import configuration_names, with_paths
from persim_lightning.support.parsing import OneLineErrors

# Arguments of the model that follow from the data.
LINKED = ("num_agents", "state_dim", "action_dim", "num_actions", "walls", "integrator", "bounds")
_TRAINER_DEFAULTS = {
    "accelerator": "auto",
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}


class _Parser(OneLineErrors, LightningArgumentParser):
    """Reports errors without the usage text of several hundred options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with status 2."""
        if message.endswith("required: model"):
            message = f"give --config: {', '.join(configuration_names())}, or the path of a YAML"
        super().error(message, ex)


class FitSettings(LightningCLI):
    """Parses `data`, `model`, `trainer` and the options of the command; builds nothing."""

    def __init__(self, settings: Sequence[str] | Mapping[str, Any]) -> None:
        # Lightning warns if arguments are passed while sys.argv is not empty.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
        super().__init__(
            model_class=pl.LightningModule,
            datamodule_class=open_data,
            subclass_mode_model=True,
            parser_class=_Parser,
            parser_kwargs={
                "prog": "persim fit",
                "description": "Fit a personalized simulator of every agent from one trajectory each: collects the "
                "data set if it is missing, trains, scores 50-step rollouts, and writes a run folder. "
                "Example: persim fit --config mountaincar --model.rank 5. "
                "Options of the model (rank, factorization, …): "
                "persim fit --model.help persim_lightning.training.persim.PerSimModule",
            },
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=_TRAINER_DEFAULTS,
            args=dict(settings) if isinstance(settings, Mapping) else with_paths(settings),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir", type=Path | None, default=None, help="Run folder (default: runs/ENV-DATASET/TIME)."
        )
        parser.add_argument(
            "--ckpt_path", type=Path | None, default=None, help="Resume from RUN/checkpoints/last.ckpt, in RUN."
        )
        parser.add_argument(
            "--models",
            type=Literal["auto", "neural"],
            default="auto",
            help="auto compares neural with simple dynamics on the ends of trajectories of your own table, and takes "
            "the best; neural takes neural ones. Environments always have neural ones.",
        )
        parser.add_argument(
            "--wandb",
            type=Literal["auto", "online", "offline", "disabled"],
            default="auto",
            help="Weights & Biases; auto is online where an API key is found, offline otherwise. Never prompts.",
        )
        parser.add_argument(
            "--check_theorem",
            type=bool,
            default=True,
            help="Compare the factors with the true dynamics tensor after training (a few to 30 s).",
        )
        parser.add_argument(
            "--mpc_episodes",
            type=NonNegativeInt,
            default=0,
            help="Play this many MPC episodes of every test agent in the real environment after training.",
        )
        parser.add_argument(
            "--planning", type=str | None, default=None, help="Planning settings: name or YAML (default: ENV)."
        )
        parser.add_argument("--threads", type=PositiveInt, default=1, help="CPU threads; for small networks try 1.")
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def _set_seed(self) -> None:
        """Do not seed, since nothing is built."""

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as in a YAML."""
        values: dict[str, Any] = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        return values


def parse_fit(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse a command line such as `--config mountaincar --model.rank 5`.

    Exits with status 2 and one line on standard error if an option is unknown or has a wrong value.
    """
    return FitSettings(arguments).to_dict()


def change_settings(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Copy settings with changes by dotted key, such as `{"data.agents": 25}`.

    Raises
    ------
    ConfigurationError
        If a key is unknown.
    """
    changed = {key: dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        if first not in changed:
            raise ConfigurationError(f"unknown setting '{key}'")
        changed[first] = change_settings(changed[first], {rest: value}) if rest else value
    return changed
