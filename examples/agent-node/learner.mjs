// What an agent learns in a round, in two forms: Algorithm 1 (preset `paper`) and the full history (`practical`).
// The formulas stand in docs/reference/agent-from-scratch.md, in the same order. A basis B is d × r, row by row.

import { toMatrix } from './session.mjs';

/** The learner of a run's method. Throws where this program does not implement it. */
export function makeLearner(specification, environment) {
  const { method } = specification;
  if (Number(method.warm_up_rounds) > 0) throw new Error('this agent knows no warm-up; run with warm_up_rounds = 0');
  switch (method.corrections) {
    case 'CORRECTION_SCHEDULE_END_OF_ROUND':
      return new EndOfRound(specification, environment);
    default:
      throw new Error(`this agent does not know ${method.corrections}; run with --preset paper`);
  }
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
