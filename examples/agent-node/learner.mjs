// What an agent learns in a round, in two forms: Algorithm 1 (preset `paper`) and the full history (`full-history`).
// The formulas stand in docs/reference/agent-from-scratch.md, in the same order. A basis B is d × r, row by row.

import { toMatrix } from './session.mjs';

/** The learner of a run's method. Throws where this program does not implement it. */
export function makeLearner(specification, environment) {
  const { method } = specification;
  if (Number(method.warm_up_rounds) > 0) throw new Error('this agent knows no warm-up; run with warm_up_rounds = 0');
  switch (method.head_update) {
    case 'HEAD_UPDATE_END_OF_ROUND':
      return new EndOfRound(specification, environment);
    case 'HEAD_UPDATE_FULL_HISTORY':
      if (method.trace_decay > 0 || method.forgetting > 0 || !method.reward_scaled) break;
      return new FullHistory(specification, environment);
  }
  throw new Error(`this agent knows no ${method.head_update} with these options; run with --preset full-history`);
}

const dot = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** B w, d numbers. */
const weightsOf = (basis, head, d) => {
  const r = head.length;
  return Float64Array.from({ length: d }, (_, row) => dot(head, basis.subarray(row * r, (row + 1) * r)));
};

/** Bᵀ φ, r numbers. */
const coordinatesOf = (basis, features, r) =>
  Float64Array.from({ length: r }, (_, column) => features.reduce((sum, f, row) => sum + f * basis[row * r + column], 0));

/** The factor (c / (c + t))^p of the agent's own steps after t environment steps. */
const decay = ({ decay_horizon: c, decay_power: p }, steps) => (c === 0 ? 1 : (c / (c + steps)) ** p);

const outer = (vector) => vector.flatMap((a) => vector.map((b) => a * b));

/** Averaged iterates: x̄_k = (1 − a) x̄_{k−1} + a x_k with a = (p + 1) / (k + p); p is 3, or 15 for the full history. */
class Average {
  constructor(length, power) {
    this.mean = new Float64Array(length);
    this.power = power;
    this.count = 0;
  }

  add(values) {
    this.count += 1;
    const share = (this.power + 1) / (this.count + this.power);
    this.mean = this.mean.map((mean, place) => (1 - share) * mean + share * values[place]);
  }
}

/** One L-step correction of the head at the end of each round: Algorithm 1 of arXiv:2603.02426. */
class EndOfRound {
  constructor(specification, environment) {
    this.method = specification.method;
    this.d = specification.feature_dim;
    this.environment = environment;
    this.head = new Float64Array(specification.rank); // w, 0 at first
    this.gain = 0; // η
    this.steps = 0;
    this.weights = new Average(this.d, 3);
    this.averageGain = new Average(1, 3);
  }

  /** Takes L steps and returns the upload's payload; head and gain on the right-hand sides are the old ones. */
  learn(_round, basis) {
    const { method, head, d } = this;
    const length = method.steps_per_round;
    const { features, rewards } = this.environment.advance(length);
    const [first, last] = [features[0], features[length]];
    const scale = decay(method, this.steps);
    const z = weightsOf(basis, head, d);
    const difference = last.map((value, place) => value - first[place]);
    const error = sum(rewards.map((reward) => reward - this.gain)) + dot(difference, z); // δ, eq. 6
    const coordinates = coordinatesOf(basis, first, head.length);
    let step = method.head_step * scale;
    if (method.implicit_head_step) step /= 1 + step * Math.max(0, dot(coordinates, coordinates));
    const left = first.map((value) => (error / length) * value); // eq. 8: G = (δ / L) φ(s_0) wᵀ, with the old w
    const after = head.map((value, place) => value + (step / length) * error * coordinates[place]); // eq. 7
    const norm = Math.sqrt(dot(after, after));
    this.head = norm <= method.head_radius ? after : after.map((value) => value * (method.head_radius / norm));
    this.gain += method.gain_step * scale * (sum(rewards) / length - this.gain);
    this.steps += length;
    this.weights.add(weightsOf(basis, this.head, d));
    this.averageGain.add([this.gain]);
    const payload = { factored: { left: toMatrix(left, d, 1), right: toMatrix(head, head.length, 1) } };
    if (method.preconditioned) {
      payload.head_second_moment = toMatrix(Float64Array.from(outer([...head])), head.length, head.length);
    }
    return payload;
  }

