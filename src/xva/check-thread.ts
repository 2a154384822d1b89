/** What runs in a thread of `check-in-threads.ts`. */
import { parentPort, workerData } from 'node:worker_threads';
import { type ArchiveFile, checkShare } from './check-share.ts';
import type { CheckShare } from './chunk-hashing.ts';

const { file, share } = workerData as { readonly file: ArchiveFile; readonly share: CheckShare };
const report = await checkShare(file, share);
parentPort!.postMessage(report);
