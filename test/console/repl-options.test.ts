import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { askSecret } from '../../scripts/ask-secret.ts';
import { replOptions, type Surroundings, USAGE } from '../../scripts/repl-options.ts';
import { tempDir } from '../support/temp-dir.ts';

const nobody: Surroundings = { env: {}, ask: undefined };
const HOST = ['--host', 'https://xen.example.org'];

describe('the command line of npm run repl', () => {
  test('without options opens nothing', async () => {
    expect(await replOptions([], nobody)).toEqual({ simulate: false });
  });

  test('--simulate plays a release', async () => {
    expect(await replOptions(['--simulate', '--repository', 'here'], nobody)).toEqual({
      ...{ simulate: {}, repository: 'here' },
    });
    expect(await replOptions(['--simulate', '--profile', 'xenserver-7.3'], nobody)).toEqual({
      simulate: { profile: 'xenserver-7.3' },
    });
  });

  test('the password comes from the file, else from the environment, else from a person', async () => {
    const file = join(await tempDir(), 'password');
    await writeFile(file, ' in the file\r\n');
    const asked: string[] = [];
    const ask = async (question: string) => {
      asked.push(question);
      return 'typed';
    };
    const passwordOf = async (args: readonly string[], env: Surroundings['env']) =>
      (await replOptions([...HOST, ...args], { env, ask }))?.host?.password;
    expect(await passwordOf(['--password-file', file], { XEN_PASSWORD: 'set' })).toBe(' in the file');
    expect(await passwordOf([], { XEN_PASSWORD: 'set' })).toBe('set');
    expect(asked).toEqual([]);
    expect(await passwordOf(['--user', 'backup'], { XEN_PASSWORD: '' })).toBe('typed');
    expect(asked).toEqual(['Password of backup at https://xen.example.org: ']);
  });

  test('says by what the certificate is believed', async () => {
    const ca = join(await tempDir(), 'ca.pem');
    await writeFile(ca, 'PEM');
    const env = { XEN_PASSWORD: 'set' };
    const host = { url: 'https://xen.example.org', username: 'root', password: 'set' };
    const optionsOf = async (...args: string[]) => (await replOptions([...HOST, ...args], { ...nobody, env }))?.host;
    expect(await optionsOf()).toEqual(host);
    expect(await optionsOf('--fingerprint', 'AB:CD')).toEqual({ ...host, tls: { fingerprint256: 'AB:CD' } });
    expect(await optionsOf('--ca', ca)).toEqual({ ...host, tls: { ca: 'PEM' } });
    expect(await optionsOf('--insecure')).toEqual({ ...host, insecure: true });
  });

  test('--history and --no-history', async () => {
    expect(await replOptions(['--history', 'mine'], nobody)).toMatchObject({ historyFile: 'mine' });
    expect(await replOptions(['--no-history'], nobody)).toMatchObject({ historyFile: false });
  });

  test.each([
    ['nobody to ask for the password', HOST, /--password-file/],
    ['host and simulator', [...HOST, '--simulate'], /exclude each other/],
    ['a release without a simulator', ['--profile', 'xcp-ng-8.2'], /needs --simulate/],
    ['a password for all to see', [...HOST, '--password', 'hunter2'], /--password/],
    ['words', ['simulate'], /simulate/],
  ])('refuses %s', async (_name, args, message) => {
    await expect(replOptions(args, nobody)).rejects.toThrow(TypeError);
    await expect(replOptions(args, nobody)).rejects.toThrow(message);
  });

  test('--help names every option, and says why no password is one', async () => {
    expect(await replOptions(['--help', ...HOST], nobody)).toBeUndefined();
    for (const option of ['user', 'profile', 'fingerprint', 'ca', 'insecure', 'repository', 'history', 'no-history']) {
      expect(USAGE).toContain(`--${option}`);
    }
    expect(USAGE).toContain('list of');
  });
});

describe('a secret that is asked for', () => {
  function terminal(): { input: PassThrough; output: PassThrough; printed(): string } {
    const output = new PassThrough();
    return { input: new PassThrough(), output, printed: () => String(output.read() ?? '') };
  }

  test('is typed, mended and sent, and not seen', async () => {
    const { input, output, printed } = terminal();
    const answer = askSecret('Password: ', input, output);
    input.write('huntr\x7fer2\r');
    expect(await answer).toBe('hunter2');
    expect(printed()).toBe('Password: \n');
  });

  test.each([
    ['Ctrl-C', '\x03'],
    ['Ctrl-D', '\x04'],
  ])('can be refused with %s', async (_name, key) => {
    const { input, output } = terminal();
    const answer = askSecret('Password: ', input, output);
    input.write(key);
    await expect(answer).rejects.toThrow('no password was given');
  });
});
