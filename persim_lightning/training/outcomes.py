"""Trains the models of rewards and terminations on a table."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.models.outcomes import OutcomeModel, Outcomes

_STEPS, _BATCH, _RATE = 2000, 512, 5e-3


def outcomes_of(trajectories: Trajectories, rows: Tensor) -> Outcomes:
    """Collect rewards and terminations of the transitions that start in `rows`."""
    state = trajectories.state[rows]
    reward = None if trajectories.reward is None else trajectories.reward[rows]
    return Outcomes(state, trajectories.action[rows], trajectories.state[rows + 1], reward, trajectories.ends(rows))


def fit_outcomes(trajectories: Trajectories, seed: int) -> OutcomeModel | None:
    """Learn rewards and terminations from all transitions, tails included, since terminations occur there.

    Parameters
    ----------
    trajectories : Trajectories
    seed : int

    Returns
    -------
    OutcomeModel or None
        None if the table has neither rewards nor terminations.
    """
    rows, _ = trajectories.split_rows(0.0)
    outcomes = outcomes_of(trajectories, rows)
    rewarded, ending = outcomes.reward is not None, bool(outcomes.terminated.any())
    if not (rewarded or ending):
        return None
    schema = trajectories.schema
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OutcomeModel(schema.state_dim, schema.action_dim, schema.num_actions, rewarded, ending)
    model.set_statistics(outcomes)
    generator = torch.Generator().manual_seed(seed)
    optimizer = Adam(model.parameters(), lr=_RATE, fused=True)
    scheduler = OneCycleLR(optimizer, max_lr=_RATE, total_steps=_STEPS + 1)
    for _ in range(_STEPS):
        index = torch.randint(len(rows), (_BATCH,), generator=generator)
        batch = Outcomes(*(None if part is None else part[index] for part in outcomes))  # type: ignore[arg-type]
        optimizer.zero_grad()
        model.loss(batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
    return model.eval().requires_grad_(False)
