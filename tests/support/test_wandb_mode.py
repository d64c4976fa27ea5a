"""The mode of Weights & Biases: offline without a key, and without a network."""

import socket
import time

import pytest

from persim_lightning.support import wandb


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


def test_without_a_key_runs_are_offline():
    assert wandb.wandb_mode("auto") == "offline"


def test_a_key_without_a_network_is_offline_at_once(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    # Nothing listens there.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    start = time.monotonic()
    assert wandb.wandb_mode("auto") == "offline"
    assert wandb.wandb_mode("online") == "offline"
    assert time.monotonic() - start < 15
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["note: Weights & Biases cannot be reached, so the run is logged offline"] * 2


def test_a_server_that_answers_is_used(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        assert wandb.wandb_mode("auto") == "online"
        assert wandb.wandb_mode("disabled") == "disabled"
