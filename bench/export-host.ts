/** A simulated host in a process of its own, with one halted VM full of noise. Started by `export.ts`; ends with it. */
import { randomFillSync } from 'node:crypto';
import { startSimulator } from '../src/simulator/index.ts';

const MIB = 1024 * 1024;
const sizeMib = Number(process.argv[2]);
const simulator = await startSimulator();
const vm = await simulator.createVm({ name: 'bench', powerState: 'Halted', disks: [{ size: sizeMib * MIB }] });
for (let at = 0; at < sizeMib; at += 8) {
  await simulator.writeDisk(vm.uuid, '0', at * MIB, randomFillSync(new Uint8Array(8 * MIB)));
}
const { url, username, password, certificate } = simulator;
console.log(JSON.stringify({ url, username, password, certificate, vm: vm.uuid }));
process.stdin.on('end', () => void simulator.close()).resume();
