/**
 * A process of its own that runs an operation and dies by SIGKILL at its `n`-th step:
 * `node <bundle> <operation> <repository> <source> <n>` prints `told <point>` of each point that it has made. Where the
 * operation ends before, it prints as JSON what it did.
 */
import { writeSync } from 'node:fs';
import { installKillSwitch } from './kill-switch.ts';

const STDOUT = 1;

async function main([name = '', folder = '', from = '', n = '']: readonly string[]): Promise<void> {
  const killSwitch = await installKillSwitch(Number(n));
  // Only now: what the library takes out of `node:fs` when it is loaded is watched, too.
  const { openFor, operations } = await import('./kill-operations.ts');
  const operation = operations[name]!;
  const repository = await openFor(operation, folder);
  const source = operation.source === undefined ? repository : await openFor(operation, from);
  await operation.run(repository, source, (point) => writeSync(STDOUT, `told ${point}\n`));
  writeSync(STDOUT, JSON.stringify({ steps: killSwitch.steps, unseen: killSwitch.unseen }));
}

void main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
