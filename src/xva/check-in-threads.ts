import { Worker, type WorkerOptions } from 'node:worker_threads';
import { createLog } from '../core/index.ts';
import type { ArchiveFile } from './check-share.ts';
import { mergeReports, type XvaReport } from './xva-report.ts';

const log = createLog('xva');

const THREAD: WorkerOptions = {
  execArgv: [], // those of the process would be taken over, and `--input-type` of `node -e` lets no script run
  resourceLimits: { maxYoungGenerationSizeMb: 1 }, // what a walk leaves behind is small: half the memory of a thread
};

/**
 * Checks an uncompressed archive in several threads: each goes through all of its structure and hashes its own share of
 * the chunks, which stay in the cache of one core so. Resolves with `undefined` where threads are not to be had (a
 * bundler that left their script behind, Node's permission model) or one failed: the caller has another way, which also
 * tells why. When it settles no thread uses the file any more.
 */
export async function checkInThreads(
  { fd, size }: ArchiveFile,
  threads: number,
  signal: AbortSignal | undefined,
): Promise<XvaReport | undefined> {
  signal?.throwIfAborted();
  const running: Worker[] = [];
  const stop = async () => {
    await Promise.all(running.map((worker) => worker.terminate()));
  };
  const onAbort = () => void stop(); // terminate() never rejects
  signal?.addEventListener('abort', onAbort);
  try {
    const script = scriptOfThreads();
    const reports: Promise<XvaReport>[] = [];
    for (let index = 0; index < threads; index++) {
      const workerData = { file: { fd, size }, share: { index, of: threads } };
      const worker = new Worker(script, { ...THREAD, workerData });
      running.push(worker);
      reports.push(reportOf(worker));
    }
    return mergeReports(await Promise.all(reports));
  } catch (error) {
    signal?.throwIfAborted();
    log.debug('no check in threads', { error });
    return undefined;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    await stop();
  }
}

/**
 * Beside this file in the sources, beside all others in the package. Throws in CommonJS that a bundler made: it has no
 * `import.meta.url`, and must be loaded nevertheless.
 */
function scriptOfThreads(): URL {
  const { url } = import.meta;
  return new URL(url.endsWith('.ts') ? './check-thread.ts' : './xva-check-thread.js', url);
}

/** Rejects where the thread ends without a report. */
function reportOf(worker: Worker): Promise<XvaReport> {
  const { promise, resolve, reject } = Promise.withResolvers<XvaReport>();
  promise.catch(() => {}); // not swallowed: awaited together with the others
  worker
    .on('message', resolve)
    .on('error', reject)
    .on('exit', (code) => reject(new Error(`a thread of the check ended with ${code}`)));
  return promise;
}
