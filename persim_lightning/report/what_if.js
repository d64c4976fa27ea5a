"use strict";

/** Simulates agents in the page as persim_lightning.models.simulator.Simulator does, and draws what comes of it. */

/** Arrays as {shape, data} from base64 of little-endian float32. */
function unpack(packed) {
  if (packed === null) return null;
  const bytes = Uint8Array.from(atob(packed.base64), (character) => character.charCodeAt(0));
  return { shape: packed.shape, data: new Float32Array(bytes.buffer) };
}

/** Error function, Abramowitz and Stegun (1964), formula 7.1.26: absolute error below 1.5e-7. */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

function gelu(x) {
  return 0.5 * x * (1 + erf(x * Math.SQRT1_2));
}

/** One member's affine map of a vector: weight (M, in, out), bias (M, 1, out). */
function affine(layer, member, input) {
  const [, inputs, outputs] = layer.weight.shape;
  const weight = layer.weight.data, first = member * inputs * outputs;
  const output = Float64Array.from(layer.bias.data.subarray(member * outputs, (member + 1) * outputs));
  for (let i = 0; i < inputs; i++) {
    const value = input[i], row = first + i * outputs;
    for (let o = 0; o < outputs; o++) output[o] += value * weight[row + o];
  }
  return output;
}

function network(net, member, input) {
  const sum = affine(net.skip, member, input);
  if (net.output === null) return sum;
  let features = input;
  for (const layer of net.hidden) features = affine(layer, member, features).map(gelu);
  const output = affine(net.output, member, features);
  return sum.map((value, index) => value + output[index]);
}

function unpackModel(model) {
  const layer = (packed) => packed && { weight: unpack(packed.weight), bias: unpack(packed.bias) };
  const net = (packed) =>
    packed && { hidden: packed.hidden.map(layer), output: layer(packed.output), skip: layer(packed.skip) };
  const result = { members: model.members, angles: model.angles, walls: null };
  for (const name of ["stateMean", "stateStd", "deltaRms", "factors", "core", "actionMean", "actionStd", "actionFactors"])
    result[name] = name in model ? unpack(model[name]) : null;
  result.stateNet = net(model.stateNet);
  result.actionNet = "actionNet" in model ? net(model.actionNet) : null;
  if (model.walls !== null)
    result.walls = Object.fromEntries(Object.entries(model.walls).map(([name, value]) => [name, unpack(value).data]));
  return result;
}

/** Vector w(a) of the action rank; `action` is a code, or an array of coordinates. */
function actionFactor(model, member, action) {
  if (model.actionNet === null) {
    const [, count, rank] = model.actionFactors.shape;
    return model.actionFactors.data.subarray((member * count + action) * rank, (member * count + action + 1) * rank);
  }
  const scaled = action.map((value, index) => (value - model.actionMean.data[index]) / model.actionStd.data[index]);
  return network(model.actionNet, member, scaled);
}

/** What the state's vectors are multiplied by: u·w (CP), or the core contracted with both (Tucker). */
function coefficients(model, member, agentFactor, action) {
  const other = actionFactor(model, member, action);
  if (model.core === null) return Float64Array.from(agentFactor, (value, index) => value * other[index]);
  const [, ranks, stateRanks, actionRanks] = model.core.shape;
  const result = new Float64Array(stateRanks);
  for (let i = 0; i < ranks; i++)
    for (let j = 0; j < stateRanks; j++)
      for (let k = 0; k < actionRanks; k++)
        result[j] += model.core.data[((member * ranks + i) * stateRanks + j) * actionRanks + k] * agentFactor[i] * other[k];
  return result;
}

/** States behind the walls that the data have touched; contacts of one wall come before another's own position. */
function stop(walls, state) {
  if (walls === null) return state;
  const size = state.length;
  const stopped = state.map((value, d) => Math.min(Math.max(value, walls.low[d]), walls.high[d]));
  for (const [hit, contact] of [
    [(d) => state[d] < walls.low[d], walls.lowContact],
    [(d) => state[d] > walls.high[d], walls.highContact],
  ])
    for (let target = 0; target < size; target++)
      for (let d = 0; d < size; d++)
        if (d !== target && hit(d) && !Number.isNaN(contact[d * size + target])) {
          stopped[target] = contact[d * size + target];
          break;
        }
  return stopped;
}

