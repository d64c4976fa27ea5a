"""Public API: fits simulators of every agent of a table, predicts, plans, and adds agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from persim_lightning.api.adapting import adapt_population
from persim_lightning.api.inputs import check_positive
from persim_lightning.api.questions import Questions
from persim_lightning.api.storage import load_calibration, load_recorded, load_saved_outcomes, save_parts
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.sources import as_table
from persim_lightning.data.tables.user import read_like, user_trajectories
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.ladder.choice import Choice
from persim_lightning.models.population import FittedPopulation
from persim_lightning.store.names import PROVENANCE, TRAJECTORIES
from persim_lightning.support.precision import single_precision
from persim_lightning.training.outcomes import fit_outcomes


class PersonalizedSimulator(Questions):
    """Simulators of all agents of a table.

    Made by :meth:`fit` or :meth:`load`.

    Parameters
    ----------
    population : FittedPopulation
    trajectories : Trajectories
        Training trajectories.
    outcomes : OutcomeModel, Environment or None
        Rewards and terminations, learned from the table or known from one of the three environments.
    calibration : Calibration or None
        Calibration of intervals.
    choice : Choice or None
        How simple and neural dynamics compared in a backtest, with a `verdict()`.

    Examples
    --------
    >>> import numpy as np
    >>> from persim_lightning import PersonalizedSimulator
    >>> rng = np.random.default_rng(0)
    >>> rows = {"tank": [], "hour": [], "level": [], "inflow": []}
    >>> for tank in range(12):  # every tank leaks at a different rate
    ...     level = 1.0
    ...     for hour in range(20):
    ...         inflow = rng.uniform(0, 1)
    ...         for name, value in zip(rows, (tank, hour, level, inflow)):
    ...             rows[name].append(value)
    ...         level += 0.1 * inflow - (0.02 + 0.01 * tank) * level
    >>> simulator = PersonalizedSimulator.fit(
    ...     rows, agent="tank", time="hour", state=["level"], action=["inflow"], rank=2, epochs=200, progress=False
    ... )
    >>> print(simulator.rollout(3, state={"level": 1.0}, actions={"inflow": [0.0, 0.0]}).mean[:, 0].round(2))
    [1.   0.95 0.9 ]
    """

    @classmethod
    @single_precision()
    def fit(
        cls,
        table: Any,
        *,
        state: Sequence[str],
        action: Sequence[str] = (),
        agent: str = "agent",
        time: str = "t",
        episode: str | None = None,
        reward: str | None = None,
        terminated: str | None = None,
        categorical: Sequence[str] = (),
        inputs: Sequence[str] = (),
        covariates: Sequence[str] = (),
        events: Sequence[str] | None = None,
        fill: Mapping[str, float | str] | None = None,
        bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
        step: float | Literal["row"] | None = None,
        gaps: Literal["keep", "error", "split"] = "keep",
        rank: int = 8,
        members: int = 5,
        hidden_width: int = 64,
        epochs: int | None = None,
        holdout: float = 0.1,
        seed: int = 0,
        progress: bool = True,
        models: Literal["auto", "neural"] = "auto",
        **model: Any,
    ) -> PersonalizedSimulator:
        """Learn a simulator of every agent of a table.

        Parameters
        ----------
        table : path, pyarrow.Table, pandas or polars DataFrame, dict of columns, or minari.MinariDataset
            One row per (agent, time); times may be uneven, and states may be missing. For Minari see
            :func:`~persim_lightning.data.tables.minari.minari_columns`.
        state, action, agent, time, episode, reward, terminated, categorical, inputs, covariates, events, fill,
        bounds, step, gaps
            Roles of columns, see :class:`~persim_lightning.data.tables.columns.TableColumns`.
        rank : int
            Rank R of the factorization, which limits the ways in which agents can differ.
        members : int
            Ensemble members M.
        hidden_width : int
        epochs : int, optional
            By default trainings of several lengths are compared, up to 4,000 optimizer steps (8,000 for uneven tables
            of many rows).
        holdout : float
            Share of every trajectory, at its tail, that the encoders are not trained on but that calibrates intervals.
            A third where this is fewer than five rows; all models are then fitted again to all rows. Otherwise agents'
            factors are computed from all rows in the end. Long rollouts need long tails.
        seed : int
            The same seed gives the same simulator.
        progress : bool
            Show a progress bar, and in the end how well rollouts of held-out rows are predicted.
        models : {'auto', 'neural'}
            'auto' compares neural dynamics with simple ones, from keeping the last value to an affine model of each
            agent, by rollouts over the ends of trajectories, and makes the members of the ensemble from the best; see
            `choice`. 'neural' takes neural dynamics only.
        **model
            Further options of :class:`~persim_lightning.training.persim.PerSimModule`, such as `angles`.

        Raises
        ------
        PersimError
            If the table is invalid.
        """
        # Imported late, since Lightning takes seconds.
        from persim_lightning.api.fitting import fit_calibrated

        check_positive(rank=rank, members=members, hidden_width=hidden_width, epochs=1 if epochs is None else epochs)
        # Keep strings, which TableColumns refuses; list() would split them into letters.
        given = (state, action, categorical, inputs, covariates)
        roles: list[Any] = [names if isinstance(names, str) else list(names) for names in given]
        columns = TableColumns(
            state=roles[0],
            action=roles[1],
            inputs=roles[3],
            covariates=roles[4],
            events=None if events is None else list(events),
            fill=dict(fill or {}),
            bounds=dict(bounds or {}),
            agent=agent,
            time=time,
            episode=episode,
            reward=reward,
            terminated=terminated,
            categorical=roles[2],
            step=step,
            gaps=gaps,
        )
        source, name = as_table(table, ids=columns.ids)
        trajectories = user_trajectories(source, columns, name)
        sizes = {"rank": rank, "members": members, "hidden_width": hidden_width}
        fitted = fit_calibrated(trajectories, holdout, epochs, seed, progress, models, **sizes, **model)
        simulator = cls(fitted.population, trajectories, None, fitted.calibration, fitted.choice)
        simulator.outcomes = fit_outcomes(simulator.trajectories, seed)
        return simulator

    @single_precision()
    def with_history(self, history: Any) -> PersonalizedSimulator:
        """Replace recorded rows of agents by recent ones, and adapt to unknown agents in them."""
        rows = read_like(self.schema, history, "history").with_known_covariates(self.trajectories)
        known = set(self.agents)
        new = [label for label in rows.agent_ids if label not in known]
        population = self.population
        if new:
            population, _ = adapt_population(population, rows.restricted(new), recorded=self.trajectories)
        replaced = set(rows.agent_ids)
        kept = [label for label in self.trajectories.agent_ids if label not in replaced]
        recorded = self.trajectories.restricted(kept).joined(rows) if kept else rows
        return PersonalizedSimulator(population, recorded, self.outcomes, self.calibration, self.choice)

    @single_precision()
    def adapt(self, rows: Any = None, covariates: Any = None, known_covariates: Any = None) -> PersonalizedSimulator:
        """Add agents from a few rows of each, from covariates, or from both; nothing is trained.

        The factor of a new agent is its posterior mean given its rows, under the prior of the population or of its
        covariates.

        Parameters
        ----------
        rows : table, optional
            Rows of the new agents, with the columns of the fitted table.
        covariates : table, optional
            Covariates of the new agents: the agent column and a column for every covariate.
        known_covariates : table, optional
            Covariates of at least ten fitted agents; required with `covariates`.

        Returns
        -------
        PersonalizedSimulator
            Simulators of all agents, including the new ones.

        Raises
        ------
        PersimError
            If a table is invalid, or an agent is in the population already.
        """
        population, seen = adapt_population(self.population, rows, covariates, known_covariates, self.trajectories)
        recorded = self.trajectories if seen is None else self.trajectories.joined(seen)
        return PersonalizedSimulator(population, recorded, self.outcomes, self.calibration, self.choice)

    def save(self, folder: str | Path) -> list[Path]:
        """Write simulators, recorded trajectories, rewards, terminations and calibration, without pickle."""
        folder = Path(folder)
        parts = self.trajectories, self.outcomes, self.calibration, self.choice
        return [*self.population.save(folder), *save_parts(folder, *parts)]

    @classmethod
    @single_precision()
    def load(cls, folder: str | Path) -> PersonalizedSimulator:
        """Read a folder of :meth:`save` or a run folder of `persim fit`; executes no code.

        Raises
        ------
        PersimError
            If a file is missing or damaged.
        """
        folder = Path(folder)
        calibration, choice = load_calibration(folder), Choice.load(folder)
        if not (folder / TRAJECTORIES).is_file() and (folder / PROVENANCE).is_file():
            # Runs of environments do not copy their tables.
            run = FittedRun.load(folder)
            return cls(run.personalized, run.trajectories(), run.environment, calibration)
        population = FittedPopulation.load(folder)
        schema = population.schema
        return cls(population, load_recorded(folder, schema), load_saved_outcomes(folder, schema), calibration, choice)