  /** What was learnt: averaged mean reward and value weights, and the newest head. */
  result() {
    return { gain: this.averageGain.mean[0], head: [...this.head], weights: [...this.weights.mean] };
  }
}

const PRIOR_STEPS = 10; // the weight of the ridge, in steps
const EXPLAINED_FLOOR = 0.1;
const ROW_FLOOR = 0.1;

/** Row sums are sent in rounds 0 to 5, 7, 9, 12, 15, 19 …: each the first at least a quarter later than the last. */
function areRowSumsSentIn(round) {
  let due = 0;
  while (due < round) due = Math.max(due + 1, Math.ceil(1.25 * due));
  return due === round;
}

/** Row sums as they are sent: m · 2^k, m = 3/π of their root mean square, k the rounded log₂ of the ratio, ≥ −8. */
function coarse(rowSums) {
  const scale = (3 / Math.PI) * Math.sqrt(sum(rowSums.map((value) => value * value)) / rowSums.length);
  if (scale === 0) return rowSums;
  return rowSums.map((value) => scale * 2 ** Math.round(Math.log2(Math.max(value / scale, 1 / 256))));
}

/** x of M x = b, by elimination with partial pivoting; M is n × n, row by row, and is written over. */
function solve(matrix, right) {
  const n = right.length;
  const m = Array.from({ length: n }, (_, row) => [...matrix.subarray(row * n, (row + 1) * n), right[row]]);
  for (let column = 0; column < n; column++) {
    let pivot = column;
    for (let row = column + 1; row < n; row++) {
      if (Math.abs(m[row][column]) > Math.abs(m[pivot][column])) pivot = row;
    }
    [m[column], m[pivot]] = [m[pivot], m[column]];
    for (let row = column + 1; row < n; row++) {
      const factor = m[row][column] / m[column][column];
      for (let place = column; place <= n; place++) m[row][place] -= factor * m[column][place];
    }
  }
  const x = new Float64Array(n);
  for (let row = n - 1; row >= 0; row--) {
    let rest = m[row][n];
    for (let place = row + 1; place < n; place++) rest -= m[row][place] * x[place];
    x[row] = rest / m[row][row];
  }
  return x;
}

/** The agent keeps the d × d least-squares system of all its transitions: preset `full-history`. */
class FullHistory {
  constructor(specification, environment) {
    this.method = specification.method;
    this.environment = environment;
    const d = (this.d = specification.feature_dim);
    this.head = new Float64Array(specification.rank);
    this.A = new Float64Array(d * d); // Σ φ (φ − φ')ᵀ
    this.b = new Float64Array(d); // Σ φ · reward, rewards less the reference
    this.e = new Float64Array(d); // Σ φ
    this.squares = 0; // Σ ‖φ‖²
    this.steps = 0;
    this.reference = 0; // the first reward
    this.rewardSum = 0; // of rewards less the reference
    this.mean = 0; // of the same, and the sum of their squared deviations from it
    this.deviations = 0;
    this.weights = new Average(d, 15);
    this.averageGain = new Average(1, 15);
  }

