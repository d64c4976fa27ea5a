"""Uneven times and missing values: errors beside those of an even, complete table, and of interpolating first.

Three systems with known equations: CartPole and MountainCar in continuous time, and a drug in two compartments. Every
agent has one trajectory over the same span, recorded (a) at every time unit, complete, (b) at steps drawn from .5 to 2
units with 30 % of state values removed, (c) as (b), but interpolated linearly to every time unit before the fit.

    python benchmarks/uneven.py                     # all, a few minutes each
    python benchmarks/uneven.py drug --epochs 50
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from persim_lightning import PersonalizedSimulator

MISSING, SPAN = 0.3, 50
# Sub-steps of the exact solution in a time unit.
FINE = 20


@dataclass(frozen=True)
class System:
    """A controlled system.

    Attributes
    ----------
    states : tuple of str
    rate : callable, (parameters (N, P), states (N, D), action (N,)) -> change per time unit (N, D)
    parameters, start : callable, (generator, N) -> (N, P) and (N, D)
    actions : tuple of float
        Held for a time unit each, drawn uniformly.
    """

    states: tuple[str, ...]
    rate: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    parameters: Callable[[np.random.Generator, int], np.ndarray]
    start: Callable[[np.random.Generator, int], np.ndarray]
    actions: tuple[float, ...]


def cartpole(parameters: np.ndarray, states: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Time unit .02 s; parameters are force (N) and half the pole's length (m)."""
    force, length = parameters.T
    _, speed, angle, spin = states.T
    push = (force * action + 0.1 * length * spin**2 * np.sin(angle)) / 1.1
    turn = (9.8 * np.sin(angle) - np.cos(angle) * push) / (length * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1))
    return 0.02 * np.stack((speed, push - 0.1 * length * turn * np.cos(angle) / 1.1, spin, turn), 1)


