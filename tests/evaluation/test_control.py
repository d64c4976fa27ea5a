"""MPC in the real environment: on the true dynamics, on simulators, and what its settings do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from persim_lightning.data.collecting.behavior import RandomPolicy
from persim_lightning.data.collecting.episodes import play
from persim_lightning.envs import ENVIRONMENTS, get_environment
from persim_lightning.envs.mountain_car import dynamics
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.control import PlanningSettings, play_agents, simulator_mpc, true_mpc
from persim_lightning.evaluation.episode_media import check_video, draw_episodes, film_episode
from persim_lightning.models.config import Ranks, SimulatorConfig
from persim_lightning.models.population import FittedPopulation
from persim_lightning.models.simulator import Simulator
from persim_lightning.planning.icem import ICEM
from persim_lightning.planning.shooting import RandomShooting
from tests.conftest import ROOT

QUICK = PlanningSettings(ICEM(plans=20, rounds=1, elites=5), horizon=10)


def untrained(name):
    environment = get_environment(name)
    schema = environment.schema
    torch.manual_seed(0)
    config = SimulatorConfig(
        num_agents=6,
        state_dim=schema.state_dim,
        action_dim=schema.action_dim,
        num_actions=schema.num_actions,
        members=2,
        ranks=Ranks(3, 3, 3),
        state_hidden=(8,),
        action_hidden=(8,),
    )
    simulator = Simulator(config)
    with torch.no_grad():
        for parameter in simulator.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        simulator.agent_encoder.deviation.mul_(4)
    simulator.delta_rms.fill_(1e-2)
    return FittedPopulation(simulator, schema, range(6))


def covariates_of(environment, count):
    return torch.tensor(environment.test_agents[:count], dtype=torch.float64)


@pytest.mark.parametrize(("name", "least"), [("mountaincar", -150), ("cartpole", 195)])
def test_planning_on_the_true_dynamics_by_the_shipped_settings(name, least):
    """The default agent, twice: far better than any shipped behavior policy."""
    environment = get_environment(name)
    settings = PlanningSettings.load(ROOT / f"conf/planning/{name}.yaml")
    agent = torch.tensor([environment.default_agent], dtype=torch.float64)
    scores = play_agents(environment, true_mpc(environment, agent.expand(2, -1), settings), agent, 2, seed=0)
    assert scores.returns.min() >= least
    assert scores.decisions == scores.lengths.sum()


def test_cheetah_runs_forward_on_its_true_dynamics():
    environment = get_environment("halfcheetah")
    agent = torch.tensor([environment.default_agent], dtype=torch.float64)
    settings = PlanningSettings(ICEM(plans=30, rounds=2, elites=6, color=2.0), horizon=15)
    planned = play(environment, true_mpc(environment, agent, settings), agent, 60, seed=0)
    still = play(environment, lambda states, _: torch.zeros(len(states), 6, dtype=torch.float64), agent, 60, seed=0)
    assert planned.returns > still.returns + 20


def wavy(states, actions, next_states):
    """So uneven that agents' simulators ask for different actions."""
    return torch.sin(100 * next_states).sum(-1)


