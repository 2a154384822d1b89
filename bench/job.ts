import { timeOf } from './compare.ts';

/** What a job says of its work alone, and the time of its whole process. */
export interface JobReport {
  /** Of the work, without the start of the process. */
  readonly seconds: number;
  readonly peakMib: number;
  /** Of the process, from start to end, in seconds. */
  readonly whole: number;
}

/** Runs a job in a process of its own. */
export async function runJob(script: string, args: readonly string[]): Promise<JobReport> {
  let text = '';
  const whole = await timeOf(process.execPath, [script, ...args], (output) => {
    text += output;
  });
  return { ...(JSON.parse(text) as Omit<JobReport, 'whole'>), whole };
}

/** Does the work of a job and prints its report. */
export async function report(work: () => Promise<void>): Promise<void> {
  const started = performance.now();
  await work();
  const seconds = (performance.now() - started) / 1000;
  console.log(JSON.stringify({ seconds, peakMib: process.resourceUsage().maxRSS / 1024 }));
}
