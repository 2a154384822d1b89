import { execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { startPool } from '../support/pool.ts';
import { bundleProgram, runChild } from '../support/run-child.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;
const run = promisify(execFile);
const example = fileURLToPath(new URL('../../examples/serve-point.ts', import.meta.url));
const tools = ['nbdinfo', 'nbdcopy'].map((tool) => hasTool(tool)).every(Boolean);

/** The example, running; `uri` is what it printed. */
async function serve(bundle: string, args: readonly string[]) {
  const child = spawn(process.execPath, [bundle, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
  const [uri] = (await once(createInterface(child.stdout), 'line')) as [string];
  return {
    uri,
    async interrupt() {
      child.kill('SIGINT');
      return (await ended)[0];
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

test.runIf(tools)('the example serves any restore point, and libnbd reads it', async () => {
  await using pool = await startPool();
  await using dir = await makeTempDir();
  const { simulator, host, repository, folder } = pool;
  const vm = await simulator.createVm({ name: 'web', disks: [{ size: 16 * MIB }, { size: 24 * MIB }] });
  const uuid = vm.disks[1]!.uuid;
  const states: { point: string; hash: string }[] = [];
  for (const offset of [3 * MIB + 512, 20 * MIB]) {
    await simulator.writeDisk(vm.uuid, '1', offset, randomBytes(MIB));
    const { point } = await backupVm(host, repository, { vm: vm.uuid });
    states.push({ point: point.point, hash: await simulator.hashDisk(uuid) });
  }
  const bundle = dir.file('serve-point.mjs');
  await bundleProgram(example, bundle);
  for (const [index, wanted] of [states[0]!.point, 'latest'].entries()) {
    await using server = await serve(bundle, [folder, vm.uuid, wanted, '1']);
    const info = JSON.parse((await run('nbdinfo', ['--json', server.uri])).stdout) as { exports: unknown[] };
    expect(info.exports[0]).toMatchObject({
      'export-name': `${states[index]!.point}/1`,
      'export-size': 24 * MIB,
      is_read_only: true,
    });
    const copy = dir.file(`copy${index}`);
    await run('nbdcopy', [server.uri, copy]);
    expect(await hashFile(copy)).toBe(states[index]!.hash);
    expect(await server.interrupt()).toBe(0);
  }
  const missing = await runChild(bundle, [folder, vm.uuid, 'latest', '7']);
  expect(missing.code).not.toBe(0);
  expect(missing.printed).toContain('no disk 7 in point latest');
});
