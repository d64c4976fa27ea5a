"""Dosing patients who differ in what nobody measures: from a clinic's CSV to doses of their own.

    python examples/dosing.py --out runs/dosing

writes the clinic's table, fits a simulator of every patient on it, and asks it what doctors would ask. The equations of
`examples/patients.py` made the table, and here they judge the answers; the simulators never see them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import torch
from patients import MAX_DOSE, TARGET, Patients, clinic_doses, draw_patients, next_states, record, untreated, write_csv

from persim_lightning import PersonalizedSimulator
from persim_lightning.api.answers import Prediction
from persim_lightning.planning.icem import ICEM

ROLES = {"agent": "patient", "time": "hour", "state": ["concentration", "biomarker"], "action": ["dose"]}
# Visits before a new patient gets a simulator of his own, visits of a course that is planned, and how far plans look.
FEW_VISITS, COURSE, HORIZON = 6, 20, 8
# Hour from which what-ifs depart from the record.
START = 9 * 12.0


def wanted(states: torch.Tensor, doses: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """The biomarker near its target, with as little drug as does it."""
    return -((following[..., 1] - TARGET) / 10).square() - 0.1 * doses[..., 0] / MAX_DOSE


def of(patients: Patients, number: int) -> Patients:
    """One patient."""
    return Patients(*(values[number : number + 1] for values in patients))


def true_course(patient: Patients, state: np.ndarray, doses: np.ndarray) -> np.ndarray:
    """What the equations say, shape (H+1, 2)."""
    states = [state]
    for dose in doses:
        states.append(next_states(patient, states[-1][None], np.array([dose]))[0])
    return np.array(states)


def treated(patient: Patients, name: str, simulator: PersonalizedSimulator) -> np.ndarray:
    """A course of treatment planned anew at every visit on the simulator of `name`: biomarkers (H+1,)."""
    state = untreated(patient)[0]
    seen = [state]
    planner = ICEM(plans=100, rounds=5, elites=10)
    for _ in range(COURSE):
        plan = simulator.plan(name, state, wanted, horizon=HORIZON, planner=planner)
        state = next_states(patient, state[None], np.array(plan.actions["dose"][:1]))[0]
        seen.append(state)
    return np.array(seen)[:, 1]


def by_the_rule(patient: Patients, seed: int) -> np.ndarray:
    """A course of treatment by the clinic's rule: biomarkers (H+1,)."""
    rng = np.random.default_rng(seed)
    state = untreated(patient)[0]
    seen = [state]
    for _ in range(COURSE):
        state = next_states(patient, state[None], clinic_doses(state[None], rng))[0]
        seen.append(state)
    return np.array(seen)[:, 1]


def error(found: list[Prediction], truths: list[np.ndarray]) -> float:
    """Root mean square error of the biomarker."""
    return float(
        np.sqrt(np.mean([np.square(own.mean - truth)[1:, 1] for own, truth in zip(found, truths, strict=True)]))
    )


def inside(found: list[Prediction], truths: list[np.ndarray]) -> float:
    """How often intervals hold the truth."""
    hits = [np.abs(own.mean - truth)[1:] <= own.half_width[1:] for own, truth in zip(found, truths, strict=True)]
    return float(np.mean(hits))


