"""The command line of `tools/fit.py`: one YAML to a run folder."""

from __future__ import annotations

import contextlib
import functools
import logging
import netrc
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytorch_lightning as pl
import torch
import wandb
from jsonargparse.typing import NonNegativeInt, PositiveInt
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.console import Console

from persim_lightning.api.simulator import CALIBRATION, PersonalizedSimulator
from persim_lightning.callbacks.control import MPCEpisodes
from persim_lightning.callbacks.finish import FinishEnsemble
from persim_lightning.callbacks.latents import LatentFactors
from persim_lightning.callbacks.progress import EpochProgress
from persim_lightning.callbacks.rollouts import RolloutScores
from persim_lightning.callbacks.save import SaveSimulator
from persim_lightning.callbacks.theorem import LowRankCheck
from persim_lightning.data.datamodule import open_data
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError, FitInterruptedError, PersimError
from persim_lightning.evaluation.control import PlanningSettings, return_cell
from persim_lightning.evaluation.intervals import coverage
from persim_lightning.runs.rank_search import MEMBERS, TAIL, RankSelection, select_rank, short_epochs, write_selection
from persim_lightning.support.files import atomic_write, check_writable, write_json
from persim_lightning.support.provenance import provenance
from persim_lightning.support.terminal import print_table
from persim_lightning.theory.summary import summary
from persim_lightning.training.checkpoint_io import AtomicCheckpointIO
from persim_lightning.training.persim import PerSimModule

# Ranks that Lightning launches inherit it, so that all agree on a folder named after the time.
_RUN_DIR_VARIABLE = "PERSIM_RUN_DIR"
# What the data decides of a model.
_LINKED = ("num_agents", "state_dim", "action_dim", "num_actions", "walls")
_CHECKPOINTS_A_RUN = 20
_ROLLOUT_SCORES_A_RUN = 10


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Let a command end with one line on standard error and status 1 where the user's input is at fault."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except (PersimError, MisconfigurationException) as error:
            sys.exit(_one_line(error))
        except KeyboardInterrupt:
            sys.exit("interrupted")
        except OSError as error:
            if error.filename is None:
                raise
            sys.exit(f"error: {error.filename}: {error.strerror or type(error).__name__}")
        except ValueError as error:
            # jsonargparse wraps whatever a model's constructor raises.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, PersimError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            sys.exit(_one_line(cause))

    return wrapped


def _one_line(error: BaseException) -> str:
    return f"error: {' '.join(str(error).split())}"


