// One agent's conversation with a coordinator: join, answer each basis with a gradient, reconnect, end.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import protobuf from 'protobufjs';
import { epochIdOf, SecureSums } from './secure-sums.mjs';

const FIRST_BACKOFF_SECONDS = 0.1;
const LONGEST_BACKOFF_SECONDS = 1.0;
const MOST_KEPT = 67; // rounds that may be announced and not yet durable (64), and a few that came late
const RETRY = new Set(['AGENT_ID_TAKEN', 'NO_FREE_SITE', 'TOO_MANY_STREAMS', 'RATE_LIMITED', 'DRAINING']);
const NO_ANSWER = new Set([grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED, grpc.status.CANCELLED]);

const PROTO = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'proto');

/** The service client's class, from the .proto files. */
export function loadService(protoFolder = PROTO) {
  const definition = protoLoader.loadSync('cospan/rpc/v1/coordinator_service.proto', {
    includeDirs: [protoFolder],
    keepCase: true,
    longs: Number, // rounds stay far below 2^53
    enums: String,
    defaults: true,
    oneofs: true,
  });
  return grpc.loadPackageDefinition(definition).cospan.rpc.v1.CoordinatorService;
}

// google.rpc.Status and ErrorInfo, of which this client needs five fields.
const ERRORS = protobuf.parse(`
  syntax = "proto3"; package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; }`, { keepCase: true }).root;

/** The stable reason of a failure; empty where the status carries none: nothing answered, or gRPC itself refused. */
export function reasonOf(error) {
  const [encoded] = error.metadata?.get('grpc-status-details-bin') ?? [];
  if (encoded === undefined) return '';
  const status = ERRORS.lookupType('google.rpc.Status').decode(encoded);
  for (const detail of status.details) {
    if (!detail.type_url.endsWith('/google.rpc.ErrorInfo')) continue;
    const info = ERRORS.lookupType('google.rpc.ErrorInfo').decode(detail.value);
    if (info.domain === 'cospan') return info.reason;
  }
  return '';
}

/** Doubles of a message, row by row. Only float64 keeps the promise of equal bits; coordinators send nothing else. */
export function fromMatrix(message) {
  if (message.data_type !== 'DATA_TYPE_FLOAT64') throw new Error(`cannot read a matrix of ${message.data_type}`);
  const numbers = message.rows * message.columns;
  if (message.data.length !== 8 * numbers) throw new Error(`${message.data.length} bytes for ${numbers} doubles`);
  const values = new Float64Array(numbers);
  for (let place = 0; place < numbers; place++) values[place] = message.data.readDoubleLE(8 * place);
  return values;
}

/** The message of rows × columns doubles. */
export function toMatrix(values, rows, columns) {
  const data = Buffer.alloc(8 * values.length);
  values.forEach((value, place) => data.writeDoubleLE(value, 8 * place));
  return { rows, columns, data_type: 'DATA_TYPE_FLOAT64', data };
}

/** All numbers of an upload's payload, as the vector of a secure sum has them. */
function numbersOf({ factored, head_second_moment: moment, pooled }) {
  const [left, right] = [fromMatrix(factored.left), fromMatrix(factored.right)];
  const triangle = (square, r) => square.filter((_, place) => place % r >= Math.floor(place / r));
  return {
    gradient: [...left].flatMap((a) => [...right].map((b) => a * b)),
    moment: moment && triangle([...fromMatrix(moment)], moment.rows),
    pooled: pooled && [...fromMatrix(pooled)],
  };
}

const sameBits = (a, b) => Buffer.from(a.buffer).equals(Buffer.from(b.buffer));

export class Session {
  /**
   * @param {object} options
   * @param {string} options.coordinator HOST:PORT.
   * @param {string} options.agent the agent's name, 1 to 64 of letters, digits, '.', '_' and '-'.
   * @param {number} options.featureDim d.
   * @param {string} options.fingerprint of the feature map; all agents of a run share it.
   * @param {(specification: object) => object} options.makeLearner called once, with the run's specification; the
   *   learner has `learn(round, basis)`, which takes L steps and returns the upload's payload.
   * @param {number} options.progressTimeout seconds without progress after which the agent gives up.
   */
  constructor({ coordinator, agent, featureDim, fingerprint, makeLearner, progressTimeout = 60, log = () => {} }) {
    const Service = loadService();
    this.client = new Service(coordinator, grpc.credentials.createInsecure());
    this.join = {
      instance_id: randomUUID(),
      agent_ids: [agent],
      feature_dim: featureDim,
      feature_fingerprint: fingerprint,
      workload: 'ring',
      client_version: 'agent-node',
    };
    this.sums = new SecureSums(agent); // used where the run has secure sums
    this.join.sum_members = [{ public_key: this.sums.publicKey }];
    this.specification = null;
    this.makeLearner = makeLearner;
    this.progressTimeout = progressTimeout;
    this.log = log;
    this.token = null; // of the session, once welcomed
    this.runId = null;
    this.incarnation = 0; // the highest ever met: a message of a lower one is void
    this.told = 0; // the newest round ever announced to this agent
    this.kept = new Map(); // round → {basis, payload}: what a restarted coordinator may ask for again
    this.learner = null;
    this.lastContact = performance.now();
  }