function nextState(model, member, agentFactor, state, action) {
  const inputs = Array.from(state, (value, d) => (value - model.stateMean.data[d]) / model.stateStd.data[d]);
  for (const d of model.angles) inputs.push(Math.sin(state[d]));
  for (const d of model.angles) inputs.push(Math.cos(state[d]));
  const vectors = network(model.stateNet, member, inputs);
  const weights = coefficients(model, member, agentFactor, action);
  const rank = weights.length;
  const following = state.map((value, d) => {
    let sum = 0;
    for (let l = 0; l < rank; l++) sum += vectors[d * rank + l] * weights[l];
    return value + sum * model.deltaRms.data[d];
  });
  return stop(model.walls, following);
}

/** Trajectory of one member under one factor: H + 1 states. */
function rollout(model, member, agentFactor, start, actions) {
  const states = [Array.from(start)];
  for (const action of actions) states.push(nextState(model, member, agentFactor, states[states.length - 1], action));
  return states;
}

/** Members' trajectories, their mean, and half the width of intervals where they are calibrated. */
function simulate(data, model, agent, start, actions) {
  const [members, agents, rank] = model.factors.shape;
  const size = start.length;
  const factor = (m) => model.factors.data.subarray((m * agents + agent) * rank, (m * agents + agent + 1) * rank);
  const trajectories = Array.from({ length: members }, (_, m) => rollout(model, m, factor(m), start, actions));
  const mean = trajectories[0].map((state, h) =>
    state.map((_, d) => trajectories.reduce((sum, own) => sum + own[h][d], 0) / members));
  if (!data.draws) return { trajectories, mean, halfWidth: null };
  const count = data.draws.shape[1];
  const drawn = [];
  for (let m = 0; m < members; m++)
    for (let k = 0; k < count; k++) {
      const first = ((m * count + k) * agents + agent) * rank;
      drawn.push(rollout(model, m, data.draws.data.subarray(first, first + rank), start, actions));
    }
  const halfWidth = mean.map((state, h) => state.map((_, d) => {
    if (h === 0) return 0;
    const centre = drawn.reduce((sum, own) => sum + own[h][d], 0) / drawn.length;
    const variance = drawn.reduce((sum, own) => sum + (own[h][d] - centre) ** 2, 0) / drawn.length;
    const spread = Math.max(Math.sqrt(variance), data.floor * model.deltaRms.data[d]);
    return spread * data.widths.data[(h - 1) * size + d];
  }));
  return { trajectories, mean, halfWidth };
}

/** Numbers in [0, 1) that depend on a seed alone. */
function chance(seed) {
  let state = (seed * 2654435761 + 1) >>> 0;
  return () => {
    state ^= state << 13; state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5; state >>>= 0;
    return state / 4294967296;
  };
}

/** The actions of a pattern, as the model takes them, from a recorded row on. */
function patternActions(data, pattern, record, row, steps) {
  const [rows, width] = [record.action.shape[0], record.action.shape[1] ?? 1];
  const recorded = (h) => {
    const own = record.action.data.subarray((row + h) * width, (row + h + 1) * width);
    return data.discrete ? own[0] : Array.from(own);
  };
  const random = chance(pattern.seed);
  const encode = (values) => {
    if (data.discrete) return values[0];
    return data.columns.flatMap((column, index) =>
      column.categories === null ? [values[index]] : column.categories.map((_, code) => Number(code === values[index])));
  };
  const drawn = () => {
    let coordinate = 0;
    return data.columns.map((column) => {
      if (column.categories !== null) {
        coordinate += column.categories.length;
        return Math.floor(random() * column.categories.length);
      }
      const [low, high] = [data.low[coordinate], data.high[coordinate]];
      coordinate += 1;
      return low + random() * (high - low);
    });
  };
  const available = pattern.kind === "recorded" ? Math.min(steps, rows - row) : steps;
  return Array.from({ length: available }, (_, h) => {
    if (pattern.kind === "recorded") return recorded(h);
    if (pattern.kind === "random") return encode(drawn());
    if (pattern.kind === "switch" && Math.floor(h / pattern.every) % 2 === 1) return encode(pattern.second);
    return encode(pattern.first);
  });
}

/** Read the page's data once; what stays packed in JSON is megabytes. */
function prepare(packed) {
  const data = { ...packed };
  for (const name of ["draws", "widths"]) if (data[name]) data[name] = unpack(data[name]);
  data.recorded = packed.recorded.map((own) => ({
    time: own.time, state: unpack(own.state), action: unpack(own.action),
  }));
  return { data, model: unpackModel(packed.model) };
}

