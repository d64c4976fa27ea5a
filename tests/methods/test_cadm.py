"""CaDM's networks and rollouts against slow, obvious ones; training; planning under contexts."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.data.recordings import Recordings
from persim_lightning.data.windows import Past, WindowGather, Windows
from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError, FitInterruptedError, SimulatorFileError
from persim_lightning.evaluation.control import PlanningSettings
from persim_lightning.evaluation.prediction import EpisodeWindows
from persim_lightning.methods.cadm import method as cadm
from persim_lightning.methods.cadm.context_dynamics import ContextDynamics, ContextPolicy, RecentPast
from persim_lightning.methods.cadm.context_model import ContextModel
from persim_lightning.methods.cadm.method import CaDM
from persim_lightning.methods.cadm.module import CaDMModule
from persim_lightning.methods.contract import Task
from persim_lightning.methods.training import train
from persim_lightning.planning.shared_noise import SharedNoise
from persim_lightning.planning.shooting import RandomShooting
from persim_lightning.types import WallContacts
from tests.methods.springs import springs

MEMBERS, BATCH, PAST, FUTURE, STATE = 3, 5, 4, 2, 3


def random_model(num_actions, probabilistic, walls=False, members=MEMBERS):
    torch.manual_seed(1)
    model = ContextModel(
        state_dim=STATE,
        action_dim=2 if num_actions is None else 1,
        num_actions=num_actions,
        members=members,
        past=PAST,
        context_dim=6,
        width=9,
        layers=3,
        probabilistic=probabilistic,
        angles=[1],
        walls=walls,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        model.scales.delta_rms.copy_(torch.tensor([0.5, 2.0, 0.1]))
        model.scales.state_mean.copy_(torch.tensor([0.3, -0.2, 0.1]))
        model.scales.state_std.copy_(torch.tensor([1.5, 0.7, 2.0]))
    return model.requires_grad_(False)


def actions(num_actions, *shape):
    return torch.randn(*shape, 2) if num_actions is None else torch.randint(num_actions, shape)


def random_past(num_actions, *shape):
    valid = torch.rand(*shape, PAST) < 0.7
    chosen = actions(num_actions, *shape, PAST)
    mask = valid if num_actions is not None else valid[..., None]
    return Past(torch.randn(*shape, PAST, STATE) * valid[..., None], chosen * mask, valid)


def one_step(net, member, model, state, action, context):
    """Mean and log-variance of one transition, layer by layer: state (D,), encoded action, context (C,)."""
    angles = state[model.scales.angles]
    inputs = torch.cat(((state - model.scales.state_mean) / model.scales.state_std, angles.sin(), angles.cos(), action))
    hidden = inputs @ net.from_inputs.weight[member] + net.from_inputs.bias[member, 0]
    hidden = F.silu(hidden + context @ net.from_context.weight[member] + net.from_context.bias[member, 0])
    *layers, output = net.rest.layers
    for layer in layers:
        hidden = F.silu(hidden @ layer.weight[member] + layer.bias[member, 0])
    hidden = hidden @ output.weight[member] + output.bias[member, 0]
    if not net.probabilistic:
        return hidden, None
    mean, raw = hidden[:STATE], hidden[STATE:]
    bounded = net.high[member] - F.softplus(net.high[member] - raw)
    return mean, net.low[member] + F.softplus(bounded - net.low[member])


def one_context(member, model, delta, action, valid):
    """Context of one past: delta (K, D), action (K, …), valid (K,)."""
    parts = []
    for k in range(PAST):
        encoded = model.scales.actions(action[k]) if valid[k] else torch.zeros(model.scales.actions(action[k]).shape)
        parts += [delta[k] / model.scales.delta_rms if valid[k] else torch.zeros(STATE), encoded]
    hidden = torch.cat(parts)
    *layers, output = model.encoder.layers
    for layer in layers:
        hidden = (hidden @ layer.weight[member] + layer.bias[member, 0]).relu()
    return hidden @ output.weight[member] + output.bias[member, 0]


@pytest.mark.parametrize("probabilistic", [False, True])
@pytest.mark.parametrize("num_actions", [None, 4])
def test_loss_against_one_transition_at_a_time(num_actions, probabilistic):
    model = random_model(num_actions, probabilistic)
    shape = (MEMBERS, BATCH)
    windows = Windows(
        *random_past(num_actions, *shape),
        torch.randn(*shape, FUTURE, STATE),
        actions(num_actions, *shape, FUTURE),
        torch.randn(*shape, FUTURE, STATE),
        torch.rand(*shape, FUTURE) < 0.7,
    )
    expected = torch.zeros(MEMBERS)
    for member in range(MEMBERS):
        errors = []
        for b in range(BATCH):
            past = (part[member, b] for part in windows.past)
            context = one_context(member, model, *past)
            for f in range(FUTURE):
                if not windows.valid[member, b, f]:
                    continue
                state, delta = windows.state[member, b, f], windows.delta[member, b, f]
                action = model.scales.actions(windows.action[member, b, f])
                for net, start, target, weight in (
                    (model.forward_net, state, delta, 1.0),
                    (model.backward_net, state + delta, -delta, 0.5),
                ):
                    mean, log_variance = one_step(net, member, model, start, action, context)
                    square = (mean - target / model.scales.delta_rms).square()
                    if log_variance is not None:
                        square = square / log_variance.exp() + log_variance
                    errors.append(weight * square.mean())
        count = int(windows.valid[member].sum())
        expected[member] = torch.stack(errors).sum() / count
        for net, weight in ((model.forward_net, 1.0), (model.backward_net, 0.5)):
            if probabilistic:
                expected[member] += weight * 0.01 * (net.high[member] - net.low[member]).sum()
    torch.testing.assert_close(model.loss(windows, 0.5), expected, rtol=1e-4, atol=1e-5)


def test_log_variances_stay_within_their_bounds():
    net = random_model(4, probabilistic=True).forward_net
    net.low.fill_(-6.0)
    net.high.fill_(1.0)
    outputs = torch.full((MEMBERS, 7, 2 * STATE), 50.0)
    outputs[:, 3:] = -50.0
    _, log_variance = net.split(outputs)
    torch.testing.assert_close(log_variance[:, :3], torch.full((MEMBERS, 3, STATE), 1.0), atol=2e-3, rtol=0)
    torch.testing.assert_close(log_variance[:, 3:], torch.full((MEMBERS, 4, STATE), -6.0), atol=2e-3, rtol=0)


@pytest.mark.parametrize("probabilistic", [False, True])
@pytest.mark.parametrize("num_actions", [None, 4])
def test_every_particle_goes_by_its_own_member_and_that_member_s_context(num_actions, probabilistic):
    model = random_model(num_actions, probabilistic)
    particles, rows = 2, 7
    past = random_past(num_actions, 3)
    contexts = model.context(Past(*(part.expand(MEMBERS, *part.shape) for part in past)))
    assert contexts.shape == (MEMBERS, 3, 6)
    dynamics = ContextDynamics(model, contexts, particles)
    assert dynamics.members == MEMBERS * particles
    states = torch.randn(MEMBERS * particles, rows, STATE)
    chosen, agents = actions(num_actions, rows), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    next_state = dynamics.step(states, chosen, agents)
    for particle in range(MEMBERS * particles):
        member = particle // particles
        for row in range(rows):
            context = one_context(member, model, *(part[agents[row]] for part in past))
            action = model.scales.actions(chosen[row])
            mean, _ = one_step(model.forward_net, member, model, states[particle, row], action, context)
            expected = states[particle, row] + mean * model.scales.delta_rms
            torch.testing.assert_close(next_state[particle, row], expected, rtol=1e-4, atol=1e-5)


def test_particles_are_scattered_as_the_model_says():
    model = random_model(4, probabilistic=True, members=1)
    context = torch.randn(1, 1, 6)
    count = 4000
    dynamics = ContextDynamics(model, context, count, SharedNoise(torch.Generator().manual_seed(0)))
    state = torch.randn(STATE)
    action, own = torch.tensor([2, 2]), torch.zeros(2, dtype=torch.int64)
    next_state = dynamics.step(state.expand(count, 2, STATE), action, own)
    mean, log_variance = one_step(model.forward_net, 0, model, state, model.scales.actions(action[0]), context[0, 0])
    spread = (0.5 * log_variance).exp() * model.scales.delta_rms
    error = (next_state[:, 0].mean(0) - state - mean * model.scales.delta_rms).abs()
    assert bool((error < 4 * spread / count**0.5).all())
    torch.testing.assert_close(next_state[:, 0].std(0), spread, rtol=0.06, atol=0)
    # All rows share the noise: the same plan has the same fate whatever else is planned.
    assert torch.equal(next_state[:, 0], next_state[:, 1])


def test_rollouts_stop_at_walls():
    model = random_model(4, probabilistic=False, walls=True)
    free = torch.full((STATE,), torch.inf)
    low = torch.tensor([-0.1, -torch.inf, -torch.inf])
    nowhere = torch.full((STATE, STATE), torch.nan)
    model.walls.set(WallContacts(low, free, nowhere, nowhere))
    contexts = torch.randn(MEMBERS, 6, 6)
    rolled = ContextDynamics(model, contexts).rollout(torch.randn(6, STATE).abs(), torch.randint(4, (6, 20)))
    assert rolled.shape == (MEMBERS, 6, 21, STATE)
    assert rolled[..., 0].min() == low[0]


def test_the_record_of_a_played_episode_is_the_past_of_a_recorded_one():
    data = springs(agents=2, steps=9, seed=0)
    recent = RecentPast(2, PAST, 2, torch.zeros((), dtype=torch.int64))
    states, played = data.state.view(2, 10, 2).double(), data.action.view(2, 10)
    step = iter(range(10))
    policy = ContextPolicy(lambda states, generator: played[:, next(step)], recent)
    gather = WindowGather(data, torch.zeros(0, dtype=torch.int64), PAST, 1)
    for t in range(9):
        policy(states[:, t], torch.Generator())
        expected = gather.past(data.offsets[:-1] + t)
        torch.testing.assert_close(recent.past.delta, expected.delta, atol=1e-6, rtol=1e-5)
        assert torch.equal(recent.past.action, expected.action)
        assert torch.equal(recent.past.valid, expected.valid)


def module(**changes):
    def build():
        model = ContextModel(
            state_dim=2,
            action_dim=1,
            num_actions=3,
            members=2,
            past=8,
            context_dim=4,
            width=48,
            layers=2,
            probabilistic=changes.get("probabilistic", False),
        )
        bootstrap = changes.get("probabilistic", False)
        return CaDMModule(model, past=8, future=5, backward_weight=0.5, bootstrap=bootstrap, learning_rate=5e-3)

    return build


def task(data, steps):
    planning = PlanningSettings(RandomShooting(plans=4), horizon=3)
    return Task(get_environment("cartpole"), data.recordings, (0,), planning, {}, steps, 0, Path())


def test_contexts_tell_agents_apart(tmp_path):
    """Springs of different stiffness: predictions under an agent's own context beat those under another's."""
    data = TrajectoryDataModule(Recordings(springs(agents=40, steps=60, seed=1)), 32, 0.0)
    trained = train(module(), data, task(data, 800), tmp_path).model
    test = springs(agents=40, steps=40, seed=2)
    windows = EpisodeWindows.cut(test, horizon=20)
    gather = WindowGather(test, torch.zeros(0, dtype=torch.int64), 8, 1)
    past = gather.past(test.offsets[:-1] + 10)

    def error(past):
        with torch.no_grad():
            contexts = trained.context(Past(*(part.expand(2, *part.shape) for part in past)))
        predicted = ContextDynamics(trained, contexts).rollout(windows.start, windows.action)[:, :, 1:].mean(0)
        return float((predicted - windows.target).square().mean().sqrt())

    own, other = error(past), error(Past(*(part.flip(0) for part in past)))
    assert own < 0.5 * other


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path):
    data = TrajectoryDataModule(Recordings(springs(agents=10, steps=40, seed=1)), 32, 0.0)
    whole = train(module(probabilistic=True), data, task(data, 60), tmp_path / "whole")
    with pytest.raises(FitInterruptedError, match="the same command resumes"):
        train(interrupted(module(probabilistic=True), epoch=3), data, task(data, 60), tmp_path / "cut")
    assert (tmp_path / "cut/checkpoints/last.ckpt").is_file()
    resumed = train(module(probabilistic=True), data, task(data, 60), tmp_path / "cut")
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not list((tmp_path / "cut").iterdir())


def interrupted(build, epoch):
    def build_interrupted():
        built = build()
        step = built.training_step

        def training_step(chunk, batch_idx):
            if built.current_epoch == epoch:
                raise KeyboardInterrupt
            step(chunk, batch_idx)

        built.training_step = training_step
        return built

    return build_interrupted


def test_particles_must_be_shared_evenly():
    with pytest.raises(ConfigurationError, match="particles 7 must be a multiple of members 5"):
        CaDM(members=5, probabilistic=True, particles=7)


def test_damaged_weights(tmp_path: Path, cartpole_task):
    (tmp_path / "cadm.safetensors").write_bytes(b"nonsense")
    with pytest.raises(SimulatorFileError, match=r"cadm\.safetensors: not readable"):
        CaDM().load(tmp_path, cartpole_task())


class Echo(torch.nn.Module):
    """A model whose context is the past's Δs."""

    members, state_dim = 1, 4

    def context(self, past):
        return past.delta.flatten(-2)


