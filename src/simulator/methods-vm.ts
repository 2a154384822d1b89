import { constructorFields } from './constructors.ts';
import { type Call, type Method, type MethodTable, number, ref, text, textMap, texts } from './method.ts';
import { checkpointVm } from './vm-checkpoint.ts';
import { assertNotBlocked, assertPowerState, withVmOperation } from './vm-operations.ts';
import { assertMemoryOrder, enter, haltVm, startVm, suspendVm } from './vm-power.ts';
import { quiesceAndSnapshot } from './vm-quiesce.ts';
import { revertVm } from './vm-revert.ts';
import { cloneVm, snapshotVm } from './vm-snapshot.ts';
import { addVm, destroyVm } from './vms.ts';
import { NULL_REF, XapiFailure } from './world.ts';

/** A method on one machine that holds it while it works. */
function operation(
  name: string,
  work: (call: Call, vm: string, args: Parameters<Method['run']>[1]) => unknown,
): Method {
  return {
    params: 1,
    async run(call, args) {
      const vm = ref(call, 'VM', args, 0);
      await withVmOperation(call, vm, name, async () => work(call, vm, args));
    },
  };
}

function shutDown(name: string): Method {
  return operation(name, (call, vm) => {
    assertPowerState(call, vm, ...(name === 'clean_shutdown' ? ['Running'] : ['Paused', 'Running', 'Suspended']));
    haltVm(call, vm);
  });
}

function changeState(name: string, from: string, to: string): Method {
  return operation(name, (call, vm) => {
    assertPowerState(call, vm, from);
    const { resident_on } = call.world.getObject('VM', vm);
    enter(call, vm, to, resident_on === NULL_REF ? call.refs.host : resident_on);
  });
}

/** Sets memory fields and checks their order first. */
function memory(...fields: readonly `memory_${'static' | 'dynamic'}_${'min' | 'max'}`[]): Method {
  return {
    params: 1 + fields.length,
    run(call, args) {
      const vm = ref(call, 'VM', args, 0);
      const before = call.world.getObject('VM', vm);
      const changes = Object.fromEntries(fields.map((field, index) => [field, number(args, index + 1)]));
      call.world.updateObject('VM', vm, changes);
      try {
        assertMemoryOrder(call, vm);
      } catch (error) {
        call.world.updateObject('VM', vm, Object.fromEntries(fields.map((field) => [field, before[field]])));
        throw error;
      }
    },
  };
}

const freePositions = (used: readonly string[], count: number) =>
  Array.from({ length: count }, (_, index) => String(index)).filter((position) => !used.includes(position));

