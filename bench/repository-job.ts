/** Work on a large repository in a process of its own. Started by `repository.ts`; prints `{ seconds, peakMib }` of it. */
import { directoryStore, openRepository } from '../src/store/index.ts';
import { report } from './job.ts';

const [job, folder = ''] = process.argv.slice(2);
const repository = await openRepository(await directoryStore(folder));
await report(async () => {
  if (job === 'list') await repository.list();
  if (job === 'plan') await repository.planPrune({ keepDaily: 7, keepWeekly: 4, keepMonthly: 12 });
});