def test_every_row_plans_under_its_own_past(cartpole_task, monkeypatch):
    """Two agents, two episodes each; one episode ends early."""
    made = []

    class Seen:
        members = 1

        def __init__(self, model, contexts, particles, noise):
            made.append(contexts[0])

        def step(self, states, actions, agents):
            return states

    monkeypatch.setattr(cadm, "ContextDynamics", Seen)
    policy = cadm.FittedCaDM(Echo(), 2, 1).policy(cartpole_task(), 2)
    states = torch.zeros(4, 4, 4, dtype=torch.float64)
    # Row r moves by .005 (r + 1) t in every coordinate; row 1 falls over at t = 2.
    for t in range(1, 4):
        states[t] = states[t - 1] + 0.005 * t * torch.arange(1, 5)[:, None]
    states[2:, 1, 2] = 1.0
    for t in range(4):
        policy(states[t], torch.Generator().manual_seed(0))
    step = 0.005 * torch.arange(1.0, 5)[:, None, None] * torch.ones(4, 1, 4)
    going = torch.tensor([0, 2, 3])
    assert torch.equal(made[0], torch.zeros(4, 8))
    torch.testing.assert_close(made[1], torch.cat((0 * step, step), 1).flatten(1))
    torch.testing.assert_close(made[2], torch.cat((step, 2 * step), 1).flatten(1)[going])
    torch.testing.assert_close(made[3], torch.cat((2 * step, 3 * step), 1).flatten(1)[going])


