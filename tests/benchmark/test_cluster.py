"""The benchmark on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os

import pytest

from persim_lightning.benchmark import cluster
from persim_lightning.cli import benchmark
from persim_lightning.errors import ConfigurationError, PersimError
from tests.benchmark.grids import METHODS, options, result_of, run_grid, write_grid

CELLS = [f"cartpole-random-seed{seed}/cells/{method}" for seed in (0, 1) for method in METHODS]


@pytest.fixture(scope="module")
def two_nodes():
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # At Ray's default niceness its processes would wait for minutes beside other tests.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray spells it so)
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_the_same_results_on_two_nodes(two_nodes, tmp_path):
    write_grid(tmp_path / "here", METHODS, seeds=[0, 1])
    run_grid(tmp_path / "here")
    write_grid(tmp_path / "there", METHODS, seeds=[0, 1])
    on_ray = ["--engine", "ray", "--address", two_nodes]
    benchmark.main(options(tmp_path / "there", *on_ray))
    nodes = set()
    for cell in CELLS:
        here, there = (result_of(tmp_path / name, cell) for name in ("here", "there"))
        assert {name: here[name] for name in ("settings", "tables", "agents", "predictions")} == {
            name: there[name] for name in ("settings", "tables", "agents", "predictions")
        }
        nodes.add(there["machine"]["node"])
    assert len(nodes) == 2
    with pytest.raises(ConfigurationError, match=r"--jobs 3: the cluster has room for 2 cell\(s\) of 1 CPU\(s\)"):
        benchmark.main(options(tmp_path / "there", *on_ray, "--seeds", "2", "--jobs", "3"))


@pytest.mark.slow
def test_a_worker_that_dies_takes_its_own_cell_only(two_nodes, tmp_path, capsys):
    write_grid(tmp_path, {"crash": ("Crash", {"name": "Crash"}), "bcq-a": METHODS["bcq-a"]})
    with pytest.raises(PersimError, match="1 cell failed"):
        benchmark.main(options(tmp_path, "--engine", "ray", "--address", two_nodes, "--jobs", "1"))
    assert "crash: failed: its process died" in capsys.readouterr().out
    assert len(result_of(tmp_path, "cartpole-random-seed0/cells/bcq-a")["agents"]) == 2


@pytest.mark.slow
def test_a_node_that_dies_loses_its_own_cell_only(two_nodes, tmp_path, capsys, monkeypatch):
    import ray

    get, lost = ray.get, []

    def get_or_lose(reference):
        if not lost:
            lost.append(reference)
            raise ray.exceptions.NodeDiedError("killed by a test")
        return get(reference)

    monkeypatch.setattr(ray, "get", get_or_lose)
    write_grid(tmp_path, METHODS)
    with pytest.raises(PersimError, match="1 cell failed"):
        benchmark.main(options(tmp_path, "--engine", "ray", "--address", two_nodes, "--jobs", "1"))
    assert "failed: its process died" in capsys.readouterr().out
    assert len(list(tmp_path.glob("**/result.json"))) == len(METHODS) - 1


def test_ray_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    write_grid(tmp_path)
    with pytest.raises(ConfigurationError, match=r"pip install 'persim-lightning\[cluster\]'"):
        benchmark.main(options(tmp_path, "--engine", "ray"))


def test_a_cluster_that_is_not_there(tmp_path):
    pytest.importorskip("ray")
    write_grid(tmp_path)
    with pytest.raises(ConfigurationError, match=r"--address 127\.0\.0\.1:1: no Ray cluster was reached"):
        benchmark.main(options(tmp_path, "--engine", "ray", "--address", "127.0.0.1:1"))