  learn(round, basis) {
    const { method, d } = this;
    const r = this.head.length;
    const { features, rewards } = this.environment.advance(method.steps_per_round);
    if (this.steps === 0) this.reference = rewards[0];
    this.include(features, rewards.map((reward) => reward - this.reference));
    const gain = this.rewardSum / this.steps; // less the reference
    const centred = this.b.map((value, place) => value - gain * this.e[place]);
    // σ and ρ: the agent's own units. All that leaves it is dimensionless, and so is the bound of the head.
    const sigma = this.deviations > 0 ? Math.sqrt(this.deviations / this.steps) : 1;
    const rho = this.squares > 0 ? Math.sqrt(this.squares / this.steps) : 1;
    this.head = this.solveIn(basis, centred, (method.head_radius * sigma) / rho);
    const z = weightsOf(basis, this.head, d);
    const rows = Array.from({ length: d }, (_, row) => this.A.subarray(row * d, (row + 1) * d));
    const residual = centred.map((value, row) => (value - dot(rows[row], z)) / this.steps);
    const rowSums = rows.map((row) => sum(row.map(Math.abs)) / this.steps);
    const share = this.explainedShare(residual, centred, rowSums);
    const root = Math.sqrt(share ** method.explained_power); // in both factors, so that neither tells it
    const left = residual.map((value) => (root * value) / sigma / rho);
    const right = this.head.map((value) => (root * value) / (sigma / rho));
    this.weights.add(z);
    this.averageGain.add([this.reference + gain]);
    const payload = { factored: { left: toMatrix(left, d, 1), right: toMatrix(right, r, 1) } };
    if (method.preconditioned) payload.head_second_moment = toMatrix(Float64Array.from(outer([...right])), r, r);
    if (method.row_scaled && areRowSumsSentIn(round)) {
      payload.pooled = toMatrix(coarse(rowSums.map((value) => value / rho / rho)), d, 1);
    }
    return payload;
  }

  /** Adds L transitions to the sums, and to the moments of the rewards (Chan, Golub and LeVeque). */
  include(features, rewards) {
    const { d } = this;
    rewards.forEach((reward, step) => {
      const [now, next] = [features[step], features[step + 1]];
      for (let row = 0; row < d; row++) {
        if (now[row] === 0) continue;
        for (let column = 0; column < d; column++) this.A[row * d + column] += now[row] * (now[column] - next[column]);
        this.b[row] += now[row] * reward;
        this.e[row] += now[row];
      }
      this.squares += dot(now, now);
      this.rewardSum += reward;
    });
    const [before, added] = [this.steps, rewards.length];
    const mean = sum(rewards) / added;
    const shift = mean - this.mean;
    this.steps = before + added;
    this.deviations += sum(rewards.map((reward) => (reward - mean) ** 2)) + (shift * shift * before * added) / this.steps;
    this.mean += (shift * added) / this.steps;
  }

  /** w of (BᵀAB + κ I) w = Bᵀ(b − η e), κ = 10 · (Σ‖φ‖² · r / d) / steps / r; cut to ‖w‖ ≤ radius. */
  solveIn(basis, centred, radius) {
    const { d } = this;
    const r = this.head.length;
    const column = (j) => Float64Array.from({ length: d }, (_, row) => basis[row * r + j]);
    const columns = Array.from({ length: r }, (_, j) => column(j));
    const images = columns.map((b) => Float64Array.from({ length: d }, (_, i) => dot(this.A.subarray(i * d, (i + 1) * d), b)));
    const system = new Float64Array(r * r);
    for (let i = 0; i < r; i++) for (let j = 0; j < r; j++) system[i * r + j] = dot(columns[i], images[j]);
    const ridge = (PRIOR_STEPS * ((this.squares * r) / d)) / this.steps / r;
    for (let i = 0; i < r; i++) system[i * r + i] += ridge;
    const solution = solve(system, columns.map((b) => dot(b, centred)));
    const norm = Math.sqrt(dot(solution, solution));
    return norm <= radius ? solution : solution.map((value) => value * (radius / norm));
  }

  /** How much of b − η e the weights explain, at least 0.1; in norms of the row scales. */
  explainedShare(residual, centred, rowSums) {
    const floor = (ROW_FLOOR * sum(rowSums)) / this.d;
    const norm = (values) => sum([...values].map((value, row) => (value * value) / (rowSums[row] + floor)));
    const whole = norm(centred.map((value) => value / this.steps));
    return whole > 0 ? Math.max(EXPLAINED_FLOOR, 1 - norm(residual) / whole) : EXPLAINED_FLOOR;
  }

  result() {
    return { gain: this.averageGain.mean[0], head: [...this.head], weights: [...this.weights.mean] };
  }
}
