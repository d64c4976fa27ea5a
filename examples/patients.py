"""Patients under a drug that inhibits how a biomarker is made: the data of `examples/dosing.py`.

The drug follows one compartment with first-order elimination, the biomarker the indirect response model I of Dayneka,
Garg and Jusko (1993, J. Pharmacokinet. Biopharm. 21:457-478, https://doi.org/10.1007/BF01061691):

    dC/dt = -k C                     C jumps by dose / V
    dR/dt = k_in (1 - C / (IC50 + C)) - k_out R

Patients differ in k, V, k_in, k_out and IC50. Nobody measures these; what is recorded every 12 hours is the
concentration C, the biomarker R, and the dose that a clinic gave by a rule of thumb.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
from scipy.integrate import solve_ivp

HOURS = 12.0
MAX_DOSE = 100.0
# Biomarker that doctors want, and where they start to treat less or more.
TARGET, LOW, HIGH = 50.0, 40.0, 60.0


class Patients(NamedTuple):
    """Hidden parameters, each of shape (N,).

    Attributes
    ----------
    elimination : ndarray
        k, 1/h.
    volume : ndarray
        V, l.
    production, loss : ndarray
        k_in, units/h, and k_out, 1/h.
    potency : ndarray
        IC50, mg/l.
    """

    elimination: np.ndarray
    volume: np.ndarray
    production: np.ndarray
    loss: np.ndarray
    potency: np.ndarray


def draw_patients(count: int, seed: int) -> Patients:
    """Patients with log-normal parameters."""
    rng = np.random.default_rng(seed)

    def around(typical: float, spread: float) -> np.ndarray:
        return typical * np.exp(spread * rng.standard_normal(count))

    loss = around(0.1, 0.25)
    return Patients(
        around(0.08, 0.3),
        around(20.0, 0.25),
        100.0 * loss * np.exp(0.1 * rng.standard_normal(count)),
        loss,
        around(1.0, 0.4),
    )


def next_states(patients: Patients, states: np.ndarray, doses: np.ndarray) -> np.ndarray:
    """States (N, 2) of concentration and biomarker twelve hours after doses (N,) in mg."""
    count = len(doses)
    start = states[:, 0] + doses / patients.volume

    def rates(time: float, flat: np.ndarray) -> np.ndarray:
        concentration, biomarker = flat.reshape(2, count)
        made = patients.production * (1 - concentration / (patients.potency + concentration))
        return np.concatenate((-patients.elimination * concentration, made - patients.loss * biomarker))

    solved = solve_ivp(rates, (0, HOURS), np.concatenate((start, states[:, 1])), rtol=1e-8, atol=1e-8)
    following: np.ndarray = solved.y[:, -1].reshape(2, count).T
    return following


def untreated(patients: Patients) -> np.ndarray:
    """Where patients are before any treatment: no drug, the biomarker at rest, shape (N, 2)."""
    return np.stack((np.zeros_like(patients.loss), patients.production / patients.loss), axis=1)


def clinic_doses(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The clinic's rule: much while the biomarker is high, half of it near the target, hardly any below it."""
    wanted = np.select([states[:, 1] > HIGH, states[:, 1] > LOW], [0.6, 0.3], 0.05) * MAX_DOSE
    doses: np.ndarray = np.clip(wanted * rng.uniform(0.5, 1.5, len(states)), 0, MAX_DOSE)
    return doses


def record(patients: Patients, rows: int, seed: int, first: int = 0) -> pa.Table:
    """What the clinic writes down: a table with one row per (patient, visit); the last visit has no dose."""
    rng = np.random.default_rng(seed)
    states = untreated(patients)
    seen, given = [states], []
    for _ in range(rows - 1):
        given.append(clinic_doses(states, rng))
        states = next_states(patients, states, given[-1])
        seen.append(states)
    count = len(patients.loss)
    table = np.stack(seen, axis=1)
    doses = np.full((count, rows), np.nan)
    doses[:, :-1] = np.stack(given, axis=1)
    return pa.table(
        {
            "patient": np.repeat([f"P{first + number:03d}" for number in range(count)], rows),
            "hour": np.tile(np.arange(rows) * HOURS, count),
            "concentration": table[:, :, 0].ravel(),
            "biomarker": table[:, :, 1].ravel(),
            "dose": pa.array(doses.ravel(), from_pandas=True),
        }
    )


def write_csv(table: pa.Table, path: Path) -> Path:
    """Write a table where it belongs, folder and all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.csv.write_csv(table, path)
    return path
