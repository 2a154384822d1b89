import { expect, test } from 'vitest';
import { hostGates } from '../../src/host/limits.ts';

let addresses = 0;
/** Gates are the process's: each test takes an address of its own. */
const address = () => `192.0.2.${++addresses}`;

test('as many as there are slots, and the next when one is given back', async () => {
  const { exports } = hostGates(address(), { transfers: 2 });
  const first = await exports.enter();
  await exports.enter();
  expect(exports.taken).toBe(2);
  let entered = false;
  const third = exports.enter().then((release) => {
    entered = true;
    return release;
  });
  await new Promise(setImmediate);
  expect(entered).toBe(false);
  first();
  first(); // twice is once
  await third;
  expect(exports.taken).toBe(2);
});

test('who gives up while waiting takes no slot, and keeps none from others', async () => {
  const { calls } = hostGates(address(), { calls: 1 });
  const release = await calls.enter();
  const abort = new AbortController();
  const reason = new Error('enough');
  const impatient = calls.enter({ signal: abort.signal });
  const patient = calls.enter();
  abort.abort(reason);
  await expect(impatient).rejects.toBe(reason);
  await expect(calls.enter({ signal: abort.signal })).rejects.toBe(reason);
  release();
  (await patient)();
  await new Promise(setImmediate);
  expect(calls.taken).toBe(0);
});

test('an abort after entering leaves the slot to its owner', async () => {
  const { calls } = hostGates(address(), { calls: 1 });
  const abort = new AbortController();
  const release = await calls.enter({ signal: abort.signal });
  abort.abort();
  await new Promise(setImmediate);
  expect(calls.taken).toBe(1);
  release();
  (await calls.enter())();
});

test('the same address is the same host, whoever asks; a limit given later holds', async () => {
  const host = address();
  expect(hostGates(host).calls).toBe(hostGates(host).calls);
  const { nbdConnections } = hostGates(host, { nbdConnections: 1 });
  const first = await nbdConnections.enter();
  const second = nbdConnections.enter();
  hostGates(host, { nbdConnections: 2 });
  (await second)();
  first();
});

test('exports and imports have slots of their own', async () => {
  const { exports, imports } = hostGates(address(), { transfers: 1 });
  const release = await exports.enter();
  expect(imports.taken).toBe(0);
  (await imports.enter())();
  release();
});

test('limits that no host could serve are refused', () => {
  for (const nbdConnections of [0, 17, 1.5]) expect(() => hostGates(address(), { nbdConnections })).toThrow(RangeError);
});
