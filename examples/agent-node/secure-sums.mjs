// One agent's part in secure sums: its key, the checks of an epoch, and the masked vector of a round.
// The protocol stands in docs/security/secure-sums.md, in the same order. Words are BigInts modulo 2^64.

import { createCipheriv, createHash, createHmac, createPublicKey, diffieHellman, generateKeyPairSync, hkdfSync } from 'node:crypto';

const CONTEXT = 'cospan secure sums 1: ';
const COLLUDING_SHARE = 0.25;
const SECURITY_BITS = 80;
const SUM_BITS = 62;

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
const number = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const text = (value) => Buffer.concat([number(Buffer.byteLength(value)), Buffer.from(value)]);
const encoded = ({ public_key: key, agent_ids: ids }) => Buffer.concat([key, number(ids.length), ...ids.map(text)]);

/** The id of the epoch that members make in a run. */
export const epochIdOf = (runId, members) =>
  sha256(`${CONTEXT}epoch`, text(runId), number(members.length), ...members.map(encoded));

/** How many neighbours a member has among n. */
function degreeOf(n) {
  const least = (SECURITY_BITS + 2 * Math.log2(n) - 1) / -Math.log2(COLLUDING_SHARE);
  return Math.min(n - 1, 2 * Math.ceil(least / 2));
}

/** The places of one member's neighbours: all others, or those next to it on the ring. */
export function neighboursOf(epochId, n, place) {
  const degree = degreeOf(n);
  const places = Array.from({ length: n }, (_, each) => each);
  if (degree >= n - 1) return places.filter((each) => each !== place);
  const drawn = places.map((each) => sha256(`${CONTEXT}order`, epochId, number(each)));
  const order = places.sort((a, b) => drawn[a].compare(drawn[b]));
  const at = order.indexOf(place);
  const steps = Array.from({ length: degree / 2 }, (_, step) => step + 1).flatMap((step) => [-step, step]);
  return steps.map((step) => order[(at + step + n) % n]);
}

const INTEGERS = new Set(
  ('steps_per_round warm_up_rounds feature_dim rank agents rounds seed max_staleness min_agents improve ' +
    'evaluation_rounds trial_rounds min_cohort').split(' '),
);
const ENUMERATIONS = { head_update: 'HEAD_UPDATE_', participation: 'PARTICIPATION_POLICY_', aggregation: 'AGGREGATION_POLICY_' };

/** The bytes of a field; a number as float64 where the field is no integer. */
function valueOf(name, value) {
  if (name in ENUMERATIONS) return Buffer.from(value.slice(ENUMERATIONS[name].length).toLowerCase().replaceAll('_', '-'));
  if (typeof value === 'string') return Buffer.from(value);
  if (typeof value === 'boolean' || INTEGERS.has(name)) return number(Number(value)); // a seed from 2^53 on is not exact
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return bytes;
}

/** SHA-256 of the fields that are not 0, empty or false, in the order of their names. */
export function specificationDigest({ method, ...run }) {
  const constants = Object.entries(method).map(([name, value]) => [`method.${name}`, value]);
  const fields = [...constants, ...Object.entries(run)].filter(([, value]) => value);
  fields.sort(([a], [b]) => (a < b ? -1 : 1));
  const parts = fields.flatMap(([name, value]) => [Buffer.from(name), valueOf(name.replace('method.', ''), value)]);
  return sha256(`${CONTEXT}announcement`, ...parts.flatMap((part) => [number(part.length), part]));
}

/** SHA-256 of what a round was opened with. This agent's methods have no head covariance. */
export const announcementDigest = (specification, round, basis) =>
  sha256(`${CONTEXT}announcement`, specification, number(round), Buffer.from(basis.buffer, basis.byteOffset, basis.byteLength));

