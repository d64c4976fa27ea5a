"use strict";

/** Simulates agents in the page; must give the same states as persim_lightning.models.simulator.Simulator. */

/** Decodes base64 of little-endian float32 to {shape, data}. */
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

/** Applies one member's affine layer to a vector: weight (M, in, out), bias (M, 1, out). */
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
  const result = { members: model.members, angles: model.angles, integrator: model.integrator, walls: null };
  for (const name of ["stateMean", "stateStd", "deltaRms", "factors", "core", "actionMean", "actionStd", "actionFactors"])
    result[name] = name in model ? unpack(model[name]) : null;
  result.stateNet = net(model.stateNet);
  result.actionNet = "actionNet" in model ? net(model.actionNet) : null;
  if (model.walls !== null)
    result.walls = Object.fromEntries(Object.entries(model.walls).map(([name, value]) => [name, unpack(value).data]));
  return result;
}

/** Action factor w(a); `action` is a code, or an array of coordinates. */
function actionFactor(model, member, action) {
  if (model.actionNet === null) {
    const [, count, rank] = model.actionFactors.shape;
    return model.actionFactors.data.subarray((member * count + action) * rank, (member * count + action + 1) * rank);
  }
  const scaled = action.map((value, index) => (value - model.actionMean.data[index]) / model.actionStd.data[index]);
  return network(model.actionNet, member, scaled);
}

/** Coefficients of the state factors: u·w (CP), or the core contracted with u and w (Tucker). */
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

/** Stops a state at walls. The contact state of a wall that is hit has priority over the walls of other coordinates. */
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

/** Changes of a state per base step. */
function rate(model, member, weights, state) {
  const inputs = Array.from(state, (value, d) => (value - model.stateMean.data[d]) / model.stateStd.data[d]);
  for (const d of model.angles) inputs.push(Math.sin(state[d]));
  for (const d of model.angles) inputs.push(Math.cos(state[d]));
  const vectors = network(model.stateNet, member, inputs);
  const rank = weights.length;
  return state.map((_, d) => {
    let sum = 0;
    for (let l = 0; l < rank; l++) sum += vectors[d * rank + l] * weights[l];
    return sum * model.deltaRms.data[d];
  });
}

/** State after at most one base step: by the map of an evenly spaced table, or by a step of Runge-Kutta. */
function substep(model, member, weights, state, span) {
  const change = (from) => rate(model, member, weights, from);
  const moved = (by, share) => state.map((value, d) => value + share * span * by[d]);
  const first = change(state);
  if (model.integrator === "euler") return stop(model.walls, moved(first, 1));
  const second = change(moved(first, 0.5));
  const third = change(moved(second, 0.5));
  const fourth = change(moved(third, 1));
  return stop(model.walls, moved(first.map((value, d) => (value + 2 * (second[d] + third[d]) + fourth[d]) / 6), 1));
}

/** State after some base steps under one action. */
function nextState(model, member, agentFactor, state, action, duration) {
  const weights = coefficients(model, member, agentFactor, action);
  for (let left = duration; left > 1e-5; left -= 1) state = substep(model, member, weights, state, Math.min(left, 1));
  return state;
}

/** Trajectory of one member with one agent factor: H + 1 states; every action acts for one base step by default. */
function rollout(model, member, agentFactor, start, actions, durations) {
  const states = [Array.from(start)];
  actions.forEach((action, h) =>
    states.push(nextState(model, member, agentFactor, states[h], action, durations ? durations[h] : 1)));
  return states;
}

/** Base steps since the start, before and after each of some durations. */
function passed(durations) {
  const elapsed = [0];
  for (const duration of durations) elapsed.push(elapsed[elapsed.length - 1] + duration);
  return elapsed;
}

