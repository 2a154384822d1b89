import { execFile } from 'node:child_process';
import { copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { type InstalledPackage, installedPackage } from '../support/installed-package.ts';
import { tempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const top = fileURLToPath(new URL('../..', import.meta.url));
const KIB = 1024;

let installed: InstalledPackage;
let specifiers: string[];

beforeAll(async () => {
  installed = await installedPackage();
  const { exports } = JSON.parse(await readFile(join(top, 'package.json'), 'utf8')) as { exports: object };
  specifiers = Object.keys(exports)
    .filter((path) => path !== './package.json')
    .map((path) => `xen-backup-sdk${path.slice(1)}`);
}, 300_000);

/** Runs a script inside the user's folder, on the Node that runs this test, and gives what it printed. */
async function inApp(script: string, type: 'module' | 'commonjs' = 'module'): Promise<string> {
  const env = { PATH: process.env['PATH'] };
  const { stdout, stderr } = await run(process.execPath, [`--input-type=${type}`, '--eval', script], {
    cwd: installed.app,
    env,
  });
  expect(stderr).toBe('');
  return stdout;
}

describe('the tarball', () => {
  test('holds these files and no others', () => {
    const paths = installed.files.map(({ path }) => path);
    const entries = specifiers.map((name) => name.split('/')[1] ?? 'index');
    const named = [
      ...['CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE', 'NOTICE', 'README.md', 'SECURITY.md', 'package.json'],
      ...['dist/xva-check-thread.js', 'dist/xva-check-thread.js.map'],
      ...entries.flatMap((name) => [`dist/${name}.js`, `dist/${name}.js.map`, `dist/${name}.d.ts`]),
    ];
    const shared = /^dist\/(?:(?:chunk|[a-z-]+)-[\w-]{8}\.js(?:\.map)?|[a-z-]+-[\w-]{8}\.d\.ts)$/;
    const guide = /^docs\/(?:decisions\/)?[\w-]+\.md$|^docs\/images\/[a-z-]+\.svg$/;
    const example = /^examples\/(?:demo\/)?[\w-]+\.(?:ts|md)$/;
    const isOther = (path: string) => ![shared, guide, example].some((kind) => kind.test(path));
    expect(named.filter((path) => !paths.includes(path))).toEqual([]);
    expect(paths.filter((path) => !named.includes(path) && isOther(path))).toEqual([]);
  });

  test('holds what its documents link to', async () => {
    const paths = installed.files.map(({ path }) => path);
    const links: string[] = [];
    for (const name of paths.filter((path) => path.endsWith('.md'))) {
      const text = await readFile(join(installed.app, 'node_modules', 'xen-backup-sdk', name), 'utf8');
      for (const [, link] of text.matchAll(/\]\((?!https?:|#)([^)#]+)/g))
        links.push(posix.join(posix.dirname(name), link!));
    }
    expect(links.length).toBeGreaterThan(30);
    expect(links.filter((link) => !paths.includes(link))).toEqual([]);
  });

  test('is built when it is packed, by whoever packs it', async () => {
    const clone = await tempDir();
    await copyFile(join(top, 'package.json'), join(clone, 'package.json'));
    const tsup = join(clone, 'node_modules', '.bin', 'tsup');
    await mkdir(dirname(tsup), { recursive: true });
    await writeFile(tsup, '#!/bin/sh\nmkdir dist && echo built >dist/index.js\n', { mode: 0o755 }); // it stands for the real one
    const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--silent'], { cwd: clone });
    const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }];
    expect(files.map(({ path }) => path)).toEqual(['dist/index.js', 'package.json']);
  });

  test('is no larger than it needs to be', () => {
    expect(installed.packedSize).toBeLessThan(1536 * KIB);
    expect(installed.unpackedSize).toBeLessThan(6144 * KIB);
  });

  test('does not tell where it was built', async () => {
    for (const { path } of installed.files) {
      const text = await readFile(join(installed.app, 'node_modules', 'xen-backup-sdk', path), 'utf8');
      expect(text.includes(top) || text.includes(installed.app), path).toBe(false);
    }
  });
});

describe('installed', () => {
  test('every sub-path can be imported, and required from CommonJS', async () => {
    const list = JSON.stringify(specifiers);
    const imported = await inApp(
      `for (const s of ${list}) console.log(s, Object.keys(await import(s)).sort().join());`,
    );
    const required = await inApp(
      `for (const s of ${list}) console.log(s, Object.keys(require(s)).sort().join());`,
      'commonjs',
    );
    expect(imported.trimEnd().split('\n')).toHaveLength(specifiers.length);
    expect(imported).not.toMatch(/ $/m); // a sub-path that exports nothing
    expect(required.replaceAll('module.exports,', '')).toBe(imported);
  });

  test('a Node that is too old is told so at the import, of whichever sub-path', async () => {
    const printed = await inApp(`
      delete process.getBuiltinModule('node:zlib').createZstdCompress; // as it is on Node 22.14
      for (const s of ${JSON.stringify(specifiers)}) {
        await import(s).then(() => console.log(s), ({ message }) => console.log(message));
      }
    `);
    const told = `xen-backup-sdk needs Node 22.15 or newer (of Node 23: 23.8), and this is Node ${process.version}`;
    expect(printed.trimEnd().split('\n')).toEqual(specifiers.map(() => told));
    // A name that Node does not have would fail first, when modules are linked.
    const scripts = installed.files.filter(({ path }) => path.endsWith('.js'));
    for (const { path } of scripts) {
      const text = await readFile(join(installed.app, 'node_modules', 'xen-backup-sdk', path), 'utf8');
      for (const [names] of text.matchAll(/^import .* from "node:zlib";$/gm)) expect(names, path).not.toMatch(/zstd/i);
    }
  });

  test('who shows progress does not load the REPL and the simulator with it', async () => {
    const printed = await inApp(`
      import { showProgress, startRepl } from 'xen-backup-sdk/console';
      const domains = () => process.moduleLoadList.filter((name) => name.endsWith(' domain')).length;
      const before = domains();
      const { PassThrough } = await import('node:stream');
      const repl = await startRepl({ input: new PassThrough(), output: new PassThrough() });
      await repl.close();
      console.log(before, domains());
    `);
    expect(printed).toBe('0 1\n');
  });

  test('a large archive is checked in threads, whose script the package has', async () => {
    const archive = join(await tempDir(), 'large.xva');
    const printed = await inApp(`
      import { createWriteStream } from 'node:fs';
      import { syncBuiltinESMExports } from 'node:module';
      import { Readable } from 'node:stream';
      import { pipeline } from 'node:stream/promises';
      import workers from 'node:worker_threads';
      let reports = 0;
      workers.Worker = class extends workers.Worker {
        constructor(...args) {
          super(...args);
          this.on('message', () => reports++);
        }
      };
      syncBuiltinESMExports();
      const { checkXva, xvaStream } = await import('xen-backup-sdk/xva');
      const { memoryDisk } = await import('xen-backup-sdk/disk');
      const disk = memoryDisk(new Uint8Array(65 * 1024 * 1024).fill(1));
      const vbd = { VM: 'Ref:1', VDI: 'Ref:3', userdevice: '0', type: 'Disk' };
      const metadata = { version: {}, objects: [
        { class: 'VM', id: 'Ref:1', snapshot: { name_label: 'large' } },
        { class: 'VBD', id: 'Ref:2', snapshot: vbd },
        { class: 'VDI', id: 'Ref:3', snapshot: { virtual_size: String(disk.size) } },
      ] };
      const { chunks } = await xvaStream({ metadata, disks: [{ id: 'Ref:3', disk }] });
      await pipeline(Readable.from(chunks), createWriteStream('${archive}'));
      const { ok } = await checkXva('${archive}', { threads: 3 });
      console.log(ok, reports);
    `);
    expect(printed).toBe('true 3\n');
  });

  test('small files are read in a thread, whatever flags the process has', async () => {
    const printed = await inApp(`
      import { directoryStore } from 'xen-backup-sdk/store';
      const store = await directoryStore('${await tempDir()}');
      await store.write('a', new Uint8Array(3));
      for await (const bytes of store.readMany(['a'], 100)) console.log(bytes?.byteLength);
    `);
    expect(printed).toBe('3\n');
  });

  test('an error thrown by one sub-path is an instance of the class of another', async () => {
    const printed = await inApp(`
      import { BackupError, FormatError } from 'xen-backup-sdk';
      import { ChangedBlocks } from 'xen-backup-sdk/cbt';
      import { NbdError } from 'xen-backup-sdk/nbd';
      import { memoryStore, openRepository } from 'xen-backup-sdk/store';
      const { prototype } = NbdError;
      console.log(prototype instanceof BackupError);
      try { ChangedBlocks.fromBase64('AAAA', { diskSize: 65536 }); } catch (error) { console.log(error instanceof FormatError, error.code); }
      try { await openRepository(memoryStore(), { create: false }); } catch (error) { console.log(error instanceof BackupError, error.code); }
    `);
    expect(printed.trimEnd().split('\n')).toEqual([
      'true',
      expect.stringMatching(/^true CBT_/),
      'true REPOSITORY_MISSING',
    ]);
  });

  test.each([
    ['NodeNext', 'NodeNext', 'main.mts'],
    ['NodeNext, from CommonJS,', 'NodeNext', 'main.cts'],
    ['Node16', 'Node16', 'main.mts'],
    ['a bundler', 'bundler', 'main.ts'],
  ])(
    'its declarations satisfy the compiler for %s in a strict program that checks libraries, too',
    async (_, way, main) => {
      const app = await tempDir();
      await mkdir(join(app, 'node_modules'));
      await symlink(
        join(installed.app, 'node_modules', 'xen-backup-sdk'),
        join(app, 'node_modules', 'xen-backup-sdk'),
        'junction',
      );
      await symlink(join(top, 'node_modules', '@types'), join(app, 'node_modules', '@types'), 'junction');
      await writeFile(join(app, main), specifiers.map((name, at) => `export * as n${at} from '${name}';\n`).join(''));
      const compilerOptions = {
        ...{ strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, noEmit: true },
        ...{ target: 'ES2024', lib: ['ES2024', 'ESNext.Disposable'], types: ['node'] },
        ...{ module: way === 'bundler' ? 'ESNext' : way, moduleResolution: way },
      };
      await writeFile(join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: [main] }));
      const { stdout } = await run(process.execPath, [join(top, 'node_modules/typescript/bin/tsc'), '-p', app]).catch(
        (error: { stdout: string }) => error,
      );
      expect(stdout).toBe('');
    },
    60_000,
  );
});
