import type { XapiValue } from './field-spec.ts';
import { type Call, type Method, type MethodTable, text } from './method.ts';
import type { Simulation } from './simulation.ts';
import type { RunningTask } from './tasks.ts';
import { XapiFailure } from './world.ts';
import { xmlRpcText } from './xml-rpc-text.ts';

/** Runs one call, whatever envelope it came in. Throws {@link XapiFailure} only, or the signal's reason. */
export type Dispatch = (method: string, params: readonly XapiValue[], signal: AbortSignal) => Promise<XapiValue>;

/** Calls go to the methods of the table; `Async.` calls run in a task. */
export function createDispatch(simulation: Simulation, methods: MethodTable): Dispatch {
  const { world, sessions, tasks } = simulation;

  async function run(method: Method, name: string, call: Call, args: readonly XapiValue[]): Promise<XapiValue> {
    const fault = world.faults.take('call-error', (options) => options.method === name);
    if (fault !== undefined) throw new XapiFailure(fault.code, fault.params ?? []);
    return (await method.run(call, args)) ?? '';
  }

  function startTask(method: Method, name: string, session: string, args: readonly XapiValue[]): string {
    const ref = tasks.create(`Async.${name}`, { session, cancellable: true });
    const task = tasks.run(ref, { cancellable: true });
    simulation.inBackground(async (closing) => {
      const signal = AbortSignal.any([closing, task.cancelled]);
      const call: Call = { ...simulation, session, task, signal };
      await settle(task, () => run(method, name, call, args));
    });
    return ref;
  }

  return async (name, params, signal) => {
    const asynchronous = name.startsWith('Async.');
    const plainName = asynchronous ? name.slice('Async.'.length) : name;
    const method = Object.hasOwn(methods, plainName) ? methods[plainName] : undefined;
    if (method === undefined || (asynchronous && method.syncOnly === true)) {
      throw new XapiFailure('MESSAGE_METHOD_UNKNOWN', [name]);
    }
    const args = method.open === true ? params : params.slice(1);
    const given = method.open === true ? params.length : params.length - 1;
    if (given < method.params || (given > method.params && method.more !== true)) {
      throw new XapiFailure('MESSAGE_PARAMETER_COUNT_MISMATCH', [name, String(method.params), String(given)]);
    }
    if (method.open === true)
      return run(method, plainName, { ...simulation, session: '', task: undefined, signal }, args);
    const session = text(params, 0);
    const lost = world.faults.take(
      'session-lost',
      (options) => options.method === undefined || options.method === name,
    );
    if (lost !== undefined) sessions.logOut(session);
    sessions.check(session);
    if (asynchronous) return startTask(method, plainName, session, args);
    return run(method, plainName, { ...simulation, session, task: undefined, signal }, args);
  };
}

async function settle(task: RunningTask, work: () => Promise<XapiValue>): Promise<void> {
  try {
    const result = await work();
    task.succeed(result === '' ? '' : xmlRpcText(result));
  } catch (error) {
    task.fail(error); // the task carries it to the client
  }
}
