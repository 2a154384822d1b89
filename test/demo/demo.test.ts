import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { e2fsck, ext4Manifest } from '../support/ext4.ts';
import { hasTool } from '../support/has-tool.ts';
import { bundleProgram, runChild } from '../support/run-child.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const MIB = 1024 * 1024;
const demo = fileURLToPath(new URL('../../examples/demo/demo.ts', import.meta.url));
/** As deep in the project as the demo itself, which finds its fixtures by a relative path. */
const bundles = fileURLToPath(new URL('../../node_modules/.demo-test/', import.meta.url));
const tools = ['7z', 'vhdiinfo', 'qemu-img', 'e2fsck'].map((tool) => hasTool(tool)).every(Boolean);

test.runIf(tools)(
  'the demo finds every disk identical, within 300 MiB, and other tools open what it leaves',
  {
    timeout: 180_000,
  },
  async () => {
    await using dir = await makeTempDir();
    const bundle = join(bundles, `demo-${process.pid}.mjs`);
    await mkdir(bundles, { recursive: true });
    try {
      await bundleProgram(demo, bundle);
      const end = await runChild(bundle, ['--record', 'transcript.jsonl'], { cwd: dir.path });
      expect(end, end.printed).toMatchObject({ code: 0 });
      expect(end.printed.match(/^\d{8}t.* restore .* yes$/gm)).toHaveLength(4);
      expect(end.printed).not.toContain('DIFFERENT');
      const [, amount, unit] = /peak memory: ([\d.]+) (\w+)/.exec(end.printed)!;
      expect(Number(amount) * (unit === 'GiB' ? 1024 : 1)).toBeLessThan(300);

      const repository = dir.file('demo-repository');
      const layers = (await readdir(repository, { recursive: true })).filter((name) => name.endsWith('.vhd')).sort();
      expect(layers).toHaveLength(6);
      for (const layer of layers) {
        await run('7z', ['t', join(repository, layer)]);
        await run('vhdiinfo', [join(repository, layer)]);
      }
      const [, first] = await Promise.all([
        Promise.all(
          layers
            .filter((name) => name.includes('-full-'))
            .map(async (base, index) => {
              const image = dir.file(`base-${index}.img`);
              await run('qemu-img', ['convert', '-f', 'vpc', '-O', 'raw', join(repository, base), image]);
            }),
        ),
        ext4Manifest('first'),
      ]);
      const hashes = await Promise.all([0, 1].map((index) => sha256OfSmall(dir.file(`base-${index}.img`))));
      const system = hashes.indexOf(first.sha256);
      expect(system, 'one of the base layers is the source disk').toBeGreaterThanOrEqual(0);
      await e2fsck(dir.file(`base-${system}.img`));

      const transcript = await readFile(dir.file('transcript.jsonl'), 'utf8');
      expect(transcript.split('\n').length).toBeGreaterThan(50);
      expect(transcript).toContain('"VM.snapshot"'.replace('VM.', 'Async.VM.'));
      expect(transcript).not.toMatch(/simulated"|OpaqueRef:[0-9a-f]{8}-/); // the password; references of a session
    } finally {
      await rm(bundle, { force: true });
    }
  },
);

/** SHA-256 of an image of 64 MiB; of larger ones nothing is known in advance. */
async function sha256OfSmall(path: string): Promise<string> {
  const { stdout: size } = await run('stat', ['-c', '%s', path]);
  if (Number(size) > 64 * MIB) return 'larger';
  const { stdout } = await run('sha256sum', [path]);
  return stdout.slice(0, 64);
}