/** Machines: made, copied, run, destroyed. */
export const vmMethods: MethodTable = {
  'VM.create': {
    params: 1,
    run(call, args) {
      const { power_state = 'Halted', ...fields } = constructorFields('VM', args[0]);
      const suspended = power_state === 'Suspended';
      const resumable =
        fields.suspend_VDI !== undefined &&
        fields.suspend_VDI !== NULL_REF &&
        (fields.last_booted_record ?? '') !== '' &&
        fields.last_boot_CPU_flags !== undefined;
      if (suspended && !resumable) throw new XapiFailure('VM_BAD_POWER_STATE', [NULL_REF, 'halted', 'suspended']);
      return addVm(call, { ...fields, power_state: suspended ? power_state : 'Halted' });
    },
  },
  'VM.destroy': operation('destroy', (call, vm) => destroyVm(call, vm)),
  'VM.snapshot': {
    params: 2,
    more: true,
    async run(call, args) {
      const [vm, name] = [ref(call, 'VM', args, 0), text(args, 1)];
      if (args.length > 2 && !call.world.profile.snapshotIgnoreVdis) {
        throw new XapiFailure('MESSAGE_PARAMETER_COUNT_MISMATCH', ['VM.snapshot', '2', String(args.length)]);
      }
      const ignored = args[2] === undefined ? [] : texts(args[2]);
      return withVmOperation(call, vm, 'snapshot', () => snapshotVm(call, vm, name, ignored, call.signal));
    },
  },
  'VM.checkpoint': {
    params: 2,
    async run(call, args) {
      const [vm, name] = [ref(call, 'VM', args, 0), text(args, 1)];
      return withVmOperation(call, vm, 'checkpoint', () => checkpointVm(call, vm, name));
    },
  },
  'VM.snapshot_with_quiesce': {
    params: 2,
    async run(call, args) {
      const [vm, name] = [ref(call, 'VM', args, 0), text(args, 1)];
      if (call.world.profile.quiesce === 'removed') throw new XapiFailure('MESSAGE_REMOVED');
      return withVmOperation(call, vm, 'snapshot_with_quiesce', () => quiesceAndSnapshot(call, vm, name));
    },
  },
  'VM.clone': {
    params: 2,
    async run(call, args) {
      const [vm, name] = [ref(call, 'VM', args, 0), text(args, 1)];
      assertPowerState(call, vm, 'Halted');
      return withVmOperation(call, vm, 'clone', () => cloneVm(call, vm, name, call.signal));
    },
  },
  'VM.copy': {
    params: 3,
    async run(call, args) {
      const [vm, name] = [ref(call, 'VM', args, 0), text(args, 1)];
      assertPowerState(call, vm, 'Halted');
      return withVmOperation(call, vm, 'copy', () => cloneVm(call, vm, name, call.signal));
    },
  },
  'VM.revert': {
    params: 1,
    async run(call, args) {
      await revertVm(call, ref(call, 'VM', args, 0));
    },
  },
  'VM.start': { ...operation('start', (call, vm) => startVm(call, vm)), params: 3 },
  'VM.start_on': { ...operation('start_on', (call, vm) => startVm(call, vm, 'start_on')), params: 4 },
  'VM.clean_shutdown': shutDown('clean_shutdown'),
  'VM.hard_shutdown': shutDown('hard_shutdown'),
  'VM.shutdown': shutDown('shutdown'),
  'VM.pause': changeState('pause', 'Running', 'Paused'),
  'VM.unpause': changeState('unpause', 'Paused', 'Running'),
  'VM.suspend': operation('suspend', (call, vm) => suspendVm(call, vm)),
  'VM.resume': { ...changeState('resume', 'Suspended', 'Running'), params: 3 },
  'VM.assert_can_boot_here': {
    params: 2,
    run(call, args) {
      ref(call, 'host', args, 1);
      assertMemoryOrder(call, ref(call, 'VM', args, 0));
    },
  },
  'VM.assert_operation_valid': {
    params: 2,
    run: (call, args) => assertNotBlocked(call, ref(call, 'VM', args, 0), text(args, 1)),
  },
  'VM.update_allowed_operations': { params: 1, run: (call, args) => call.world.assertObject('VM', text(args, 0)) },
  'VM.set_is_a_template': {
    params: 2,
    syncOnly: true,
    run(call, args) {
      const vm = ref(call, 'VM', args, 0);
      if (typeof args[1] !== 'boolean') throw new XapiFailure('INTERNAL_ERROR', ['bool expected']);
      call.world.updateObject('VM', vm, { is_a_template: args[1] });
    },
  },
  'VM.set_bios_strings': {
    params: 2,
    run(call, args) {
      const [vm, given] = [ref(call, 'VM', args, 0), textMap(args[1])];
      if (Object.keys(call.world.getObject('VM', vm).bios_strings).length > 0) {
        throw new XapiFailure('VM_BIOS_STRINGS_ALREADY_SET');
      }
      for (const [key, value] of Object.entries(given)) {
        if (!/^[\x20-\x7e]+$/.test(value)) throw new XapiFailure('INVALID_VALUE', [key, value]);
      }
      call.world.updateObject('VM', vm, { bios_strings: given });
    },
  },
  'VM.set_memory_limits': memory('memory_static_min', 'memory_static_max', 'memory_dynamic_min', 'memory_dynamic_max'),
  'VM.set_memory_dynamic_range': memory('memory_dynamic_min', 'memory_dynamic_max'),
  'VM.set_memory_static_range': memory('memory_static_min', 'memory_static_max'),
  'VM.get_allowed_VBD_devices': {
    params: 1,
    syncOnly: true,
    run({ world }, args) {
      const { VBDs } = world.getObject('VM', text(args, 0));
      const used = VBDs.map((vbd) => world.getObject('VBD', vbd).userdevice);
      return freePositions(used, 16);
    },
  },
  'VM.get_allowed_VIF_devices': {
    params: 1,
    syncOnly: true,
    run({ world }, args) {
      const { VIFs } = world.getObject('VM', text(args, 0));
      const used = VIFs.map((vif) => world.getObject('VIF', vif).device);
      return freePositions(used, 7);
    },
  },
};