class OneLineParser(LightningArgumentParser):
    """Reports what is wrong with options and YAML in one line, without the usage text of several hundred options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.stderr.write(f"error: {' '.join(message.split())} (see --help)\n")
        sys.exit(2)


class FitCLI(LightningCLI):
    """Parses a YAML of `data`, `model` and `trainer`; builds loggers and callbacks around a run folder."""

    run_dir: Path

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir", type=Path | None, default=None, help="Run folder (default: runs/ENV-DATASET/TIME)."
        )
        parser.add_argument(
            "--ckpt_path", type=Path | None, default=None, help="Go on from RUN/checkpoints/last.ckpt, in RUN."
        )
        parser.add_argument(
            "--wandb",
            type=Literal["auto", "online", "offline", "disabled"],
            default="auto",
            help="Weights & Biases; auto is online where an API key is found, offline otherwise. Never asks.",
        )
        parser.add_argument(
            "--check_theorem",
            type=bool,
            default=True,
            help="Compare the factors with the true dynamics tensor when training ends (a few to 30 s).",
        )
        parser.add_argument(
            "--mpc_episodes",
            type=NonNegativeInt,
            default=0,
            help="Play so many MPC episodes of every test agent in the real environment when training ends.",
        )
        parser.add_argument(
            "--planning", type=Path | None, default=None, help="How to plan them (default: conf/planning/ENV.yaml)."
        )
        parser.add_argument("--threads", type=PositiveInt, default=1, help="CPU threads; for small networks try 1.")
        for name in _LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        torch.set_num_threads(self.config.threads)
        if not (self.config.trainer.max_epochs or 0) > 0:
            raise ConfigurationError("trainer.max_epochs must be at least 1: the learning-rate schedule needs an end")
        if str(self.config.trainer.precision) in ("16", "16-mixed"):
            raise ConfigurationError("trainer.precision 16-mixed scales losses, which gradient clipping would not see")
        checkpoint = self.config.ckpt_path
        if checkpoint is not None and not checkpoint.is_file():
            raise ConfigurationError(f"--ckpt_path {checkpoint}: no such file")
        self._planning = self._load_planning()
        # Nothing is written yet; but a missing GPU should be known before any data are collected.
        pl.Trainer(
            accelerator=self.config.trainer.accelerator,
            devices=self.config.trainer.devices,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        self._note_slow_precision()
        inherited = _RUN_DIR_VARIABLE in os.environ
        self.run_dir = self._choose_run_dir()
        check_writable(self.run_dir / "config.yaml")
        self._choose_rank(leader=not inherited)

    def _note_slow_precision(self) -> None:
        config = self.config.trainer
        on_cpu = config.accelerator == "cpu" or (config.accelerator == "auto" and not torch.accelerator.is_available())
        if on_cpu and str(config.precision).startswith("bf16") and torch.backends.cpu.get_cpu_capability() == "AVX2":
            print(
                "note: this CPU has no bfloat16 instructions; --trainer.precision 32-true is many times faster",
                file=sys.stderr,
            )

    def _choose_rank(self, leader: bool) -> None:
        """Put a number in the place of `rank: auto`; what was found is kept in the run folder."""
        model = self.config.model
        if model.init_args.get("rank") != "auto":
            return
        if self.config.ckpt_path is not None or not leader:
            # A run goes on as it began; ranks that Lightning launches find what the first one has written.
            selection = RankSelection.load(self.run_dir)
        elif {"WORLD_SIZE", "SLURM_NTASKS"} & set(os.environ) or self.config.trainer.num_nodes > 1:
            raise ConfigurationError(
                "model.rank auto searches before Lightning starts further processes: find the rank in a run of one "
                "process, and give the number here"
            )
        else:
            selection = self._search_rank()
            print(f"chose rank {selection.rank}; see {', '.join(map(str, write_selection(selection, self.run_dir)))}")
        model.init_args.rank = selection.rank

    def _search_rank(self) -> RankSelection:
        config = self.config
        options = config.data.as_dict()
        columns = None if options["columns"] is None else TableColumns(**options["columns"])
        data = open_data(**{**options, "columns": columns, "val_fraction": TAIL})
        data.check(world_size=1)
        if not len(data.validation_rows):
            raise ConfigurationError(
                f"{data.recordings.name}: no trajectory is long enough to hold out {TAIL:.0%} of it, so that "
                "model.rank auto could judge ranks: give a number"
            )
        sizes = {name: getattr(data, name) for name in _LINKED}
        given = {**config.model.init_args.as_dict(), **sizes, "members": MEMBERS, "spare_members": 0}
        trainer = {name: config.trainer[name] for name in ("precision", "accelerator")}
        epochs, seed = short_epochs(config.trainer.max_epochs, data.steps_per_epoch), config.seed_everything
        selection = select_rank(
            lambda rank: PerSimModule(**{**given, "rank": rank}), data, seed, max_epochs=epochs, **trainer
        )
        # The run itself must not depend on how many fits came before it.
        pl.seed_everything(seed, verbose=False)
        return selection

    def _load_planning(self) -> PlanningSettings | None:
        """How to plan, read while nothing has been trained; None where no episode is to be played."""
        if not self.config.mpc_episodes:
            return None
        if self.config.data.env is None:
            raise ConfigurationError("--mpc_episodes are played in a real environment, but data.env names none")
        environment = get_environment(self.config.data.env)
        settings = PlanningSettings.load(self.config.planning or Path(f"conf/planning/{environment.name}.yaml"))
        settings.objective(environment)
        return settings

    def _choose_run_dir(self) -> Path:
        given, checkpoint = self.config.run_dir, self.config.ckpt_path
        inherited = os.environ.get(_RUN_DIR_VARIABLE)
        if inherited is not None:
            return Path(inherited)
        own = None if checkpoint is None else checkpoint.resolve().parent.parent
        if given is None and own is not None:
            if checkpoint.resolve().parent.name != "checkpoints" or not (own / "config.yaml").is_file():
                raise ConfigurationError(f"{checkpoint} does not lie in RUN/checkpoints of a run: give --run_dir")
            chosen = own
        elif given is None:
            if "WORLD_SIZE" in os.environ:
                raise ConfigurationError(
                    "give --run_dir: processes started by torchrun or SLURM must agree on a folder"
                )
            chosen = Path("runs") / self._data_name() / time.strftime("%Y%m%d-%H%M%S")
        else:
            chosen = given
        last = chosen / "checkpoints" / "last.ckpt"
        holds_run = last.exists() or (chosen / "simulator.json").exists()
        # Rank zero decides; by the time that a slow rank looks, the folder may be this run's own.
        if holds_run and chosen.resolve() != own and int(os.environ.get("RANK", "0")) == 0:
            raise ConfigurationError(
                f"{chosen} holds a run: choose another --run_dir, or go on with it by --ckpt_path {last}"
            )
        os.environ[_RUN_DIR_VARIABLE] = str(chosen.resolve())
        return chosen

    def _data_name(self) -> str:
        data = self.config.data
        return f"{data.env}-{data.dataset}" if data.env is not None else str(Path(data.path or "table").stem)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        epochs = self.config.trainer.max_epochs or 1
        checkpoints = ModelCheckpoint(
            dirpath=self.run_dir / "checkpoints",
            filename="last",
            enable_version_counter=False,
            every_n_epochs=_checkpoint_interval(epochs),
            save_on_train_epoch_end=True,
        )
        own: list[pl.Callback] = [
            FinishEnsemble(),
            SaveSimulator(self.run_dir),
            checkpoints,
            EpochProgress(),
            RolloutScores(self.run_dir, every_n_epochs=max(1, epochs // _ROLLOUT_SCORES_A_RUN)),
            LatentFactors(self.run_dir),
        ]
        if self.config.check_theorem:
            own.append(LowRankCheck(self.run_dir))
        if self._planning is not None:
            own.append(MPCEpisodes(self.run_dir, self.config.mpc_episodes, self._planning))
        configured = self._get(self.config_init, "trainer")
        trainer: pl.Trainer = super().instantiate_trainer(
            logger=self._loggers(),
            plugins=[AtomicCheckpointIO(), *_as_list(configured["plugins"])],
            callbacks=[*own, *_as_list(configured["callbacks"])],
            **kwargs,
        )
        return trainer

    def _loggers(self) -> list[CSVLogger | WandbLogger]:
        csv = CSVLogger(self.run_dir, name="metrics")
        mode = wandb_mode(self.config.wandb)
        if mode == "disabled":
            return [csv]
        return [
            csv,
            WandbLogger(
                project="persim-lightning",
                name=self.run_dir.name,
                group=self._data_name(),
                save_dir=self.run_dir,
                offline=mode != "online",
                settings=wandb.Settings(mode="online" if mode == "online" else "offline", silent=True, console="off"),
            ),
        ]


def _as_list(value: Any) -> list[Any]:
    """A trainer option that takes nothing, one thing, or several."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _checkpoint_interval(epochs: int) -> int:
    """Epochs between checkpoints: about twenty in a run, and one at its end."""
    wanted = max(1, epochs // _CHECKPOINTS_A_RUN)
    return max(interval for interval in range(1, wanted + 1) if epochs % interval == 0)


def wandb_mode(asked: str) -> str:
    """online, offline or disabled, where `asked` may also be auto."""
    if asked != "auto":
        return asked
    return os.environ.get("WANDB_MODE") or ("online" if _has_wandb_key() else "offline")


def _has_wandb_key() -> bool:
    """Whether W&B would find an API key, without asking it: it might prompt, or use the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


@contextlib.contextmanager
def _run_variable() -> Iterator[None]:
    """Forget the run folder afterwards: one process may fit several times (tests, notebooks)."""
    before = os.environ.get(_RUN_DIR_VARIABLE)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_RUN_DIR_VARIABLE, None)


def fit(args: list[str] | None = None) -> Path:
    """Run `tools/fit.py` with the given arguments (default: the process's own) and return the run folder."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # Lightning 2.6 calls a function of torch 2.13 by its old name at every batch.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
    # Other commands call this function with arguments of their own.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    with _run_variable():
        cli = FitCLI(
            model_class=pl.LightningModule,
            datamodule_class=open_data,
            subclass_mode_model=True,
            parser_class=OneLineParser,
            parser_kwargs={
                "prog": "fit.py",
                "description": "Fit a personalized simulator of every agent from one trajectory each: makes the data "
                "set if it is missing, trains, scores 50-step rollouts, and writes a run folder. "
                "Example: python tools/fit.py --config conf/mountaincar.yaml --model.rank 5. "
                "What can be said of the model (rank, factorization, …): "
                "--model.help persim_lightning.training.persim.PerSimModule",
            },
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={
                "accelerator": "auto",
                "devices": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 1,
            },
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )
        return _train(cli)


def _check_checkpoint(cli: FitCLI) -> None:
    """Refuse an unreadable or foreign checkpoint while nothing has been written."""
    path = cli.config.ckpt_path
    if path is None:
        return
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file can make the unpickler raise anything
        raise ConfigurationError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    try:
        cli.model.check_checkpoint(checkpoint, cli.datamodule, cli.trainer.max_epochs)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _train(cli: FitCLI) -> Path:
    start = time.monotonic()
    run_dir, trainer, model, data = cli.run_dir, cli.trainer, cli.model, cli.datamodule
    data.check(trainer.world_size)
    _check_checkpoint(cli)
    facts = provenance(data.recordings.files, cli.config.seed_everything)
    if trainer.is_global_zero:
        with atomic_write(run_dir / "config.yaml") as temporary:
            temporary.write_text(cli.parser.dump(cli.config, skip_none=False))
    last = run_dir / "checkpoints" / "last.ckpt"
    try:
        trainer.fit(model, datamodule=data, ckpt_path=cli.config.ckpt_path, weights_only=True)
    except SystemExit as error:
        # What Lightning makes of Ctrl-C.
        advice = f"go on with --ckpt_path {last}" if last.exists() else "no checkpoint was reached, so start again"
        raise FitInterruptedError(f"interrupted: {advice}") from error
    if trainer.is_global_zero:
        seconds = time.monotonic() - start
        covered = _complete(cli)
        write_json({**facts, "seconds": seconds}, run_dir / "provenance.json")
        _report(cli, seconds, covered)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            logger.experiment.finish()
    return run_dir


def _complete(cli: FitCLI) -> list[dict[str, Any]]:
    """Save what else the data teach, and tell how often intervals hold the truth of test trajectories."""
    data, tail, seed = cli.datamodule, cli.config.data.val_fraction, cli.config.seed_everything
    simulator = PersonalizedSimulator.completed(
        cli.model.personalized(), data.trajectories, tail, seed, data.environment
    )
    calibration, test = simulator.calibration, data.test_trajectories
    if data.environment is None:
        simulator.save(cli.run_dir)
    elif calibration is not None:
        calibration.save(cli.run_dir / CALIBRATION)
    if calibration is None or test is None:
        return []
    covered = coverage(simulator.population, data.trajectories, calibration, test)
    write_json(covered, cli.run_dir / "coverage.json")
    return covered


def _report(cli: FitCLI, seconds: float, covered: list[dict[str, Any]]) -> None:
    console = Console()
    callbacks = cli.trainer.callbacks  # type: ignore[attr-defined]
    [rollouts] = [callback for callback in callbacks if isinstance(callback, RolloutScores)]
    if cli.datamodule.test_trajectories is None:
        console.print("no test trajectories (data.test_path): rollouts were not scored")
    else:
        assert rollouts.scores is not None
        test = cli.datamodule.test_trajectories
        print_scores(rollouts.scores.to_records(test.agent_ids), "50-step rollouts, test trajectories")
        if covered:
            shares = ", ".join(f"{record['0.9']:.1%}" for record in covered[:10])
            console.print(f"intervals of level 0.9 hold {shares}{', …' if len(covered) > 10 else ''} of their states")
    for callback in callbacks:
        if isinstance(callback, LowRankCheck):
            assert callback.check is not None
            console.print(summary(callback.check), soft_wrap=True)
        if isinstance(callback, MPCEpisodes):
            assert callback.results is not None
            rows = [(str(record["agent"]), return_cell(record)) for record in callback.results["agents"]]
            print_table(f"MPC in the real environment, {cli.config.mpc_episodes} episode(s)", ("agent", "return"), rows)
    console.print(
        f"trained {cli.datamodule.num_agents} agents in {seconds:.0f} s; everything is in {cli.run_dir}", soft_wrap=True
    )


def print_scores(records: list[dict[str, Any]], title: str) -> None:
    """Print the prediction protocol's scores, one row per agent."""
    rows = [
        [str(record["agent"]), f"{record['rmse']:.5f}", f"{record['r2']:.4f}"]
        + [str(record[name]) for name in ("scored", "short", "diverged")]
        for record in records
    ]
    print_table(title, ("agent", "mean RMSE", "median R²", "episodes", "too short", "diverged"), rows)