def main(args: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/dosing"), help="folder (default: %(default)s)")
    parser.add_argument("--patients", type=int, default=200, help="in the clinic's table (default: %(default)s)")
    parser.add_argument("--visits", type=int, default=40, help="of each (default: %(default)s)")
    parser.add_argument("--judged", type=int, default=20, help="patients who are asked about (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="of training (default: as many as make 4,000 steps)")
    given = parser.parse_args(args)

    # 1. What the clinic has: a CSV. Hidden parameters stay behind.
    patients = draw_patients(given.patients, seed=0)
    table = write_csv(record(patients, given.visits, seed=1), given.out / "patients.csv")

    # 2. A simulator of every patient.
    simulator = PersonalizedSimulator.fit(table, **ROLES, rank=8, epochs=given.epochs, holdout=0.25)
    simulator.save(given.out / "simulator")

    # 3. What if the dose had been halved from the tenth visit on? And how sure is that?
    names = simulator.agents[: given.judged]
    recorded = [simulator.counterfactual(name, t=START, level=0.9) for name in names]
    halved = [0.5 * np.array(own.actions["dose"]) for own in recorded]
    found = [
        simulator.counterfactual(name, t=START, actions={"dose": doses}, level=0.9)
        for name, doses in zip(names, halved, strict=True)
    ]
    others = [
        simulator.rollout(name, own.mean[0], own.actions) for name, own in zip(reversed(names), found, strict=True)
    ]
    truths = [true_course(of(patients, n), found[n].mean[0], halved[n]) for n in range(len(names))]
    happened = [own.recorded for own in recorded]
    figures = {
        "what-if, error of the biomarker (RMSE)": error(found, truths),
        "  by another patient's simulator": error(others, truths),
        "  share inside 90 % intervals": inside(found, truths),
        "the same for the doses that were given": inside(recorded, happened),
    }

    # 4. New patients, after a few visits.
    newcomers = draw_patients(given.judged, seed=2)
    few = record(newcomers, FEW_VISITS + 1, seed=3, first=given.patients)
    larger = simulator.adapt(write_csv(few, given.out / "new_patients.csv"))
    rng = np.random.default_rng(4)
    told, truly = [], []
    for number, name in enumerate(larger.agents[given.patients :]):
        doses, start = rng.uniform(0, 0.6 * MAX_DOSE, COURSE), untreated(of(newcomers, number))[0]
        told.append(larger.rollout(name, start, {"dose": doses}))
        truly.append(true_course(of(newcomers, number), start, doses))
    figures[f"new patients after {FEW_VISITS} visits, error"] = error(told, truly)

    # 5. Doses of their own, against doses that suit somebody else and the clinic's rule.
    everybody = [of(patients, number) for number in range(len(names))]
    courses = {
        "planned on the own simulator": [
            treated(patient, name, simulator) for patient, name in zip(everybody, names, strict=True)
        ],
        "planned on another patient's": [
            treated(patient, name, simulator) for patient, name in zip(everybody, reversed(names), strict=True)
        ],
        "by the clinic's rule": [by_the_rule(patient, seed) for seed, patient in enumerate(everybody)],
    }
    for label, own in courses.items():
        # The first two days are the way there.
        figures[f"distance from the target, {label}"] = float(np.abs(np.array(own)[:, 4:] - TARGET).mean())

    path = draw(found, truths, courses, given.out / "dosing.png")
    write_csv(pa.table({"figure": list(figures), "value": list(figures.values())}), given.out / "figures.csv")
    width = max(map(len, figures))
    for label, value in figures.items():
        print(f"{label:{width}}  {value:.3g}")
    print(f"wrote {table}, {given.out / 'simulator'}, {given.out / 'figures.csv'} and {path}")
    return figures


def draw(found: list[Prediction], truths: list[np.ndarray], courses: dict[str, list[np.ndarray]], path: Path) -> Path:
    """Two what-ifs with intervals, and every patient's biomarker by the rule and by plans of their own."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for number, axis in enumerate(axes[:2]):
        own, (low, high) = found[number], found[number].interval
        days = np.arange(len(own.mean)) / 2
        axis.fill_between(days, low[:, 1], high[:, 1], alpha=0.25, label="90 % interval")
        axis.plot(days, own.mean[:, 1], label="simulator, doses halved")
        axis.plot(days, truths[number][:, 1], "k:", label="equations, doses halved")
        axis.plot(days, own.recorded[:, 1], color="0.6", label="recorded, full doses")
        axis.set(title=f"patient {number}: what if the doses had been halved?", xlabel="days", ylabel="biomarker")
        axis.legend(fontsize=8)
    for label, color in (("by the clinic's rule", "tab:orange"), ("planned on the own simulator", "tab:blue")):
        lines = np.array(courses[label]).T
        axes[2].plot(np.arange(len(lines)) / 2, lines, color=color, alpha=0.25)
        axes[2].plot([], [], color=color, label=label)
    axes[2].axhline(TARGET, color="k", linewidth=0.8)
    axes[2].set(title="all patients", xlabel="days", ylabel="biomarker")
    axes[2].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
