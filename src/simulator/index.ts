export type { MadeDisk, MadeVm, NewDisk, NewVif, NewVm } from './create-vm.ts';
export type { FaultName, FaultOptions, FaultTimes } from './faults.ts';
export type { ProfileName } from './profiles.ts';
export type { LogEntry, RequestLog } from './request-log.ts';
export type { PoolRefs, Timing } from './simulation.ts';
export { type Simulator, type SimulatorOptions, startSimulator } from './simulator.ts';
export type { World } from './world.ts';