def mountaincar(parameters: np.ndarray, states: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Without walls; the parameter is gravity."""
    position, speed = states.T
    return np.stack((speed, 0.001 * action - parameters[:, 0] * np.cos(3 * position)), 1)


def drug(parameters: np.ndarray, states: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Amounts in blood and tissue under an infusion; parameters are elimination and two exchange rates."""
    out, inward, back = parameters.T
    blood, tissue = states.T
    return np.stack((action - (out + inward) * blood + back * tissue, inward * blood - back * tissue), 1)


def uniform(*bounds: tuple[float, float]) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Columns drawn uniformly."""
    return lambda rng, count: np.stack([rng.uniform(low, high, count) for low, high in bounds], 1)


SYSTEMS = {
    "cartpole": System(
        ("x", "speed", "angle", "spin"),
        cartpole,
        uniform((2, 18), (0.15, 0.85)),
        uniform(*[(-0.05, 0.05)] * 4),
        (-1.0, 1.0),
    ),
    "mountaincar": System(
        ("position", "speed"), mountaincar, uniform((5e-4, 3.5e-3)), uniform((-0.6, -0.4), (0, 0)), (-1.0, 0.0, 1.0)
    ),
    "drug": System(
        ("blood", "tissue"), drug, uniform((0.05, 0.3), (0.02, 0.2), (0.02, 0.2)), uniform((0, 2), (0, 1)), (0.0, 0.5)
    ),
}


def solve(
    system: System, parameters: np.ndarray, states: np.ndarray, action: np.ndarray, span: np.ndarray
) -> np.ndarray:
    """States after `span` (N,) time units under constant actions, by RK4 with small steps."""
    step = (span / FINE)[:, None]
    for _ in range(FINE):
        first = system.rate(parameters, states, action)
        second = system.rate(parameters, states + step / 2 * first, action)
        third = system.rate(parameters, states + step / 2 * second, action)
        fourth = system.rate(parameters, states + step * third, action)
        states = states + step / 6 * (first + 2 * (second + third) + fourth)
    return states


def record(
    system: System, parameters: np.ndarray, rng: np.random.Generator, span: int, uneven: bool
) -> dict[str, list]:
    """A table of one trajectory for every agent over `span` time units; actions change with the rows."""
    count = len(parameters)
    states, clock = system.start(rng, count), np.zeros(count)
    names = ("agent", "time", *system.states, "action")
    columns: dict[str, list] = {name: [] for name in names}
    while (clock < span).any():
        action = rng.choice(system.actions, count)
        going = np.flatnonzero(clock < span)
        for agent in going.tolist():
            values = [
                None if uneven and clock[agent] > 0 and rng.uniform() < MISSING else v for v in states[agent].tolist()
            ]
            for name, value in zip(names, (agent, float(clock[agent]), *values, float(action[agent])), strict=True):
                columns[name].append(value)
        pause = rng.uniform(0.5, 2.0, count) if uneven else np.ones(count)
        states, clock = solve(system, parameters, states, action, pause), clock + pause
    return columns


def interpolated(table: dict[str, list], states: tuple[str, ...]) -> dict[str, list]:
    """The table on a grid of whole time units: states by lines, actions as they were held."""
    agents, times = np.array(table["agent"]), np.array(table["time"])
    result: dict[str, list] = {name: [] for name in table}
    for agent in np.unique(agents):
        rows = agents == agent
        grid = np.arange(int(times[rows].max()) + 1.0)
        held = np.searchsorted(times[rows], grid, side="right") - 1
        result["agent"] += [int(agent)] * len(grid)
        result["time"] += grid.tolist()
        result["action"] += np.array(table["action"])[rows][held].tolist()
        for name in states:
            values = np.array(table[name], dtype=float)[rows]
            known = ~np.isnan(values)
            result[name] += np.interp(grid, times[rows][known], values[known]).tolist()
    return result


def error(simulator: PersonalizedSimulator, system: System, parameters: np.ndarray, rng: np.random.Generator) -> float:
    """Root mean square error of open-loop predictions over 50 time units, in standard deviations of the states."""
    count = len(parameters)
    states = [system.start(rng, count)]
    actions = rng.choice(system.actions, (SPAN, count))
    for action in actions:
        states.append(solve(system, parameters, states[-1], action, np.ones(count)))
    truth = np.stack(states, 1)
    population = simulator.population
    unit = simulator.schema.step or 1.0
    spans = torch.full((count, SPAN), 1.0 / unit)
    predicted = population.simulator.rollout(
        population.index(range(count)),
        torch.from_numpy(truth[:, 0]).float(),
        torch.from_numpy(actions.T[..., None]).float(),
        None if unit == 1.0 else spans,
    )
    difference = predicted.mean(0).numpy() - truth
    return float(np.sqrt(np.mean(np.square(difference / truth.std((0, 1))))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), help="cartpole, mountaincar, drug (default: all)")
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--span", type=int, default=100, help="time units that are recorded of every agent")
    parser.add_argument("--epochs", type=int, help="of every fit (default: as many as make 4,000 steps)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.systems:
        system = SYSTEMS[name]
        rng = np.random.default_rng(args.seed)
        parameters = system.parameters(rng, args.agents)
        tables = {uneven: record(system, parameters, rng, args.span, uneven) for uneven in (False, True)}
        cases = {
            "even": tables[False],
            "uneven": tables[True],
            "interpolated": interpolated(tables[True], system.states),
        }
        errors = {}
        for case, table in cases.items():
            start = time.perf_counter()
            simulator = PersonalizedSimulator.fit(
                table,
                agent="agent",
                time="time",
                state=system.states,
                action=["action"],
                events=[],
                rank=5,
                epochs=args.epochs,
                seed=args.seed,
                progress=False,
            )
            seconds = time.perf_counter() - start
            errors[case] = error(simulator, system, parameters, np.random.default_rng(1))
            print(f"{name} {case}: error {errors[case]:.4g}, {seconds:.0f} s", flush=True)
        print(
            f"{name}: uneven is {errors['uneven'] / errors['even']:.2f} times even, and "
            f"{errors['uneven'] / errors['interpolated']:.3f} times interpolated",
            flush=True,
        )


if __name__ == "__main__":
    main()
