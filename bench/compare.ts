import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { performance } from 'node:perf_hooks';

/** One way to do the work; resolves with its number. */
export type Contender = () => Promise<number>;

export interface Comparison {
  readonly bench: string;
  readonly unit: string;
  /** Is more better (a rate), or less (a time, memory)? */
  readonly better: 'more' | 'less';
  readonly ours: Contender;
  /** Those we measure ourselves against, by name; none where no other program does the same. */
  readonly peers?: Readonly<Record<string, Contender>>;
}

export interface CompareOptions {
  readonly runs: number;
  /** One object a line instead of text. */
  readonly json: boolean;
}

/** Lets all take turns, so that a slow minute of the machine hits all, and prints the medians: a line for each peer. */
export async function compare(comparison: Comparison, { runs, json }: CompareOptions): Promise<void> {
  const { bench, unit, better, ours, peers = {} } = comparison;
  const contenders = Object.entries({ ...peers, ours });
  const numbers = contenders.map((): number[] => []);
  for (let turn = 0; turn < runs; turn++) {
    for (const [i, [, contender]] of contenders.entries()) numbers[i]!.push(await contender());
  }
  const own = median(numbers.at(-1)!);
  const lines = Object.keys(peers).map((peerName, i) => ({ peerName, peer: median(numbers[i]!) }));
  for (const { peerName, peer } of lines.length > 0 ? lines : [{ peerName: null, peer: null }]) {
    const ratio = peer === null ? null : better === 'more' ? own / peer : peer / own;
    if (json) console.log(JSON.stringify({ bench, ours: own, peer, peerName, unit, ratio }));
    else {
      const beside = peer === null ? '' : `  ${peerName}: ${short(peer)} ${unit}  ratio ${short(ratio!)}`;
      console.log(`${bench.padEnd(32)} ours: ${short(own)} ${unit}${beside}`);
    }
  }
}

/**
 * The time that a program takes from its start to its end, in seconds. What it prints goes to `onOutput`, or nowhere.
 */
export async function timeOf(
  program: string,
  args: readonly string[],
  onOutput?: (text: string) => void,
): Promise<number> {
  const started = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', onOutput === undefined ? 'ignore' : 'pipe', 'inherit'] });
  child.stdout?.setEncoding('utf8').on('data', (text: string) => onOutput?.(text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${program} ended with ${code}`);
  return (performance.now() - started) / 1000;
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function short(number: number): string {
  return number >= 100 ? number.toFixed(0) : number.toPrecision(3);
}
