/** What runs in a thread of `check-in-threads.ts`. */
import { parentPort, workerData } from 'node:worker_threads';
import { type ArchiveFile, checkShare } from './check-share.ts';
import type { ChunkShare } from './chunk-hashing.ts';

const { file, share } = workerData as { readonly file: ArchiveFile; readonly share: ChunkShare };
const report = await checkShare(file, share);
parentPort!.postMessage(report);
