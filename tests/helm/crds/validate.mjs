// Validates custom resources: node validate.mjs < resources.json, an array. Prints a line for each; exit code 1 for a wrong one.
import { readFileSync } from 'node:fs';
import { Certificate } from '@kubernetes-models/cert-manager/cert-manager.io/v1';
import { ServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';

const kinds = { Certificate, ServiceMonitor };
for (const resource of JSON.parse(readFileSync(0, 'utf8'))) {
  const name = `${resource.kind} ${resource.metadata.name}`;
  try {
    new kinds[resource.kind](resource).validate();
    console.log(`right: ${name}`);
  } catch (failure) {
    console.log(`wrong: ${name}: ${failure.message}`);
    process.exitCode = 1;
  }
}