/** Trajectories of all members, their mean, and the half widths of intervals (null if they are not calibrated). */
function simulate(data, model, agent, start, actions, durations) {
  const [members, agents, rank] = model.factors.shape;
  const size = start.length;
  const factor = (m) => model.factors.data.subarray((m * agents + agent) * rank, (m * agents + agent + 1) * rank);
  const trajectories = Array.from({ length: members }, (_, m) => rollout(model, m, factor(m), start, actions, durations));
  const mean = trajectories[0].map((state, h) =>
    state.map((_, d) => trajectories.reduce((sum, states) => sum + states[h][d], 0) / members));
  if (!data.draws) return { trajectories, mean, halfWidth: null };
  const count = data.draws.shape[1];
  const samples = [];
  for (let m = 0; m < members; m++)
    for (let k = 0; k < count; k++) {
      const first = ((m * count + k) * agents + agent) * rank;
      samples.push(rollout(model, m, data.draws.data.subarray(first, first + rank), start, actions, durations));
    }
  const elapsed = passed(durations);
  const last = data.widths.shape[0] - 1;
  const halfWidth = mean.map((state, h) => state.map((_, d) => {
    if (h === 0) return 0;
    // Intervals are calibrated by base step.
    const step = Math.min(Math.max(Math.ceil(elapsed[h] - 1e-4) - 1, 0), last);
    const center = samples.reduce((sum, states) => sum + states[h][d], 0) / samples.length;
    const variance = samples.reduce((sum, states) => sum + (states[h][d] - center) ** 2, 0) / samples.length;
    const spread = Math.max(Math.sqrt(variance), data.floor * model.deltaRms.data[d]);
    return spread * data.widths.data[step * size + d];
  }));
  return { trajectories, mean, halfWidth };
}

/** Random number generator (xorshift32): returns a function that draws uniform numbers in [0, 1). */
function randomGenerator(seed) {
  let state = (seed * 2654435761 + 1) >>> 0 || 1;
  const next = () => {
    state ^= state << 13; state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5; state >>>= 0;
    return state / 4294967296;
  };
  // Discard the first numbers: those of small seeds are small, too.
  for (let count = 0; count < 20; count++) next();
  return next;
}

/** Encoded actions of a pattern, starting at a recorded row. */
function patternActions(data, pattern, record, row, steps) {
  const [rows, width] = [record.action.shape[0], record.action.shape[1] ?? 1];
  const recorded = (h) => {
    const action = record.action.data.subarray((row + h) * width, (row + h + 1) * width);
    return data.discrete ? action[0] : Array.from(action);
  };
  const random = randomGenerator(pattern.seed);
  const encode = (values) => {
    if (data.discrete) return values[0];
    return data.columns.flatMap((column, index) =>
      column.categories === null ? [values[index]] : column.categories.map((_, code) => Number(code === values[index])));
  };
  const sample = () => {
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
    if (pattern.kind === "random") return encode(sample());
    if (pattern.kind === "switch" && Math.floor(h / pattern.every) % 2 === 1) return encode(pattern.second);
    return encode(pattern.first);
  });
}

/** Unpacks the page's data; call it only once, because the data are megabytes. */
function prepare(packed) {
  const data = { ...packed };
  for (const name of ["draws", "widths"]) if (data[name]) data[name] = unpack(data[name]);
  data.recorded = packed.recorded.map((record) => ({
    time: record.time, duration: record.duration, state: unpack(record.state), shown: unpack(record.shown),
    action: unpack(record.action),
  }));
  return { data, model: unpackModel(packed.model) };
}

/** Simulates the reader's choice; returns everything that the panel shows. */
function answer(prepared, choice) {
  const { data, model } = prepared;
  const record = data.recorded[choice.agent], size = data.state.length;
  const start = Array.from(record.state.data.subarray(choice.row * size, (choice.row + 1) * size));
  const actions = patternActions(data, choice.pattern, record, choice.row, choice.steps);
  // Recorded actions act from a recorded row to the next, others for one base step each.
  const durations = choice.pattern.kind === "recorded"
    ? record.duration.slice(choice.row, choice.row + actions.length) : actions.map(() => 1);
  const result = simulate(data, model, choice.agent, start, actions, durations);
  const elapsed = passed(durations), since = passed(record.duration.slice(choice.row));
  const after = [], recordedElapsed = [];
  for (let row = choice.row; row < record.state.shape[0]; row++) {
    if (since[row - choice.row] > elapsed[elapsed.length - 1] + 1e-4) break;
    after.push(Array.from(record.shown.data.subarray(row * size, (row + 1) * size)));
    recordedElapsed.push(since[row - choice.row]);
  }
  return { ...result, actions, elapsed, recorded: after, recordedElapsed };
}
