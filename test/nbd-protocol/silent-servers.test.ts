import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { describe, expect, test } from 'vitest';
import { connectNbd } from '../../src/nbd-protocol/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { type ManualClock, manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { nbdkit, qemuNbd } from './real-servers.ts';

const MIB = 1024 * 1024;
const ONCE = { reconnect: { tries: 0 } } as const;
const STALL_MS = 12_345;

async function until(reached: () => boolean): Promise<void> {
  while (!reached()) await new Promise((resolve) => setImmediate(resolve));
}

/** Lets the stall timer run off, as soon as it runs. */
async function stall(clock: ManualClock): Promise<void> {
  await until(() => clock.sleeps.includes(STALL_MS));
  await clock.advance(STALL_MS);
}

/** One letter to nbdkit's pause filter, which answers with a letter when it is done. */
async function tell(control: string, letter: 'p' | 'r'): Promise<void> {
  const socket = connect(control);
  socket.write(letter);
  await once(socket, 'data');
  socket.destroy();
}

describe.runIf(hasTool('nbdkit'))('nbdkit that falls silent', () => {
  test('row 32: paused for good: the stall timer; resumed in time: the data', async () => {
    await using dir = await makeTempDir();
    const control = dir.file('control');
    await using server = await nbdkit(['--filter=pause', 'memory', '1M', `pause-control=${control}`]);
    const clock = manualClock();
    const options = { ...ONCE, clock, timeouts: { stallMs: STALL_MS } };
    await using disk = await connectNbd(server.uri, options);
    await using other = await connectNbd(server.uri, options);
    await tell(control, 'p');
    const reading = disk.readInto(new Uint8Array(4096), 0).catch((error: unknown) => error);
    await stall(clock);
    expect(await reading).toMatchObject({ code: 'NBD_STALLED', retryable: true });
    const target = new Uint8Array(4096).fill(1);
    const late = other.readInto(target, 0);
    await tell(control, 'r');
    await late;
    expect(target).toEqual(new Uint8Array(4096));
  });

  test.each([
    ['SIGKILL', 'NBD_CONNECTION_LOST'],
    ['SIGSTOP', 'NBD_STALLED'],
  ] as const)('row 33: %s with reads under way', async (signal, code) => {
    await using server = await nbdkit(['--filter=delay', 'memory', '1M', 'rdelay=1']);
    const clock = manualClock();
    await using disk = await connectNbd(server.uri, { ...ONCE, clock, timeouts: { stallMs: STALL_MS } });
    const reading = disk.readInto(new Uint8Array(MIB), 0).catch((error: unknown) => error);
    server.kill(signal);
    if (signal === 'SIGSTOP') await stall(clock);
    expect(await reading).toMatchObject({ code, stage: 'transmission', retryable: true });
  });

  test('row 36: connections one after another: one of ours only, and no greeting for the next', async () => {
    await using server = await nbdkit(['--filter=noparallel', 'memory', '8M', 'serialize=connections']);
    let opened = 0;
    const acquireSlot = async () => {
      opened++;
      return () => {};
    };
    await using disk = await connectNbd(server.uri, { connections: 3, maxInFlight: 1, acquireSlot });
    await disk.readInto(new Uint8Array(8 * MIB), 0);
    expect(opened).toBe(1);
    const clock = manualClock();
    const second = connectNbd(server.uri, { clock }).catch((error: unknown) => error);
    await until(() => clock.sleeps.includes(30_000));
    await clock.advance(30_000);
    expect(await second).toMatchObject({ code: 'NBD_TIMEOUT', stage: 'greeting', retryable: true });
  });
});

describe.runIf(hasTool('qemu-nbd'))('qemu-nbd for one client', () => {
  test('row 59: without -t it ends by itself after our goodbye', async () => {
    await using dir = await makeTempDir();
    await writeFile(dir.file('raw.img'), patterned(MIB));
    await using server = await qemuNbd(['-f', 'raw', '-r', dir.file('raw.img')], { oneClient: true });
    const disk = await connectNbd(server.uri);
    const target = new Uint8Array(MIB);
    await disk.readInto(target, 0);
    expect(Buffer.compare(target, patterned(MIB))).toBe(0);
    await disk.close();
    if (server.process.exitCode === null) await once(server.process, 'exit');
    expect(server.process.exitCode).toBe(0);
  });
});
