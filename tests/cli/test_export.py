"""`persim export`."""

import minari
import numpy as np
import onnxruntime
import pytest

from persim_lightning.cli import export
from persim_lightning.errors import ConfigurationError


@pytest.fixture
def run(tmp_path, dialed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dialed.save(tmp_path / "run")
    return ["--run", "run"]


def test_a_simulator_and_trajectories_are_handed_on(run, dialed, tmp_path, capsys):
    export.main([*run, "--to", "onnx", "--agents", "3", "--out", "three.onnx"])
    assert "agent 3" in capsys.readouterr().out
    feed = {"state": np.full((3, 1, 1), 15.0, np.float32), "action": np.array([[0.5, 1, 0]], np.float32)}
    [after] = onnxruntime.InferenceSession("three.onnx").run(None, feed)
    expected = dialed.rollout(3, [15.0], {"heater": [0.5], "mode": ["eco"]}).members[:, 1]
    np.testing.assert_allclose(after[:, 0], expected, rtol=1e-5)

    export.main([*run, "--to", "minari", "--id", "rooms/real-v0", "--agents", "4-5,9", "--out", "real"])
    real = minari.MinariDataset(tmp_path / "real/data")
    own = dialed.trajectories.state.view(16, 50, 1).numpy()
    for episode, agent in zip(real.iterate_episodes(), (4, 5, 9), strict=True):
        np.testing.assert_array_equal(episode.observations, own[agent])

    simulated = [*run, "--to", "minari", "--id", "rooms/simulated-v0", "--synthetic", "2", "--max_steps", "7"]
    export.main([*simulated, "--out", "simulated"])
    made = minari.MinariDataset(tmp_path / "simulated/data")
    assert (made.total_episodes, made.total_steps) == (32, 224)
    assert "32 simulated trajectories of 16 agents (224 steps)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--to", "onnx"], "whose simulator"),
        (["--to", "onnx", "--agents", "1", "--synthetic", "3"], "are options of --to minari"),
        (["--to", "minari"], "needs --id"),
        (["--to", "minari", "--id", "a/b-v0", "--max_steps", "3"], "is an option of --synthetic"),
    ],
)
def test_options_that_do_not_fit_are_refused(run, args, message, capsys):
    with pytest.raises(SystemExit):
        export.main([*run, *args, "--out", "x.onnx"])
    assert message in capsys.readouterr().err


def test_an_onnx_file_is_of_one_agent(run):
    with pytest.raises(ConfigurationError, match="one agent's simulator"):
        export.main([*run, "--to", "onnx", "--agents", "1-2", "--out", "x.onnx"])
