"""Choose models and calibrate intervals when a fit ends, and then use the held-out rows, too."""

from __future__ import annotations

import pytorch_lightning as pl

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.evaluation.held_out import calibrate_and_refit, has_tail
from persim_lightning.ladder.choice import Choice
from persim_lightning.ladder.choose import backtest_tail, can_merge, settle
from persim_lightning.ladder.neural import NEURAL, FitNeural, Neural, budgets
from persim_lightning.training.persim import PerSimModule


class CalibrateIntervals(pl.Callback):
    """Calibrate intervals on held-out tails; for a user's table, choose between neural and simple dynamics before.

    The simulators of an environment stay as they were trained, so that their scores are those of the paper's protocol.
    Must come after FinishEnsemble and before callbacks that score or draw. Every rank does the same.

    Parameters
    ----------
    fit_again : callable, (tail, steps) -> Neural
        Trains the module once more, in one process.
    choose : bool
        False keeps neural dynamics only.

    Attributes
    ----------
    calibration : Calibration or None
        None before the fit has ended, and where no trajectory is long enough.
    choice : Choice or None
    """

    def __init__(self, fit_again: FitNeural, choose: bool = True) -> None:
        self._fit_again, self._choose = fit_again, choose
        self.calibration: Calibration | None = None
        self.choice: Choice | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PerSimModule)
        data, population = pl_module.datamodule, pl_module.personalized_copy()
        table = data.environment is None
        tail = backtest_tail(data.trajectories, data.val_fraction)
        again = tail != data.val_fraction
        one_process = trainer.world_size == 1
        if (
            not (table and self._choose and can_merge(pl_module.hparams))
            or not has_tail(data.trajectories, tail)
            or (again and not one_process)
        ):
            self.calibration = calibrate_and_refit(population, data.trajectories, data.val_fraction, refit=table)
            pl_module.simulator.agent_encoder.deviation.data.copy_(population.simulator.agent_encoder.deviation)
            return
        trained = Neural(population, data.statistics)

        def fit(held_out: float, steps: int | None) -> Neural:
            if steps is None and held_out in (data.val_fraction, 0.0):
                return trained
            return self._fit_again(held_out, steps)

        if again and trainer.is_global_zero:
            print(f"trajectories are short: models are compared without the last {tail:.0%} of each, in further fits")
        most = data.steps_per_epoch * (trainer.max_epochs or 1)
        # What was configured is always compared.
        wanted = {**(budgets(len(data.trajectories.state), most) if one_process else {}), NEURAL: None}
        settled = settle(fit, wanted, data.trajectories, tail, population.simulator.members, retrain=again)
        self.calibration, self.choice = settled.calibration, settled.choice
        pl_module.simulator = settled.population.simulator.to(pl_module.simulator.delta_rms.device)
