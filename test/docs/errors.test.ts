import { readdir, readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { readDocument } from './support/documents.ts';

const root = new URL('../../', import.meta.url);
const errors = await readDocument('docs/errors.md');

/** The part of the document below one heading. */
function section(heading: string): string {
  const text = errors.split(/^## /m).find((part) => part.startsWith(`${heading}\n`));
  expect(text, heading).toBeDefined();
  return text!;
}

/** The codes in the first column of the tables in a text. */
function codesIn(text: string): string[] {
  return [...text.matchAll(/^\| `([A-Z_]+[A-Z])` +\|/gm)].map(([, code]) => code!).sort();
}

/** The sources of what users see, without the simulator: it says what a host says. */
async function sources(): Promise<string> {
  const names = await readdir(new URL('src/', root), { recursive: true });
  const ours = names.filter((name) => name.endsWith('.ts') && !name.startsWith('simulator'));
  const texts = await Promise.all(ours.map((name) => readFile(new URL(`src/${name}`, root), 'utf8')));
  return texts.join('\n');
}

function found(text: string, pattern: RegExp): string[] {
  return [...new Set([...text.matchAll(pattern)].map(([, code]) => code!))].sort();
}

describe('docs/errors.md', () => {
  test('names every code, and no other', async () => {
    const union = await readFile(new URL('src/core/errors.ts', root), 'utf8');
    const codes = found(union, /^ {2}\| '([A-Z_]+)'/gm);
    expect(codes.length).toBeGreaterThan(20);
    expect(codesIn(['Runs', 'The host', 'The repository'].map(section).join(''))).toEqual(codes);
    const families = found(union, /'([A-Z]+)'(?= \||\}_)/g).map((family) => `${family}_`);
    expect(found(errors, /^\| `([A-Z]+_)` +\|/gm)).toEqual(families);
  });

  test('names every code of a format, and no other', async () => {
    const notThese = ['CBT_UNAVAILABLE', 'CBT_UNTRUSTED', 'NBD_UNAVAILABLE', 'NBD_INFO_BLOCK_SIZE', 'NBD_INFO_EXPORT'];
    const codes = found(await sources(), /'((?:BYTES|STREAM|VHD|XVA|CBT|NBD)_[A-Z0-9_]+)'/g);
    expect(codes.length).toBeGreaterThan(80);
    expect(found(section('Formats'), /`((?:BYTES|STREAM|VHD|XVA|CBT|NBD)_[A-Z0-9_]*[A-Z0-9])`/g)).toEqual(
      codes.filter((code) => !notThese.includes(code)),
    );
  });

  test('names every warning, and no other', async () => {
    const codes = found(await sources(), /(?:warn\(\s*|warnings\.push\(\{ code: )'([A-Z_]+)'/g);
    expect(codes.length).toBeGreaterThan(10);
    expect(codesIn(section('Warnings'))).toEqual(codes);
  });

  test('names every conflict, and no other', async () => {
    const plans = ['plan-backup.ts', 'plan-image.ts', 'plan-parts.ts'].map((name) => `src/backup/${name}`);
    const text = await Promise.all(plans.map((name) => readFile(new URL(name, root), 'utf8')));
    const ofBackups = found(text.join('\n'), /(?:conflict\(|\bcode: )'([A-Z_]+)'/g);
    expect(ofBackups.length).toBeGreaterThan(3);
    expect(codesIn(section('Conflicts of a backup'))).toEqual(ofBackups);
    const union = await readFile(new URL('src/restore/restore-plan.ts', root), 'utf8');
    const ofRestores = found(union, /^ {4}\| '([A-Z_]+)'/gm);
    expect(ofRestores.length).toBeGreaterThan(5);
    expect(codesIn(section('Conflicts of a restore'))).toEqual(ofRestores);
  });
});
