import { createHash } from 'node:crypto';

/** The fingerprint of Cospan's own one-hot features, of which a ring's are: see agent-from-scratch.md. */
export function fingerprintOfOneHot(states, reference) {
  const parameter = Buffer.alloc(16);
  parameter.writeBigInt64LE(BigInt(states), 0);
  parameter.writeBigInt64LE(BigInt(reference), 8);
  const length = Buffer.alloc(8);
  length.writeBigInt64LE(BigInt(parameter.length));
  const digest = createHash('sha256').update('one-hot').update(length).update(parameter).digest('hex');
  return `one-hot-${digest.slice(0, 16)}`;
}

// An environment that is the same in every language: a walk on a ring of states, drawn from a 32-bit generator.
// From state s it moves to s + 1 or s - 1 (modulo the number of states); the reward is 1 in state 0, plus the
// state's own number / 16, minus 1/8 for a step backwards. All rewards are exact in binary, so that two programs
// can be compared bit for bit.
export class Ring {
  /**
   * @param {number} index of the site: it sets how often the walk moves forwards, and the first draw.
   * @param {number} states of the ring, 3 or more.
   */
  constructor(index, states) {
    this.states = states;
    this.forwards = (index % 5) + 3; // of 8 draws
    this.seed = (0x9e3779b9 ^ index) >>> 0;
    this.state = 0;
  }

  /** One step under the fixed policy; the reward. */
  step() {
    // Numerical Recipes' linear congruential generator, modulo 2^32.
    this.seed = (Math.imul(this.seed, 1664525) + 1013904223) >>> 0;
    const forwards = this.seed >>> 29 < this.forwards;
    const reward = (this.state === 0 ? 1 : 0) + this.state / 16 - (forwards ? 0 : 1 / 8);
    this.state = (this.state + (forwards ? 1 : this.states - 1)) % this.states;
    return reward;
  }

  /** φ(s): the indicator of every state but state 0, which keeps constants out of the span; d = states - 1. */
  features() {
    const row = new Float64Array(this.states - 1);
    if (this.state > 0) row[this.state - 1] = 1;
    return row;
  }

  /** L steps: φ(s_0) … φ(s_L) and r_0 … r_{L-1}. The chain is never reset between rounds. */
  advance(steps) {
    const features = [this.features()];
    const rewards = [];
    for (let step = 0; step < steps; step++) {
      rewards.push(this.step());
      features.push(this.features());
    }
    return { features, rewards };
  }
}
