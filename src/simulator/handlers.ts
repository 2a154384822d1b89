import type { HandlerTable } from './world.ts';

/** Every HTTP transfer of the simulated host, by method and path. */
export const handlers: HandlerTable = new Map();
