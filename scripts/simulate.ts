// npm run simulate: a simulated pool that stays until it is told to end, for programs that run elsewhere. `--help` lists
// the options.
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { type MadeVm, type Simulator, type SimulatorOptions, startSimulator } from 'xen-backup-sdk/simulator';
import { stopOnSignals } from './stop-on-signals.ts';

const MIB = 2 ** 20;

const USAGE = `npm run simulate [-- options]

  A simulated pool with two VMs, web and db, until Ctrl-C; nothing of it stays. What it prints is what the examples read:
  paste it into the shell that runs them, or save it (npm run --silent simulate > simulator.env) and give it to Node
  (node --env-file simulator.env examples/nightly-backup.ts ./backups web db).

  --profile <name>   which release it plays: xcp-ng-8.3 (default), xcp-ng-8.2, xenserver-8, xenserver-7.3 …
  --help
`;

/** Two VMs with something on their disks. */
async function makeVms(simulator: Simulator): Promise<readonly MadeVm[]> {
  const disks = [
    { name: 'system', size: 64 * MIB, bootable: true },
    { name: 'data', size: 128 * MIB },
  ];
  const web = await simulator.createVm({ name: 'web', disks });
  const db = await simulator.createVm({ name: 'db', disks: disks.slice(0, 1), powerState: 'Halted' });
  for (const { uuid } of [web, db]) await simulator.writeDisk(uuid, '0', MIB, noise(4 * MIB));
  await simulator.writeDisk(web.uuid, '1', 32 * MIB, noise(6 * MIB));
  return [web, db];
}

/** Bytes that no compressor shortens. */
function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  return bytes;
}

/** The lines are right for a shell and for `node --env-file`. */
function shown({ url, username, password, fingerprint256 }: Simulator, vms: readonly MadeVm[]): string {
  return [
    `export XEN_URL=${url}`,
    `export XEN_USER=${username}`,
    `export XEN_PASSWORD=${password}`,
    `export XEN_FINGERPRINT=${fingerprint256}`,
    ...vms.map(({ name, uuid }) => `# VM ${name}: ${uuid}`),
    `# node examples/nightly-backup.ts ./backups ${vms.map(({ name }) => name).join(' ')}`,
    '# It runs until Ctrl-C.',
  ].join('\n');
}

async function simulate(profile: SimulatorOptions['profile'], stop: AbortSignal): Promise<void> {
  const networks = [{ address: '127.0.0.1', purposes: ['nbd'] as const }]; // increments are read over NBD
  const simulator = await startSimulator({ profile, networks });
  try {
    const vms = await makeVms(simulator);
    console.log(shown(simulator, vms));
    if (!stop.aborted) await once(stop, 'abort');
  } finally {
    await simulator.close();
  }
}

try {
  const { values } = parseArgs({
    options: { help: { type: 'boolean', short: 'h', default: false }, profile: { type: 'string' } },
  });
  if (values.help) console.log(USAGE);
  else await simulate(values.profile as SimulatorOptions['profile'], stopOnSignals());
} catch (error) {
  process.exitCode = 1;
  console.error(error instanceof Error ? error.message : String(error));
  if (error instanceof TypeError || error instanceof RangeError)
    console.error('npm run simulate -- --help lists the options.');
}
