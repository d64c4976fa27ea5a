"""The low-rank check in plain words."""

from __future__ import annotations

import numpy as np

from persim_lightning.theory.check import TOLERANCE, TheoremCheck

_NAMES = {"cp": "CP", "tucker": "Tucker"}


def summary(check: TheoremCheck) -> str:
    """The result in plain words, one paragraph."""
    size = "{agents} agents × {states} states × {actions} actions".format(**check.sample)
    parts = [f"{check.name}, tensor of {size}:"]
    if check.truth is not None:
        curve = check.truth.merged
        agent, state, action = curve.multilinear_ranks()
        needed = curve.needed_rank()
        if needed is None:
            parts.append(
                f"no rank up to {curve.ranks[-1]} explains the true dynamics to {TOLERANCE:.0%}"
                f" (rank {curve.ranks[-1]} leaves {curve.cp[-1]:.1%});"
            )
        else:
            error = curve.cp[curve.ranks.index(needed)]
            parts.append(f"rank {needed} explains the true dynamics up to a relative error of {error:.1g};")
        parts.append(
            f"its agents span {_count(agent, 'direction')}, its states {state}, its actions {action}"
            f" (to {TOLERANCE:.0%})."
        )
        seen = check.truth.observed
        best = int(np.argmin(seen.unseen))
        parts.append(
            f"The data visit {seen.share:.1%} of the cells; decomposing these alone at rank {seen.ranks[best]} leaves"
            f" {seen.unseen[best]:.2g} of the others."
        )
    if check.learned is not None:
        learned = check.learned
        ranks = str(learned.ranks[0]) if learned.factorization == "cp" else " × ".join(map(str, learned.ranks))
        own = f"Your model uses {_NAMES[learned.factorization]} rank {ranks}"
        parts.append(own + ("." if learned.error is None else f" and differs from the truth by {learned.error:.2g}."))
        if learned.projection_error is not None:
            parts.append(
                f"Seen through the model's {_count(learned.ranks[0], 'agent direction')}, the true agents lose"
                f" {learned.projection_error:.2g} (the best as many directions: {learned.best_projection_error:.2g})."
            )
        if learned.quadratic is not None and learned.linear is not None:
            given = ", ".join(
                f"{covariate} R² {value:.3f} ({learned.linear[covariate]:.3f} linear)"
                for covariate, value in learned.quadratic.items()
            )
            parts.append(f"Agent factors give back the covariates of held-out agents: {given}.")
    return " ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
