/**
 * A XenServer or XCP-ng pool in this process, with faults on demand, to test products with.
 *
 * @module xen-backup-sdk/simulator
 */

export type { MadeDisk, MadeVm, NewDisk, NewVif, NewVm } from './create-vm.ts';
export type { FaultArguments, FaultName, FaultOptions, FaultTimes } from './faults.ts';
export type { Restriction } from './host-facts.ts';
export type { NetworkPurpose } from './network-purpose.ts';
export type { NewNetwork, NewStorage } from './pool-setup.ts';
export type { ProfileName } from './profiles.ts';
export type { LogEntry, RequestLog } from './request-log.ts';
export type { PoolRefs, Timing } from './simulation.ts';
export { type SimulatedHost, type Simulator, type SimulatorOptions, startSimulator } from './simulator.ts';
export type { GuestTools, World } from './world.ts';
