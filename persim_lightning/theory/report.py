"""Write the low-rank check as JSON and figures."""

from __future__ import annotations

from pathlib import Path

from persim_lightning.store.names import FIGURES, THEOREM
from persim_lightning.support.files import write_json
from persim_lightning.theory.results import TheoremCheck
from persim_lightning.theory.summary import summary


def write_check(check: TheoremCheck, folder: Path) -> list[Path]:
    """Write `theorem.json`, `figures/theorem.png` and, if covariates are known, `figures/recovered_covariates.png`.

    Returns
    -------
    list of Path
        The files.
    """
    # Imported late: drawing needs matplotlib.
    from persim_lightning.theory.figures import draw_recovered, draw_theorem

    path = folder / THEOREM
    write_json({**check.to_dict(), "summary": summary(check)}, path)
    written = [path, draw_theorem(check, folder / FIGURES / "theorem.png")]
    if check.recovered is not None:
        written.append(draw_recovered(check, folder / FIGURES / "recovered_covariates.png"))
    return written
