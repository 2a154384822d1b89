import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { startPool } from '../support/pool.ts';
import { tempDir } from '../support/temp-dir.ts';
import { typedRepl } from './support/typed-repl.ts';

/** What the file has after a session in which this was typed. */
async function keptOf(lines: readonly string[], historyFile: string): Promise<string> {
  const repl = await typedRepl({ historyFile });
  repl.press(lines.map((line) => `${line}\n`).join(''));
  repl.hangUp();
  await repl.closed;
  return readFile(historyFile, 'utf8');
}

describe('what is typed', () => {
  test('is at hand in the next session, newest first, and added to by it', async () => {
    const file = join(await tempDir(), 'history');
    expect(await keptOf(['1 + 1', '.names zzz', 'throw 1', 'const o = {', 'a: 1,', '}'], file)).toBe(
      '1 + 1\n.names zzz\nthrow 1\nconst o = {\na: 1,\n}\n',
    );
    await using repl = await typedRepl({ historyFile: file });
    expect(repl.server).toHaveProperty('history', ['}', 'a: 1,', 'const o = {', 'throw 1', '.names zzz', '1 + 1']);
    await repl.type('2 + 2');
    await repl.close();
    expect(await readFile(file, 'utf8')).toMatch(/\n}\n2 \+ 2\n$/);
  });

  test('is read by its owner only, also where the file was open to all', async () => {
    const file = join(await tempDir(), 'history');
    await keptOf(['1'], file);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    await chmod(file, 0o644);
    await keptOf(['2'], file);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  test('is kept up to a thousand lines, the newest', async () => {
    const file = join(await tempDir(), 'history');
    await writeFile(file, Array.from({ length: 1500 }, (_, index) => `${index}\n`).join(''));
    const lines = (await keptOf(['"new"'], file)).split('\n');
    expect(lines).toHaveLength(1001);
    expect(lines.slice(0, 2)).toEqual(['501', '502']);
    expect(lines.slice(-3)).toEqual(['1499', '"new"', '']);
  });

  test.each([
    ['in the home folder on a terminal', { terminal: true }, ['.xen-backup-sdk_history']],
    ['nowhere without a terminal', {}, []],
    ['nowhere where that is wanted', { historyFile: false as const, terminal: true }, []],
  ])('is kept %s', async (_name, options, files) => {
    const home = await tempDir();
    vi.stubEnv('HOME', home);
    vi.stubEnv('USERPROFILE', home);
    onTestFinished(() => void vi.unstubAllEnvs());
    const repl = await typedRepl(options);
    repl.press('6 * 7\n');
    await repl.until('42');
    await repl.close();
    expect(await readdir(home)).toEqual(files);
  });

  test('is not kept where it cannot be, which is told, and the session goes on', async () => {
    const folder = join(await tempDir(), 'folder');
    await mkdir(folder);
    await using repl = await typedRepl({ historyFile: folder });
    expect(repl.greeting).toMatch(/^what is typed is not kept: EISDIR/);
    expect(await repl.type('1 + 1')).toBe('2\n');
  });
});

describe('a password is not kept', () => {
  test.each([
    ['named on its line', ['x = { password: "hunter2" }']],
    ['on a line below its name', ['x = { password:', '"hunter2",', 'a: 1 }']],
    ['in a URL', ['x = "https://root:hunter2@xen.example.org"']],
    ['in a call that logs in', ['try { host.call("session.login_with_password", "root", "hunter2") } catch {}']],
    ['behind a space', [' x = "hunter2"']],
    ['in a variable of such a name', ['const pw = "hunter2"']],
    ['as a reference of a session', ['x = "OpaqueRef:hunter2"']],
    ['in a command', ['.points https://root:hunter2@xen.example.org']],
  ])('%s', async (_name, lines) => {
    const kept = await keptOf(['1 + 1', ...lines, '2 + 2'], join(await tempDir(), 'history'));
    expect(kept).toBe('1 + 1\n2 + 2\n');
  });

  test('that was used as one, whatever its line looked like, in this session or an earlier one', async () => {
    await using pool = await startPool({ password: 'correct horse' });
    const file = join(await tempDir(), 'history');
    await writeFile(file, 'x = "correct horse battery"\ny = 1\n');
    const { url, certificate } = pool.simulator;
    const repl = await typedRepl({ historyFile: file });
    Object.assign(repl.server.context, { url, certificate });
    await repl.type('const mine = "correct horse"');
    await repl.type('const more = { username: "root", ["pass" + "word"]: mine }');
    await repl.type('const host = await connectHost({ url, tls: { certificate }, ...more })');
    expect(await repl.type('(await host.listVms()).length')).toBe('0\n');
    await repl.close();
    expect(await readFile(file, 'utf8')).toBe(
      'y = 1\nconst host = await connectHost({ url, tls: { certificate }, ...more })\n(await host.listVms()).length\n',
    );
  });

  test('that the session began with', async () => {
    await using pool = await startPool({ password: 'correct horse' });
    const { url, username, password, certificate } = pool.simulator;
    const file = join(await tempDir(), 'history');
    const host = { url, username, password, tls: { certificate } };
    const repl = await typedRepl({ host, historyFile: file });
    await repl.type('"correct horse"');
    await repl.type('1');
    await repl.close();
    expect(await readFile(file, 'utf8')).toBe('1\n');
  });

  test('that a proxy wants', async () => {
    const file = join(await tempDir(), 'history');
    const repl = await typedRepl({ historyFile: file });
    await repl.type('const word = "hunter/2"');
    const proxy = '"http://u:" + encodeURIComponent(word) + "@127.0.0.1:1"';
    await repl.type(
      `await connectHost({ url: "https://127.0.0.1:1", username: "u", ["pa" + "ss"]: 1, proxy: ${proxy} })`,
    );
    await repl.close();
    expect(await readFile(file, 'utf8')).not.toContain('hunter');
  });
});