def test_test_episodes_are_predicted_under_the_ten_transitions_before_them(cartpole_task):
    task = cartpole_task()
    fitted = CaDM(width=8, layers=1, members=2, probabilistic=True, particles=2).fit(task)
    scores = fitted.score(task)
    test, model = task.recordings.test, fitted.model
    errors = {index: [] for index in range(test.num_agents)}
    for episode in range(test.num_trajectories):
        first, end = test.offsets[episode : episode + 2].tolist()
        steps = min(end - 1 - first - 10, 50)
        if steps < 4:
            continue
        rows = slice(first, first + 10)
        past = Past(test.delta[rows], test.action[rows], torch.ones(10, dtype=torch.bool))
        contexts = model.context(Past(*(part.expand(2, 1, *part.shape) for part in past)))
        state = test.state[first + 10].expand(2, 4)
        predicted = []
        for t in range(steps):
            action = model.scales.actions(test.action[first + 10 + t])
            moved = []
            for member in range(2):
                inputs = torch.cat((model.scales.states(state[member]), action))
                mean, _ = model.forward_net(inputs.expand(2, 1, 1, -1), contexts)
                moved.append(state[member] + mean[member, 0, 0] * model.scales.delta_rms)
            state = torch.stack(moved)
            predicted.append(state.mean(0))
        target = test.state[first + 11 : first + 11 + steps]
        errors[int(test.agent[episode])].append((torch.stack(predicted) - target).square().mean().sqrt())
    for index, own in errors.items():
        assert scores.scored[index] == len(own)
        if own:
            assert float(scores.rmse[index]) == pytest.approx(float(torch.stack(own).mean()), rel=1e-3)


def test_held_out_tails_are_validated_on_without_bootstrap():
    data = TrajectoryDataModule(Recordings(springs(agents=6, steps=40, seed=1)), 32, 0.2)
    trained = module(probabilistic=True)()
    trainer = pl.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(trained, datamodule=data)
    gather = WindowGather(data.trajectories, data.validation_rows, 8, 5)
    windows = gather(data.validation_rows.expand(2, -1))
    # A tail ends where its trajectory does.
    assert int(windows.valid[0].sum()) < 5 * len(data.validation_rows)
    with torch.no_grad():
        expected = float(trained.loss(windows).mean())
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-5)
