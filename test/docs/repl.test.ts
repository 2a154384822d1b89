import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { typedRepl } from '../console/support/typed-repl.ts';

const PROMPT = 'xen> ';

interface Exchange {
  readonly input: string;
  readonly printed: string[];
}

/** What is typed and printed in the document's transcript; the first input is that of the shell. */
async function transcript(): Promise<Exchange[]> {
  const text = await readFile(new URL('../../docs/repl.md', import.meta.url), 'utf8');
  const lines = [...text.matchAll(/^```console\n(.*?)^```$/gms)].flatMap(([, code]) => code!.trimEnd().split('\n'));
  const exchanges: Exchange[] = [];
  for (const line of lines) {
    if (/^(?:xen>|\$) /.test(line)) exchanges.push({ input: line.replace(/^\S+ /, ''), printed: [] });
    else exchanges.at(-1)!.printed.push(line);
  }
  return exchanges;
}

/**
 * What stays the same from run to run: names and times are taken out, columns may be wider, what runs at once comes in
 * any order, and how often progress is told is up to the machine.
 */
function lasting(printed: readonly string[]): string[] {
  return printed
    .filter((line) => !/^\w+: \w+: \d+ % \(/.test(line))
    .map((line) =>
      line
        .replace(/\d{8}t\d{9}z-(full|incr)-[0-9a-f]{6}/g, '<$1>')
        .replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '<uuid>')
        .replace(/ in [\d.]+ (?:ms|s)(?:, [\d.]+ \w+\/s)?/, ' in <time>')
        .replace(/(B +)\d+( +<uuid>)$/, '$1<ms>$2')
        .replace(/slow side: (?:host|store|process) \(\d+ %/, 'slow side: <side> (<part>')
        .replace(/^\S+ [\d.]+ on Node v[\d.]+$/, '<versions>')
        .replace(/127\.0\.0\.1:\d+/, '<address>')
        .replace(/-{2,}/g, '-')
        .replace(/ +/g, ' '),
    )
    .sort();
}

const linesOf = (text: string) => text.split('\n').slice(0, -1);

test('who types what stands in docs/repl.md sees what stands there', { timeout: 120_000 }, async () => {
  const [start, ...exchanges] = await transcript();
  expect(start!.input).toBe('npm run repl -- --simulate');
  expect(exchanges.length).toBeGreaterThan(15);
  expect(exchanges.at(-1)).toEqual({ input: '.exit', printed: [] });
  const repl = await typedRepl({ simulate: true });
  expect(lasting(linesOf(repl.greeting))).toEqual(lasting(start!.printed));
  for (const { input, printed } of exchanges.slice(0, -1)) {
    expect(lasting(linesOf(await repl.type(input))), input).toEqual(lasting(printed));
  }
  repl.press('.exit\n');
  await repl.closed;
  expect(repl.printed.split(PROMPT)).toHaveLength(exchanges.length + 1);
});
