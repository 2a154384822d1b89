/** One piece of work in a process of its own; prints `{ seconds, peakMib }` of the work itself. Started by `xva.ts`. */
import { checkXva } from '../src/xva/index.ts';
import { report } from './job.ts';

const [path = ''] = process.argv.slice(2);
await report(async () => {
  const { ok, findings } = await checkXva(path);
  if (!ok) throw new Error(`${path} is broken: ${findings[0]?.message}`);
});
