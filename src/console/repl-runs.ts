import { anySignal, BackupError, type CallOptions, type ProgressOptions } from '../core/index.ts';
import { type ProgressStream, showProgress } from './show-progress.ts';

type Run = (...args: never[]) => Promise<unknown>;

/** The long operations that were started at the prompt and have not ended. */
export interface Runs {
  readonly count: number;
  /**
   * The same function, which shows its progress and can be stopped from here, unless its caller cares for that.
   * @param optionsAt - the place of its options among its arguments
   */
  shown<F extends Run>(run: F, optionsAt: number): F;
  /** Aborts all; their bars go at once. */
  stop(): void;
  /** Resolves when all have ended, well or not. */
  settled(): Promise<void>;
}

/** @param onStopped - told how a run ended that was stopped: nobody waits for it any more. */
export function createRuns(stream: ProgressStream, onStopped: (error: unknown) => void): Runs {
  const running = new Map<Promise<unknown>, () => void>();

  function begin(run: Run, args: readonly unknown[], optionsAt: number): Promise<unknown> {
    const given: unknown = args[optionsAt] ?? {};
    if (typeof given !== 'object' || given === null) return run(...(args as never[])); // which will refuse it
    const options = given as CallOptions & ProgressOptions;
    const stopping = new AbortController();
    const display = showProgress(stream);
    const { onProgress = display.onProgress } = options;
    const all = [...args];
    all[optionsAt] = { ...options, onProgress, signal: anySignal(options.signal, stopping.signal) };
    const work = finish(run(...(all as never[])), display, stopping.signal);
    running.set(work, () => {
      display.close();
      work.catch(() => {}); // told by `onStopped`; whoever waited for it at the prompt was interrupted
      stopping.abort(new BackupError('ABORTED', 'stopped at the prompt'));
    });
    work.then(
      () => running.delete(work),
      () => running.delete(work),
    );
    return work;
  }

  async function finish(work: Promise<unknown>, display: Disposable, stopped: AbortSignal): Promise<unknown> {
    using _ = display;
    try {
      return await work;
    } catch (error) {
      if (stopped.aborted) onStopped(error);
      throw error;
    }
  }

  return {
    get count() {
      return running.size;
    },
    shown<F extends Run>(run: F, optionsAt: number): F {
      const shown = (...args: unknown[]) => begin(run, args, optionsAt);
      return Object.defineProperty(shown, 'name', { value: run.name }) as unknown as F;
    },
    stop() {
      for (const stop of running.values()) stop();
    },
    async settled() {
      await Promise.allSettled(running.keys());
    },
  };
}
