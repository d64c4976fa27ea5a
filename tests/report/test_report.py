"""`persim report`: a page that renders without network and shows the run's results."""

import json
import sys

import numpy as np
import pyarrow as pa
import pytest
from selenium.webdriver.support.ui import Select

from persim_lightning import PersonalizedSimulator
from persim_lightning.cli import report
from persim_lightning.data.tables.sources import write_table
from persim_lightning.errors import ConfigurationError, PersimError
from persim_lightning.runs.fit import fit
from tests.conftest import ROOT
from tests.rooms import rooms

NASTY = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Rooms fitted by the command, one of them with a name that is code."""
    folder = tmp_path_factory.mktemp("report")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["fit.py"])
    for name, seed in (("rooms", 0), ("test", 1)):
        table = rooms(12, 40, dial=True, seed=seed)
        table["room"] = [NASTY if room == 0 else f"room {room}" for room in table["room"]]
        write_table(pa.table(table), folder / f"{name}.csv")
    write_table(
        pa.table({"room": sorted({NASTY, *(f"room {room}" for room in range(1, 12))}), "rate": np.arange(12.0)}),
        folder / "agents.csv",
    )
    columns = ["agent=room", "time=hour", "state=[temperature]", "action=[heater, mode]"]
    fit(
        [
            *("--config", str(ROOT / "conf/table.yaml"), "--run_dir", "run", "--wandb", "disabled"),
            *("--data.path", "rooms.csv", "--data.test_path", "test.csv", "--data.agents_path", "agents.csv"),
            *(f"--data.columns.{column}" for column in columns),
            *("--trainer.max_epochs", "60", "--model.hidden_width", "16", "--model.members", "2", "--model.rank", "2"),
        ]
    )
    yield folder / "run"
    monkeypatch.undo()


def test_the_page_renders_alone_and_answers(run, opened, capsys):
    report.main(["--run", str(run)])
    assert f"wrote {run / 'report.html'}" in capsys.readouterr().out
    browser = opened(run / "report.html")
    run_js = browser.execute_script
    assert run_js("return performance.getEntriesByType('resource').length") == 0
    plots = run_js("return [...document.querySelectorAll('.js-plotly-plot')].map((plot) => plot.id)")
    assert plots == [
        *("wi-plot", "plot-map", "plot-rollouts", "plot-horizon", "plot-rank", "plot-training", "plot-data")
    ]
    for plot in plots:
        assert (
            run_js(f"return document.querySelectorAll('#{plot} .scatterlayer .trace, #{plot} .bars .point').length") > 0
        )
    assert run_js("return document.querySelectorAll('section').length") == 9
    assert "affine model of each agent" in run_js("return document.body.textContent")
    assert run_js("return document.images.length") == 0
    assert NASTY in browser.find_element("css selector", "#wi-agent").text

    simulator = PersonalizedSimulator.load(run)
    Select(browser.find_element("id", "wi-agent")).select_by_visible_text("room 7")
    Select(browser.find_element("id", "wi-pattern")).select_by_value("hold")
    heater = browser.find_element("css selector", "#wi-first input")
    assert browser.find_element("id", "wi-first").is_displayed()
    assert not browser.find_element("id", "wi-second").is_displayed()
    run_js("arguments[0].value = '0.25'; arguments[0].dispatchEvent(new Event('change'))", heater)
    shown = run_js("return window.whatIf")
    start = simulator.trajectories.state[simulator.trajectories.offsets[simulator.agents.index("room 7")]].numpy()
    steps = len(shown["mean"]) - 1
    expected = simulator.rollout("room 7", start, {"heater": [0.25] * steps, "mode": ["eco"] * steps}, level=0.9)
    np.testing.assert_allclose(shown["mean"], expected.mean, rtol=1e-4)
    np.testing.assert_allclose(shown["halfWidth"], expected.half_width, rtol=2e-2, atol=1e-4)
    drawn = run_js("return document.getElementById('wi-plot').data.find((trace) => trace.name === 'predicted').y")
    np.testing.assert_allclose(drawn, [row[0] for row in shown["mean"]])


def test_figures_say_what_the_files_say(run, opened):
    report.main(["--run", str(run), "--out", str(run / "again.html"), "--level", "0.8", "--agents", "room 3,room 4"])
    browser = opened(run / "again.html")
    figures = json.loads(browser.execute_script("return document.getElementById('figures').textContent"))
    names = [trace["name"] for trace in figures["training"]["data"]]
    assert names == ["train/loss", "val/loss"]
    curve = figures["horizon"]["data"]
    assert [trace["name"] for trace in curve] == ["all agents"] * 2
    offered = browser.execute_script(
        "return [...document.querySelectorAll('#wi-agent option')].map((o) => o.textContent)"
    )
    assert offered == ["room 3", "room 4"]
    assert "80% of the time" in browser.find_element("id", "rollouts").text
    assert "rate" in figures["map"]["data"][0]["name"]
    assert "12 trajectories of 12 agents" in browser.find_element("id", "data").text
    assert "fit.py" in browser.find_element("id", "about").text


def test_a_saved_simulator_has_a_page_too(switched, tmp_path, opened):
    """Neither metrics nor provenance lie there: the sections say so."""
    switched.save(tmp_path / "rooms")
    (tmp_path / "rooms/calibration.json").unlink()
    report.main(["--run", str(tmp_path / "rooms")])
    browser = opened(tmp_path / "rooms/report.html")
    assert "No metrics" in browser.find_element("id", "training").text
    assert "Not examined yet" in browser.find_element("id", "rank").text
    assert "no calibrated intervals" in browser.find_element("id", "what-if").text
    assert browser.execute_script("return window.whatIf.halfWidth") is None
    assert not browser.find_elements("id", "about")


def test_bad_requests_are_named(switched, tmp_path):
    with pytest.raises(ConfigurationError, match="no such folder"):
        report.main(["--run", str(tmp_path / "nowhere")])
    with pytest.raises(PersimError, match="no such file"):
        report.main(["--run", str(tmp_path)])
    switched.save(tmp_path / "rooms")
    with pytest.raises(ConfigurationError, match=r"level 0\.3"):
        report.main(["--run", str(tmp_path / "rooms"), "--level", "0.3"])
    with pytest.raises(ConfigurationError, match="agent '99'"):
        report.main(["--run", str(tmp_path / "rooms"), "--agents", "99"])
    assert not (tmp_path / "rooms/report.html").exists()


def test_single_rows_and_columns_that_never_change_are_no_obstacle(tmp_path, opened):
    """A gap after the first row leaves a row by itself; large constants have no histogram in float32."""
    table = rooms(6, 20)
    table["hour"] = [hour - 9 if hour == 0 else hour for hour in table["hour"]]
    table["site"] = [1.7e8] * len(table["hour"])
    roles = {"agent": "room", "time": "hour", "state": ["temperature", "site"], "action": ["heater"], "gaps": "split"}
    PersonalizedSimulator.fit(table, **roles, rank=2, members=2, epochs=3, progress=False).save(tmp_path / "run")
    report.main(["--run", str(tmp_path / "run")])
    shown = opened(tmp_path / "run/report.html").execute_script("return window.whatIf")
    assert len(shown["mean"]) == 19
    assert shown["recorded"][0][0] == pytest.approx(table["temperature"][1], rel=1e-5)
