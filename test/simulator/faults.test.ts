import { expect, test } from 'vitest';
import { createFaults } from '../../src/simulator/faults.ts';

test('a fault strikes as often as it is told, once unless told, and only where it fits', () => {
  const faults = createFaults();
  faults.arm('nbd-refuse');
  faults.arm('stall', { after: 5, times: 2 });
  expect(faults.take('stall', ({ after }) => after === 6)).toBeUndefined();
  expect([1, 2, 3].map(() => faults.take('stall'))).toEqual([{ after: 5 }, { after: 5 }, undefined]);
  expect([1, 2].map(() => faults.take('nbd-refuse'))).toEqual([{}, undefined]);
});

test('a fault is taken back, alone or with all others', () => {
  const faults = createFaults();
  faults.arm('nbd-refuse')();
  expect(faults.take('nbd-refuse')).toBeUndefined();
  faults.arm('bitmap-lies');
  faults.clear();
  expect(faults.take('bitmap-lies')).toBeUndefined();
});

test.each([
  ['nbd-cut', undefined, 'the fault nbd-cut needs the option after'],
  ['export-cut', { path: '/export' }, 'the fault export-cut needs the option after'],
  ['call-error', { method: 'VM.snapshot' }, 'the fault call-error needs the option code'],
  ['drop-connection', {}, 'the fault drop-connection needs the option method or path'],
  ['toString', {}, /^no fault is called "toString": there are export-cut, /],
])('%s with %j is refused, and says what is missing', (name, options, message) => {
  const { arm } = createFaults() as unknown as { arm(name: string, options: unknown): void };
  expect(() => arm(name, options)).toThrow(TypeError);
  expect(() => arm(name, options)).toThrow(message);
});
