/**
 * Adds up the reports of vitest's JSON reporter in a folder and prints `tests: N passed, N failed, N skipped`. A test
 * file that could not be loaded counts as a failed test. Exits with 1 when something failed or nothing ran.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

interface Report {
  readonly success: boolean;
  readonly testResults: readonly {
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

const folder = process.argv[2];
if (folder === undefined) throw new TypeError('usage: sum-tests.ts <folder with reports>');

let passed = 0;
let failed = 0;
let skipped = 0;
let sound = true;
for (const name of (await readdir(folder)).sort()) {
  const report = JSON.parse(await readFile(join(folder, name), 'utf8')) as Report;
  sound &&= report.success;
  for (const { status, assertionResults } of report.testResults) {
    if (status === 'failed' && assertionResults.every((test) => test.status !== 'failed')) failed++;
    for (const test of assertionResults) {
      if (test.status === 'passed') passed++;
      else if (test.status === 'failed') failed++;
      else skipped++; // and those that are still to be written
    }
  }
}
console.log(`tests: ${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = sound && failed === 0 && passed > 0 ? 0 : 1;