/** Everything the panel shows for a choice of the reader. */
function answer(prepared, choice) {
  const { data, model } = prepared;
  const record = data.recorded[choice.agent], size = data.state.length;
  const start = Array.from(record.state.data.subarray(choice.row * size, (choice.row + 1) * size));
  const actions = patternActions(data, choice.pattern, record, choice.row, choice.steps);
  const result = simulate(data, model, choice.agent, start, actions);
  const after = [];
  for (let row = choice.row; row < Math.min(record.state.shape[0], choice.row + choice.steps + 1); row++)
    after.push(Array.from(record.state.data.subarray(row * size, (row + 1) * size)));
  return { ...result, actions, recorded: after };
}

if (typeof document !== "undefined") {
  const packed = JSON.parse(document.getElementById("what-if-data").textContent);
  const prepared = prepare(packed);
  const { data } = prepared;
  const element = (id) => document.getElementById(id);
  const option = (select, value, text) => {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    select.append(made);
  };
  data.agents.forEach((label, index) => option(element("wi-agent"), index, label));

  /** A control for a value of every action column, for the first and the second action of a pattern. */
  const controls = (place) => {
    let coordinate = 0;
    return data.columns.map((column) => {
      const label = document.createElement("label");
      label.append(column.name);
      let input;
      if (column.categories !== null) {
        input = document.createElement("select");
        column.categories.forEach((name, code) => option(input, code, name));
        if (place.id === "wi-second") input.value = String(column.categories.length - 1);
        coordinate += data.discrete ? 1 : column.categories.length;
      } else {
        input = document.createElement("input");
        input.type = "number";
        input.step = "any";
        input.value = Number((place.id === "wi-second" ? data.high : data.low)[coordinate].toPrecision(4));
        coordinate += 1;
      }
      input.setAttribute("aria-label", `${place.id === "wi-second" ? "then " : ""}${column.name}`);
      label.append(input);
      place.append(label);
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
      height: 90 + 240 * Math.ceil(rows / 2), margin: { t: 20, r: 20, b: 45, l: 60 },
      legend: { orientation: "h", y: 1.08 / Math.ceil(rows / 2) + (rows > 2 ? 0.5 : 0), yanchor: "bottom" },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    };
    data.state.forEach((name, d) => {
      const axis = d === 0 ? "" : d + 1;
      layout[`xaxis${axis}`] = { title: { text: "steps ahead" }, gridcolor: "#e3e6ea" };
      layout[`yaxis${axis}`] = { title: { text: name }, gridcolor: "#e3e6ea" };
      const place = { xaxis: `x${axis}`, yaxis: `y${axis}`, showlegend: d === 0 };
      const steps = shown.mean.map((_, h) => h);
      if (shown.halfWidth !== null) {
        const low = shown.mean.map((state, h) => state[d] - shown.halfWidth[h][d]);
        const high = shown.mean.map((state, h) => state[d] + shown.halfWidth[h][d]);
        traces.push({ ...place, x: [...steps, ...steps.slice().reverse()], y: [...high, ...low.reverse()], fill: "toself",
          fillcolor: "rgba(31,99,181,0.18)", line: { width: 0 }, hoverinfo: "skip",
          name: `${Math.round(100 * data.level)} % interval` });
      } else
        shown.trajectories.forEach((own, m) => traces.push({ ...place, x: steps, y: own.map((state) => state[d]),
          line: { width: 1, color: "rgba(31,99,181,0.35)" }, name: "members", showlegend: d === 0 && m === 0,
          hoverinfo: "skip", mode: "lines" }));
      traces.push({ ...place, x: steps, y: shown.mean.map((state) => state[d]), mode: "lines", name: "predicted",
        line: { color: "#1f63b5", width: 2 } });
      traces.push({ ...place, x: shown.recorded.map((_, h) => h), y: shown.recorded.map((state) => state[d]),
        mode: "lines", name: "recorded, under the recorded actions", line: { color: "#444", width: 1.5, dash: "dot" } });
    });
    Plotly.react("wi-plot", traces, layout, { responsive: true, displaylogo: false });
  };

  for (const input of document.querySelectorAll("#what-if select, #what-if input")) input.addEventListener("change", update);
  element("wi-row").addEventListener("input", update);
  update();
}