@pytest.mark.parametrize("name", list(ENVIRONMENTS))
def test_episodes_played_together_are_those_played_alone(name):
    """On simulators too: agents share noise, and nothing else; the second episode ends in the middle."""
    environment, simulators = get_environment(name), untrained(name)
    settings = PlanningSettings(ICEM(plans=40, rounds=1, elites=5), horizon=5, reward=wavy)
    agents, first = [1, 4, 5], environment.make_batch(covariates_of(environment, 3), seed=3).states
    drawn = torch.randn(20, *first.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # All three in the same states, so that only their simulators can make them differ.
    steps = (first + 0.1 * drawn)[:, :1].repeat(1, 3, 1)
    ended = replace(environment, terminated=lambda states: states[..., 0] > 1e3)
    steps[4:, 1, 0] = 1e4

    def chosen(rows):
        policy, clamped = simulator_mpc(ended, simulators, [agents[row] for row in rows], 1, settings)
        assert clamped is None
        generator = torch.Generator().manual_seed(4)
        return torch.stack([policy(states[rows], generator) for states in steps])

    together = chosen([0, 1, 2])
    assert not torch.equal(together[:, 0], together[:, 2])
    assert not together[4:, 1].any()
    for row in (0, 2):
        torch.testing.assert_close(chosen([row])[:, 0], together[:, row], atol=1e-4, rtol=0)


def test_same_seed_same_returns():
    environment, simulators = get_environment("cartpole"), untrained("cartpole")
    settings = PlanningSettings(RandomShooting(plans=10), horizon=5, reward=wavy)
    states = torch.rand(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.02
    actions = []
    for seed in (0, 0, 1):
        policy, _ = simulator_mpc(environment, simulators, [0, 1], 1, settings)
        generator = torch.Generator().manual_seed(seed)
        actions.append(torch.stack([policy(states, generator) for _ in range(12)]))
    assert torch.equal(actions[0], actions[1])
    assert not torch.equal(actions[0], actions[2])


def leftwards(states, actions, next_states):
    """A user's objective: to the left."""
    return -next_states[..., 0]


def test_a_users_objective_by_import_path_and_the_environments_returns(tmp_path):
    environment = get_environment("mountaincar")
    page = tmp_path / "plan.yaml"
    page.write_text(
        yaml.safe_dump({"horizon": 12, "reward": "tests.evaluation.test_control.leftwards", "peak_coordinate": None})
    )
    settings = PlanningSettings.load(page)
    assert settings.reward is leftwards
    agent = covariates_of(environment, 1)
    episodes = play(environment, true_mpc(environment, agent, settings), agent, 12, seed=0)
    assert (episodes.actions[0, :8] == 0).all()
    assert episodes.returns.tolist() == [-12.0]


def test_predictions_are_clamped_to_the_range_of_the_data_where_asked():
    environment, simulators = get_environment("cartpole"), untrained("cartpole")
    simulators.simulator.state_range.copy_(torch.tensor([[-0.01], [0.01]]).expand(2, 4))
    settings = PlanningSettings(RandomShooting(plans=10), horizon=5, clamp_margin=0.5)
    policy, clamped = simulator_mpc(environment, simulators, [0], 1, settings)
    policy(torch.full((1, 4), 1e-3, dtype=torch.float64), torch.Generator().manual_seed(0))
    # Plans that begin alike are predicted once.
    assert clamped.predicted <= 2 * 10 * 5 * 4
    assert 0 < clamped.clamped < clamped.predicted


def test_settings_that_make_no_sense(tmp_path):
    with pytest.raises(ConfigurationError, match="choose from position, velocity"):
        PlanningSettings(peak_coordinate="height").objective(get_environment("mountaincar"))
    with pytest.raises(ConfigurationError, match="no such file"):
        PlanningSettings.load(tmp_path / "none.yaml")
    page = tmp_path / "bad.yaml"
    for text in ("horizons: 3", "planner: {class_path: persim_lightning.planning.cem.CEM, init_args: {plans: 0}}"):
        page.write_text(text)
        with pytest.raises(ConfigurationError, match=r"bad\.yaml"):
            PlanningSettings.load(page)


@pytest.mark.parametrize("name", list(ENVIRONMENTS))
def test_every_planning_yaml_loads(name):
    settings = PlanningSettings.load(ROOT / f"conf/planning/{name}.yaml")
    settings.objective(get_environment(name))


@pytest.mark.parametrize("name", ["mountaincar", "cartpole"])
@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_video_has_a_frame_for_every_state_and_a_picture_shows_episodes(tmp_path, name, suffix):
    iio = pytest.importorskip("imageio.v3")
    environment = get_environment(name)
    path = tmp_path / f"episode{suffix}"
    check_video(environment, path)
    covariates = covariates_of(environment, 2)
    right = lambda states, _: torch.ones(len(states), dtype=torch.long)  # noqa: E731
    episodes = play(environment, right, covariates, 12, seed=0)
    film_episode(environment, environment.test_agents[0], episodes, 0, path)
    frames = iio.imread(path, plugin="pyav" if suffix == ".mp4" else "pillow")
    states = int(episodes.lengths[0]) + 1
    # A GIF shows frames that do not differ as one that lasts.
    assert len(frames) == states if suffix == ".mp4" else 3 < len(frames) <= states
    assert np.abs(frames[0].astype(float) - frames[-1].astype(float)).max() > 50
    picture = draw_episodes(environment, episodes, [0, 1], ["a", "b"], tmp_path / "picture.png")
    assert picture.stat().st_size > 10_000


def test_video_of_unknown_format(tmp_path):
    with pytest.raises(ConfigurationError, match=r"\.gif or \.mp4"):
        check_video(get_environment("cartpole"), tmp_path / "episode.avi")


@pytest.mark.parametrize("name", list(ENVIRONMENTS))
def test_episodes_begin_alike_however_many_are_played(name):
    environment = get_environment(name)
    agents = covariates_of(environment, 3)
    first = {
        count: play_agents(environment, RandomPolicy(environment), agents, count, seed=0, max_steps=1)
        .episodes.states[:, 0]
        .view(3, count, -1)
        for count in (1, 2, 5)
    }
    assert torch.equal(first[1], first[5][:, :1])
    assert torch.equal(first[2], first[5][:, :2])
    assert len(first[5].flatten(0, 1).unique(dim=0)) == 15


def test_a_policy_s_rows_are_the_agents_episodes_agent_by_agent():
    environment = get_environment("mountaincar")
    agents = covariates_of(environment, 3)

    def push(states, generator):
        return torch.tensor([0, 0, 1, 1, 2, 2])

    scores = play_agents(environment, push, agents, 2, seed=0, max_steps=1)
    before, after = scores.episodes.states[:, 0], scores.episodes.states[:, 1]
    expected = dynamics(before, push(None, None), agents.repeat_interleave(2, dim=0))
    torch.testing.assert_close(after, expected)
    assert scores.episodes.actions[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert scores.returns.shape == (3, 2)
