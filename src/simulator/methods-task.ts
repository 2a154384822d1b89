import { type MethodTable, number, ref, text } from './method.ts';
import { XapiFailure } from './world.ts';

/** Tasks: made by clients, cancelled and destroyed by them. */
export const taskMethods: MethodTable = {
  'task.create': {
    params: 2,
    syncOnly: true,
    run: ({ tasks }, args) => tasks.create(text(args, 0), { description: text(args, 1) }),
  },
  'task.cancel': {
    params: 1,
    run(call, args) {
      call.tasks.cancel(ref(call, 'task', args, 0));
    },
  },
  'task.destroy': {
    params: 1,
    syncOnly: true,
    run(call, args) {
      call.tasks.destroy(ref(call, 'task', args, 0));
    },
  },
  'task.set_progress': {
    params: 2,
    syncOnly: true,
    run(call, args) {
      call.world.updateObject('task', ref(call, 'task', args, 0), { progress: number(args, 1) });
    },
  },
  'task.set_status': {
    params: 2,
    syncOnly: true,
    run(call, args) {
      const status = text(args, 1);
      if (!['pending', 'success', 'failure', 'cancelling', 'cancelled'].includes(status)) {
        throw new XapiFailure('INTERNAL_ERROR', [`unknown task status ${status}`]);
      }
      call.world.updateObject('task', ref(call, 'task', args, 0), { status });
    },
  },
};
