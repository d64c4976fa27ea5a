"""Loggers of a run and of what resumes it."""

from pytorch_lightning.loggers import WandbLogger

from persim_lightning.runs.trainer import fit_loggers, save_wandb_id


def test_a_resumed_run_goes_on_with_its_wandb_run(tmp_path):
    def wandb_logger(name):
        loggers = fit_loggers(tmp_path / name, "table", "offline")
        return loggers, next(logger for logger in loggers if isinstance(logger, WandbLogger))

    loggers, first = wandb_logger("run")
    save_wandb_id(loggers, tmp_path / "run")
    assert wandb_logger("run")[1].version == first.version
    assert wandb_logger("other")[1].version != first.version
