#!/usr/bin/env node
// A Cospan agent: node agent.mjs --coordinator 127.0.0.1:15051 --index 2 [--agent site-2] [--states 8]

import { parseArgs } from 'node:util';
import { makeLearner } from './learner.mjs';
import { fingerprintOfOneHot, Ring } from './ring.mjs';
import { Session } from './session.mjs';

const { values: options } = parseArgs({
  options: {
    coordinator: { type: 'string', default: '127.0.0.1:15051' },
    index: { type: 'string', default: '0' },
    agent: { type: 'string' },
    states: { type: 'string', default: '8' },
    'progress-timeout-seconds': { type: 'string', default: '60' },
    json: { type: 'boolean', default: false },
  },
});
const index = Number(options.index);
const states = Number(options.states);
if (!Number.isInteger(index) || index < 0 || !Number.isInteger(states) || states < 3) {
  console.error('agent.mjs: --index is a whole number of 0 or more, --states one of 3 or more');
  process.exit(2);
}
const ring = new Ring(index, states);
let learner;
const session = new Session({
  coordinator: options.coordinator,
  agent: options.agent ?? `site-${index}`,
  featureDim: states - 1,
  fingerprint: fingerprintOfOneHot(states, 0),
  progressTimeout: Number(options['progress-timeout-seconds']),
  makeLearner: (specification) => (learner = makeLearner(specification, ring)),
});
try {
  const end = await session.run();
  const { gain, head, weights } = learner?.result() ?? {};
  if (options.json) console.log(JSON.stringify({ end, gain, head, weights }));
  else console.log(`${end}; mean reward ${gain}, value weights ${weights}`);
} catch (failure) {
  console.error(`agent.mjs: ${failure.message}`);
  process.exitCode = 1;
} finally {
  session.client.close();
}
