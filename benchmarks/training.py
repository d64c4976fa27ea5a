"""Training speed: samples per second, and Lightning against a bare loop on the same maths, in one run.

`python benchmarks/training.py --env cartpole` (needs nothing; collects its data under --root).
A sample is one transition of one ensemble member.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml
from torch.nn.utils import clip_grad_norm_

from persim_lightning.data.batches import ChunkedBatches, TransitionGather
from persim_lightning.data.datamodule import TrajectoryDataModule, open_data
from persim_lightning.training.persim import PerSimModule
from persim_lightning.types import Transitions

ROOT = Path(__file__).parents[1]


def build(env: str, root: Path, epochs: int) -> tuple[PerSimModule, TrajectoryDataModule, pl.Trainer]:
    """Model, data and a trainer without loggers, as conf/<env>.yaml says."""
    config = yaml.safe_load((ROOT / f"conf/{env}.yaml").read_text())
    torch.set_num_threads(config["threads"])
    data = open_data(**config["data"], root=root)
    pl.seed_everything(0, verbose=False)
    sizes = {name: getattr(data, name) for name in ("num_agents", "state_dim", "action_dim", "num_actions", "walls")}
    model = PerSimModule(**sizes, **config["model"]["init_args"])
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    precision = config["trainer"].get("precision", "32-true")
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision=precision,
        limit_val_batches=0,
        enable_model_summary=False,
        **quiet,
    )
    return model, data, trainer


def lightning_seconds(env: str, root: Path, epochs: int) -> float:
    model, data, trainer = build(env, root, epochs)
    _ = data.trajectories
    start = time.perf_counter()
    trainer.fit(model, datamodule=data)
    return time.perf_counter() - start


def bare_seconds(env: str, root: Path, epochs: int) -> tuple[float, int]:
    """The same batches, loss, clipping, optimizer and schedule in a plain loop; seconds and samples."""
    model, data, trainer = build(env, root, epochs)
    _ = data.trajectories
    start = time.perf_counter()
    model.simulator.set_statistics(data.statistics)
    epoch = 0
    loader = ChunkedBatches(
        TransitionGather(data.trajectories),
        data.train_rows,
        batch_size=data.batch_size,
        members=model.members,
        seed=0,
        epoch=lambda: epoch,
    )
    optimizer, scheduler = model.build_optimizer(epochs * loader.steps)
    mixed = trainer.precision == "bf16-mixed"
    parameters = list(model.simulator.parameters())
    for epoch in range(epochs):  # noqa: B007 (the loader reads it)
        for chunk in loader:
            for batch in zip(*(part.unbind(0) for part in chunk), strict=True):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
                    loss = model.loss(Transitions(*batch)).sum()
                loss.backward()
                clip_grad_norm_(parameters, 100.0 * model.members)
                optimizer.step()
                scheduler.step()
    samples = epochs * loader.steps * data.batch_size * model.members
    return time.perf_counter() - start, samples


def main() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="cartpole", choices=["mountaincar", "cartpole", "halfcheetah"])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("data"))
    given = parser.parse_args()
    bare, lightning, samples = [], [], 0
    for _ in range(given.repeats):
        seconds, samples = bare_seconds(given.env, given.root, given.epochs)
        bare.append(seconds)
        lightning.append(lightning_seconds(given.env, given.root, given.epochs))
    loop, fitted = statistics.median(bare), statistics.median(lightning)
    print(f"{given.env}: {torch.get_num_threads()} threads, {given.epochs} epochs, median of {given.repeats}")
    print(f"bare loop  {loop:7.2f} s  {samples / loop:12,.0f} samples/s")
    print(f"Lightning  {fitted:7.2f} s  {samples / fitted:12,.0f} samples/s")
    print(f"ratio      {fitted / loop:7.2f}")


if __name__ == "__main__":
    main()
