"use strict";

/** The what-if panel: reads the controls, simulates with what_if.js, and draws the result. */
(() => {
  const packed = JSON.parse(document.getElementById("what-if-data").textContent);
  const prepared = prepare(packed);
  const { data } = prepared;
  const element = (id) => document.getElementById(id);
  const option = (select, value, text) => {
    const item = document.createElement("option");
    item.value = value;
    item.textContent = text;
    select.append(item);
  };
  data.agents.forEach((label, index) => option(element("wi-agent"), index, label));

  /** Creates a control for every action column in `group`: the first or the second action of a pattern. */
  const controls = (group) => {
    let coordinate = 0;
    return data.columns.map((column) => {
      const label = document.createElement("label");
      label.append(column.name);
      let input;
      if (column.categories !== null) {
        input = document.createElement("select");
        column.categories.forEach((name, code) => option(input, code, name));
        if (group.id === "wi-second") input.value = String(column.categories.length - 1);
        coordinate += data.discrete ? 1 : column.categories.length;
      } else {
        input = document.createElement("input");
        input.type = "number";
        input.step = "any";
        input.value = Number((group.id === "wi-second" ? data.high : data.low)[coordinate].toPrecision(4));
        coordinate += 1;
      }
      input.setAttribute("aria-label", `${group.id === "wi-second" ? "then " : ""}${column.name}`);
      label.append(input);
      group.append(label);
      return input;
    });
  };
  const inputs = { first: controls(element("wi-first")), second: controls(element("wi-second")) };
  const values = (which) => inputs[which].map((input) => Number(input.value));

  const clamp = (input) => {
    const value = Math.round(Number(input.value));
    input.value = Math.min(Math.max(Number.isFinite(value) ? value : Number(input.min), Number(input.min)), Number(input.max));
    return Number(input.value);
  };

  const update = () => {
    const agent = Number(element("wi-agent").value), record = data.recorded[agent];
    element("wi-row").max = record.action.shape[0] - 1;
    element("wi-steps").max = data.maxSteps;
    const kind = element("wi-pattern").value;
    element("wi-first").hidden = kind !== "hold" && kind !== "switch";
    element("wi-second").hidden = element("wi-every-label").hidden = kind !== "switch";
    element("wi-seed-label").hidden = kind !== "random";
    const choice = {
      agent, row: clamp(element("wi-row")), steps: clamp(element("wi-steps")),
      pattern: {
        kind, first: values("first"), second: values("second"),
        every: clamp(element("wi-every")), seed: clamp(element("wi-seed")),
      },
    };
    element("wi-row-text").textContent = `time ${Number(record.time[choice.row].toPrecision(10))}`;
    const shown = answer(prepared, choice);
    window.whatIf = { choice, ...shown };
    draw(shown);
  };

  const draw = (shown) => {
    const traces = [], rows = data.state.length;
    const layout = {
      grid: { rows: Math.ceil(rows / 2), columns: rows > 1 ? 2 : 1, pattern: "independent" },
      height: 110 + 240 * Math.ceil(rows / 2), margin: { t: 40, r: 20, b: 45, l: 60 },
      legend: { orientation: "h", yref: "container", y: 1, yanchor: "top", x: 0 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "#b9c2cd", activecolor: "#1f63b5" },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    };
    data.state.forEach((name, d) => {
      const axis = d === 0 ? "" : d + 1;
      layout[`xaxis${axis}`] = { title: { text: "steps ahead" }, gridcolor: "#e3e6ea" };
      layout[`yaxis${axis}`] = { title: { text: name }, gridcolor: "#e3e6ea" };
      const place = { xaxis: `x${axis}`, yaxis: `y${axis}`, showlegend: d === 0 };
      const steps = shown.elapsed;
      if (shown.halfWidth !== null) {
        const low = shown.mean.map((state, h) => state[d] - shown.halfWidth[h][d]);
        const high = shown.mean.map((state, h) => state[d] + shown.halfWidth[h][d]);
        traces.push({ ...place, x: [...steps, ...steps.slice().reverse()], y: [...high, ...low.reverse()], fill: "toself",
          fillcolor: "rgba(31,99,181,0.18)", line: { width: 0 }, hoverinfo: "skip",
          name: `${Math.round(100 * data.level)} % interval` });
      } else
        shown.trajectories.forEach((states, m) => traces.push({ ...place, x: steps, y: states.map((state) => state[d]),
          line: { width: 1, color: "rgba(31,99,181,0.35)" }, name: "members", showlegend: d === 0 && m === 0,
          hoverinfo: "skip", mode: "lines" }));
      traces.push({ ...place, x: steps, y: shown.mean.map((state) => state[d]), mode: "lines", name: "predicted",
        line: { color: "#1f63b5", width: 2 } });
      const known = shown.recorded.map((_, h) => h).filter((h) => Number.isFinite(shown.recorded[h][d]));
      traces.push({ ...place, x: known.map((h) => shown.recordedElapsed[h]), y: known.map((h) => shown.recorded[h][d]),
        mode: known.length < shown.recorded.length ? "lines+markers" : "lines", name: "recorded, with the recorded actions", line: { color: "#444", width: 1.5, dash: "dot" } });
    });
    Plotly.react("wi-plot", traces, layout, { responsive: true, displaylogo: false });
  };

  for (const input of document.querySelectorAll("#what-if select, #what-if input")) input.addEventListener("change", update);
  element("wi-row").addEventListener("input", update);
  update();
})();
