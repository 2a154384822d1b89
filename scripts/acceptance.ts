/**
 * `npm run acceptance` runs the acceptance tests and prints every row of the checklist with its state, for each profile.
 * With `--json` it prints one object a line, `{ "row", "profile", "state" }`, and nothing else (`npm run --silent`
 * keeps npm's own lines away). Exits with 1 when a row fails.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

type State = 'pass' | 'fail' | 'todo' | 'n/a';

/** What vitest's JSON reporter writes, as far as it is read here. */
interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly title: string;
      readonly status: string;
      readonly failureMessages: readonly string[] | null;
    }[];
  }[];
}

interface Row {
  readonly row: string;
  readonly profile: string;
  title: string;
  state: State;
}

const LAST_ROW = 39;
const ROW_NAME = /^(?<row>S\d+) (?<title>.*) \[(?<profile>[^\]]+)\]$/;
/** A row in several tests is as good as the worst of them. */
const WORST_FIRST: readonly State[] = ['fail', 'todo', 'pass', 'n/a'];

const { values: options } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
const report = runTests();
const rows = collectRows(report);

for (const { row, profile, state, title } of rows) {
  if (options.json) console.log(JSON.stringify({ row, profile, state }));
  else console.log(`${row.padEnd(4)} ${state.padEnd(5)} ${profile.padEnd(21)} ${title}`);
}
if (!options.json) {
  const counts = WORST_FIRST.map((state) => `${rows.filter((row) => row.state === state).length} ${state}`);
  console.log(`\nrows: ${counts.join(', ')}`);
}
process.exitCode = rows.some(({ state }) => state === 'fail') ? 1 : 0;

function runTests(): VitestReport {
  const folder = mkdtempSync(join(tmpdir(), 'xen-backup-sdk-'));
  try {
    const file = join(folder, 'report.json');
    const vitest = fileURLToPath(new URL('../node_modules/vitest/vitest.mjs', import.meta.url));
    const args = [vitest, 'run', 'test/acceptance', '--reporter=json', `--outputFile=${file}`];
    // What vitest prints goes to standard error: standard output is ours.
    const top = fileURLToPath(new URL('..', import.meta.url));
    const env = { ...process.env, ACCEPTANCE_PROFILES: 'all' };
    const { error } = spawnSync(process.execPath, args, { cwd: top, env, stdio: ['ignore', 2, 2] });
    if (error !== undefined) throw error;
    return JSON.parse(readFileSync(file, 'utf8')) as VitestReport;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function collectRows({ testResults }: VitestReport): Row[] {
  const found = new Map<string, Row>();
  const profiles = new Set<string>();
  for (const file of testResults) {
    if (file.message !== '') console.error(`${file.name}: ${file.message}`);
    for (const { title, status, failureMessages } of file.assertionResults) {
      const name = ROW_NAME.exec(title)?.groups as { row: string; title: string; profile: string } | undefined;
      if (name === undefined) continue; // a test of a helper
      for (const message of failureMessages ?? []) console.error(`${title}\n${message}\n`);
      profiles.add(name.profile);
      merge(found, { ...name, state: stateOf(status, name.title) });
    }
  }
  if (profiles.size === 0) profiles.add('none');
  // A row whose file could not even be loaded is missing from the report: it fails.
  return Array.from({ length: LAST_ROW + 1 }, (_, at) => `S${at}`).flatMap((row) => rowOn(row, [...profiles], found));
}

/** A row on the profiles that it is judged on: some are judged on more than others. */
function rowOn(row: string, profiles: readonly string[], found: ReadonlyMap<string, Row>): Row[] {
  const rows = profiles.flatMap((profile) => found.get(`${row} ${profile}`) ?? []);
  return rows.length > 0 ? rows : [{ row, profile: profiles[0]!, title: 'no test of this row ran', state: 'fail' }];
}

function stateOf(status: string, title: string): State {
  if (status === 'passed') return 'pass';
  if (status === 'failed') return 'fail';
  return status !== 'todo' && title.includes('; not here: ') ? 'n/a' : 'todo'; // a skipped judge leaves it open
}

function merge(rows: Map<string, Row>, next: Row): void {
  const key = `${next.row} ${next.profile}`;
  const known = rows.get(key);
  if (known === undefined || WORST_FIRST.indexOf(next.state) < WORST_FIRST.indexOf(known.state)) rows.set(key, next);
}
