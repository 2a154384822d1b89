/**
 * A simulated host in a process of its own. Prints how to reach it, then takes orders, a line of JSON each, and answers each
 * with a line; ends with its input. Started by `host-process.ts`.
 */
import { randomFillSync } from 'node:crypto';
import { createInterface } from 'node:readline';
import { connectHost } from '../src/host/index.ts';
import { startSimulator } from '../src/simulator/index.ts';
import type { HostOrder, MadeVm } from './host-process.ts';

const MIB = 1024 * 1024;
const simulator = await startSimulator();
const { url, username, password, certificate } = simulator;
const host = await connectHost({ url, username, password, tls: { certificate } });
const [network] = await host.listNetworks();
await host.enableNbd(network!.uuid);
await host.close();
console.log(JSON.stringify({ url, username, password, certificate }));

const noise = randomFillSync(new Uint8Array(65 * MIB));
let shift = 0;

async function obey(order: HostOrder): Promise<MadeVm | null> {
  if (order.call === 'create') {
    const disks = order.disks.map((size) => ({ size: size * MIB }));
    const vm = await simulator.createVm({ name: order.name, powerState: 'Halted', disks });
    return { uuid: vm.uuid, disks: vm.disks.map(({ uuid }) => uuid) };
  }
  const { disk, from, mib, run, every } = order;
  for (let done = 0, at = from; done < mib; done += run, at += every) {
    for (let part = 0; part < run; part += 64) {
      shift = (shift + 4099) % MIB; // other bytes each time
      const length = Math.min(64, run - part, mib - done - part) * MIB;
      await simulator.writeDisk(disk, undefined, (at + part) * MIB, noise.subarray(shift, shift + length));
    }
  }
  return null;
}

for await (const line of createInterface(process.stdin)) {
  console.log(JSON.stringify(await obey(JSON.parse(line) as HostOrder)));
}
await simulator.close();
