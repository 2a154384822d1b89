import { hostDate } from './host-date.ts';
import { type HandlerTask, NULL_REF, type World, XapiFailure } from './world.ts';

/** A task whose work is under way in the simulator. */
export interface RunningTask extends HandlerTask {
  /** Ends it with a result in XML-RPC text; without one, with the result set before. */
  succeed(xml?: string): void;
  /** Ends it with an error; one that was cancelled ends as cancelled. */
  fail(error: unknown): void;
}

/** How a new task looks. */
export interface TaskOptions {
  readonly description?: string;
  readonly session?: string;
  readonly cancellable?: boolean;
}

/** The tasks of the pool: their records, and the work behind those that run. */
export interface Tasks {
  /** A pending task without work. */
  create(label: string, options?: TaskOptions): string;
  /** Takes over a pending task; its client may cancel it from now on if `cancellable`. */
  run(ref: string, options?: { readonly cancellable?: boolean }): RunningTask;
  /** `task.cancel`. */
  cancel(ref: string): void;
  /** `task.destroy`: a pending task goes when it ends. */
  destroy(ref: string): void;
  /** Every task is forgotten without an event, as when the toolstack restarts. */
  forgetAll(): void;
}

/** The host's error for whatever was thrown: what has no code of its own is INTERNAL_ERROR. */
export function failureOf(error: unknown): XapiFailure {
  if (error instanceof XapiFailure) return error;
  return new XapiFailure('INTERNAL_ERROR', [error instanceof Error ? error.message : String(error)], { cause: error });
}

/** The tasks of a pool whose host is `hostRef`. */
export function createTasks(world: World, hostRef: () => string): Tasks {
  const running = new Map<string, AbortController>();
  const doomed = new Set<string>(); // destroyed by their client while pending

  function finish(ref: string, changes: { status: string; result?: string; error_info?: readonly string[] }): void {
    running.delete(ref);
    if (world.findObject('task', ref)?.status === 'pending') {
      world.updateObject('task', ref, {
        ...changes,
        progress: 1,
        finished: hostDate(world.clock.now()),
        allowed_operations: [],
        current_operations: {},
      });
    }
    if (doomed.delete(ref)) world.removeObject('task', ref);
  }

  return {
    create(label, { description = '', session = NULL_REF, cancellable = false } = {}) {
      void session;
      return world.addObject('task', {
        name_label: label,
        name_description: description,
        created: hostDate(world.clock.now()),
        resident_on: hostRef(),
        status: 'pending',
        type: '<none/>',
        backtrace: '()',
        allowed_operations: cancellable ? ['cancel'] : [],
      });
    },
    run(ref, { cancellable = false } = {}) {
      const controller = new AbortController();
      running.set(ref, controller);
      if (cancellable && world.findObject('task', ref)?.allowed_operations.includes('cancel') === false) {
        world.updateObject('task', ref, { allowed_operations: ['cancel'] });
      }
      let result = '';
      return {
        ref,
        cancelled: controller.signal,
        setProgress(progress) {
          const task = world.findObject('task', ref);
          if (task?.status === 'pending' && task.progress !== progress) world.updateObject('task', ref, { progress });
        },
        setResult(xml) {
          result = xml;
        },
        setOtherConfig(key, value) {
          const task = world.findObject('task', ref);
          if (task !== undefined) {
            world.updateObject('task', ref, { other_config: { ...task.other_config, [key]: value } });
          }
        },
        succeed: (xml = result) => finish(ref, { status: 'success', result: xml }),
        fail(error) {
          if (controller.signal.aborted) {
            finish(ref, { status: 'cancelled', error_info: ['TASK_CANCELLED', ref] });
            return;
          }
          const { code, params } = failureOf(error);
          finish(ref, { status: 'failure', error_info: [code, ...params] });
        },
      };
    },
    cancel(ref) {
      const task = world.getObject('task', ref);
      if (task.status !== 'pending') return;
      world.updateObject('task', ref, { current_operations: { [ref]: 'cancel' } });
      if (task.allowed_operations.includes('cancel')) running.get(ref)?.abort(new XapiFailure('TASK_CANCELLED', [ref]));
    },
    destroy(ref) {
      const task = world.getObject('task', ref);
      if (task.status !== 'pending' || !running.has(ref)) world.removeObject('task', ref);
      else doomed.add(ref);
    },
    forgetAll() {
      for (const [ref] of world.objects('task')) world.forgetObject('task', ref);
    },
  };
}