/** x rounded to an integer, halves to the even one. */
function rounded(x) {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

const bitLength = (value) => (value > 0 ? Math.floor(Math.log2(value)) + 1 : 0);

/** b of each field, for the methods of learner.mjs: paper and full-history. */
function rangesOf({ method }) {
  const more = method.reward_scaled ? 0 : 8;
  return { gradient: 8 + more, moment: 16 + more, pooled: 6 + more };
}

/** The vector of an upload's numbers: gradient, triangle of the second moment, number of agents, pooled numbers. */
export function vectorOf(specification, { gradient, moment, pooled }) {
  const capacityBits = Math.max(6, bitLength(specification.agents - 1));
  const ranges = rangesOf(specification);
  const fields = [
    [gradient, ranges.gradient],
    [moment ?? [], ranges.moment],
    [pooled ?? [], ranges.pooled],
  ];
  const excess = Math.max(...fields.map(([values, bits]) => Math.max(0, ...values.map(Math.abs)) / 2 ** bits));
  if (!Number.isFinite(excess)) throw new Error('an upload has a number that is not finite');
  const share = excess <= 1 ? 1 : 1 / excess; // what is out of range scales all numbers
  const most = 2 ** (SUM_BITS - capacityBits);
  const [first, second, third] = fields.map(([values, bits]) =>
    [...values].map((value) => {
      const scaled = rounded((share < 1 ? value * share : value) * 2 ** (SUM_BITS - capacityBits - bits));
      return BigInt.asUintN(64, BigInt(Math.min(Math.max(scaled, -most), most)));
    }),
  );
  return [...first, ...second, 1n, ...third];
}

export class SecureSums {
  constructor(agent) {
    const { privateKey, publicKey } = generateKeyPairSync('x25519'); // in memory alone: a new process is a new member
    this.agent = agent;
    this.privateKey = privateKey;
    this.publicKey = Buffer.from(publicKey.export({ format: 'jwk' }).x, 'base64url');
    this.epochId = null; // the newest whose members were found in order
    this.pairs = []; // of its neighbours: {adds, nonceKey, streamKey}
    this.sent = new Map(); // round → {epochId, announcement, masked}: one vector a round, ever
    this.maskedUntil = 0; // below this round no other vector is masked
  }

  /** Takes the members of an epoch; throws where this process must not send in it. Without TLS no key is proven. */
  agree(runId, members, minCohort) {
    const own = members.findIndex(({ public_key: key }) => key.equals(this.publicKey));
    const names = members.flatMap(({ agent_ids: ids }) => ids);
    if (members.length < minCohort) throw new Error(`the epoch has ${members.length} members; ${minCohort} are needed`);
    if (own < 0 || members[own].agent_ids.join() !== this.agent) throw new Error('this agent is not among the members');
    if (new Set(names).size < names.length) throw new Error('an agent is named twice in the epoch');
    for (const [place, { public_key: key }] of members.entries()) {
      if (key.length !== 32 || (place > 0 && members[place - 1].public_key.compare(key) >= 0)) {
        throw new Error('the members are not in the order of their keys');
      }
    }
    const epochId = epochIdOf(runId, members);
    if (this.epochId?.equals(epochId)) return;
    this.pairs = neighboursOf(epochId, members.length, own).map((place) => this.pairWith(members[place].public_key, epochId));
    this.epochId = epochId;
  }

  pairWith(other, epochId) {
    const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x: other.toString('base64url') }, format: 'jwk' });
    const secret = diffieHellman({ privateKey: this.privateKey, publicKey }); // throws for a key of low order
    const adds = this.publicKey.compare(other) < 0;
    const [first, second] = adds ? [this.publicKey, other] : [other, this.publicKey];
    const info = Buffer.concat([Buffer.from(`${CONTEXT}pair`), epochId, first, second]);
    const keys = Buffer.from(hkdfSync('sha256', secret, '', info, 64));
    return { adds, nonceKey: keys.subarray(0, 32), streamKey: keys.subarray(32) };
  }

  /** The masked vector of a round; null where another one was masked for it, or one for a later round. */
  masked(specification, round, basis, numbers) {
    const announcement = announcementDigest(specificationDigest(specification), round, basis);
    const known = this.sent.get(round);
    if (known?.epochId.equals(this.epochId) && known.announcement.equals(announcement)) return known.vector;
    if (round < this.maskedUntil) return null;
    const words = vectorOf(specification, numbers());
    const message = Buffer.concat([number(round), announcement]);
    for (const { adds, nonceKey, streamKey } of this.pairs) {
      const nonce = createHmac('sha256', nonceKey).update(message).digest().subarray(0, 12);
      const cipher = createCipheriv('chacha20', streamKey, Buffer.concat([Buffer.alloc(4), nonce])); // from block 0
      const stream = cipher.update(Buffer.alloc(8 * words.length));
      for (let place = 0; place < words.length; place++) {
        const mask = stream.readBigUInt64LE(8 * place);
        words[place] = BigInt.asUintN(64, words[place] + (adds ? mask : -mask));
      }
    }
    const vector = { epoch_id: this.epochId, words: Buffer.concat(words.map(number)) };
    this.sent.set(round, { epochId: this.epochId, announcement, vector });
    this.maskedUntil = round + 1;
    return vector;
  }

  /** Forgets vectors of rounds that no coordinator can ask for again. */
  forget(durable) {
    for (const round of this.sent.keys()) if (round < durable) this.sent.delete(round);
  }
}