  /** Takes part until the run is over; the text of its end. Throws where it cannot go on. */
  async run() {
    for (let attempt = 0; ; attempt++) {
      const ended = await this.converse();
      if (ended.finished !== undefined) return ended.finished;
      if (ended.contact) attempt = 0;
      const idle = (performance.now() - this.lastContact) / 1000;
      if (idle - (ended.resumeAfter ?? 0) > this.progressTimeout) {
        throw new Error(`no progress for ${this.progressTimeout} s: ${ended.error?.details ?? 'the stream ended'}`);
      }
      const longest = Math.min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** Math.min(attempt, 10));
      await sleep(1000 * Math.max(ended.resumeAfter ?? 0, longest * (0.5 + 0.5 * Math.random())));
    }
  }

  /** One stream, from its Join to its end: {finished} when the run is over, else why the stream ended. */
  converse() {
    return new Promise((resolve, reject) => {
      const stream = this.client.Collaborate();
      const outcome = { contact: false };
      let sent = performance.now();
      let heartbeat;
      const write = (message) => {
        sent = performance.now();
        stream.write(message);
      };
      const settle = (settled, value) => {
        clearInterval(heartbeat);
        stream.removeAllListeners('data');
        settled(value);
      };
      stream.on('data', (response) => {
        try {
          this.onMessage(response, write, outcome);
          if (response.event === 'welcome' && heartbeat === undefined) {
            const silence = 250 * response.welcome.specification.session_timeout_seconds; // a quarter, in milliseconds
            heartbeat = setInterval(() => {
              if (performance.now() - sent >= silence) write({ heartbeat: {} });
            }, silence / 2);
          }
        } catch (failure) {
          stream.cancel();
          settle(reject, failure);
        }
      });
      stream.on('error', (error) => {
        const reason = reasonOf(error);
        if (reason === 'RUN_FINISHED' && this.learner !== null) settle(resolve, { finished: error.details });
        else if (reason === 'SESSION_UNKNOWN') {
          this.token = null; // join again without it
          settle(resolve, { ...outcome, error });
        } else if (RETRY.has(reason) || (reason === '' && NO_ANSWER.has(error.code))) {
          settle(resolve, { ...outcome, error });
        } else settle(reject, new Error(`${reason || grpc.status[error.code]}: ${error.details}`));
      });
      stream.on('end', () => settle(resolve, outcome));
      const resumption = { session_token: this.token, run_id: this.runId, last_round: this.told };
      write({ join: this.token === null ? this.join : { ...this.join, resumption } });
    });
  }

  onMessage({ stamp, event, ...message }, write, outcome) {
    if (this.runId !== null && stamp.run_id !== this.runId) {
      throw new Error(`the coordinator holds run ${stamp.run_id}; this agent belongs to ${this.runId}`);
    }
    if (stamp.incarnation < this.incarnation) throw new Error('a coordinator of an earlier incarnation answered');
    this.incarnation = stamp.incarnation;
    this.lastContact = performance.now();
    outcome.contact = true;
    for (const round of this.kept.keys()) if (round < stamp.durable_round) this.kept.delete(round);
    this.sums.forget(stamp.durable_round);
    switch (event) {
      case 'welcome':
        this.onWelcome(stamp, message.welcome, write);
        break;
      case 'basis_update':
        this.takePart(stamp.round, fromMatrix(message.basis_update.basis), write, message.basis_update.epoch_id);
        break;
      case 'membership':
        this.agree(message.membership);
        break;
      case 'receipt': // the gradient was a duplicate, or came too late: the next basis follows
        break;
      case 'drain':
        outcome.resumeAfter = Math.min(message.drain.resume_after_seconds, this.progressTimeout);
        break;
      case 'finish':
        outcome.finished = message.finish.message;
        break;
    }
  }

  onWelcome(stamp, welcome, write) {
    this.token = welcome.session_token;
    this.runId = stamp.run_id;
    const { specification } = welcome;
    if (this.learner === null) {
      const { feature_dim: d, feature_fingerprint: fingerprint } = specification;
      if (d !== this.join.feature_dim || fingerprint !== this.join.feature_fingerprint) {
        throw new Error(`the run has d = ${d} and features ${fingerprint}; these are not this agent's`);
      }
      this.learner = this.makeLearner(specification);
    }
    this.specification = specification;
    if (welcome.membership) this.agree(welcome.membership);
    this.told = Math.max(this.told, stamp.round);
    // Before the fleet is complete, and where the open round has this agent's gradient, the next basis is awaited.
    if (welcome.started && welcome.first_round <= stamp.round) {
      const epochId = welcome.membership && epochIdOf(stamp.run_id, welcome.membership.members);
      this.takePart(stamp.round, fromMatrix(welcome.basis), write, epochId);
    }
  }

  agree({ members }) {
    this.sums.agree(this.runId, members, this.specification.min_cohort);
  }

  /** Answers the open round: with the gradient kept for it where it was taken at this very basis, else a new one. */
  takePart(round, basis, write, epochId) {
    this.told = Math.max(this.told, round);
    const isSecure = this.specification.secure_sums;
    if (isSecure && !(epochId && this.sums.epochId?.equals(epochId))) return; // no member of the round's epoch
    let kept = this.kept.get(round);
    if (kept === undefined || !sameBits(kept.basis, basis)) {
      kept = { basis, payload: this.learner.learn(round, basis) };
      this.kept.set(round, kept);
      if (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value);
    }
    if (isSecure) this.writeMasked(round, kept, write);
    else write({ gradient: { round, weight: 1, ...kept.payload } });
    this.log(round);
  }

  /** The one vector of the round; declines where another one was masked for it, which would show the difference. */
  writeMasked(round, { basis, payload }, write) {
    const masked = this.sums.masked(this.specification, round, basis, () => numbersOf(payload));
    write(masked === null ? { declined: { round } } : { gradient: { round, weight: 1, masked } });
  }
}
