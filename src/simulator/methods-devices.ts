import { assertAttachable } from './attach.ts';
import { constructorFields } from './constructors.ts';
import { deriveMac, isMac } from './mac.ts';
import { type Call, type MethodTable, ref, text } from './method.ts';
import { NULL_REF, XapiFailure } from './world.ts';

/** What hangs on machines: disks' attachments, interfaces, TPMs. */
export const deviceMethods: MethodTable = {
  'VBD.create': { params: 1, run: (call, args) => createVbd(call, constructorFields('VBD', args[0])) },
  'VBD.destroy': {
    params: 1,
    run(call, args) {
      const vbd = ref(call, 'VBD', args, 0);
      const { currently_attached, uuid, VM } = call.world.getObject('VBD', vbd);
      if (currently_attached) {
        const machine = call.world.findObject('VM', VM)?.uuid ?? VM;
        throw new XapiFailure('OPERATION_NOT_ALLOWED', [`VBD '${uuid}' still attached to '${machine}'`]);
      }
      call.world.removeObject('VBD', vbd);
    },
  },
  'VBD.plug': {
    params: 1,
    run(call, args) {
      const vbd = ref(call, 'VBD', args, 0);
      const { VM, VDI, mode, currently_attached } = call.world.getObject('VBD', vbd);
      const { power_state } = call.world.getObject('VM', VM);
      if (power_state !== 'Running') {
        throw new XapiFailure('VM_BAD_POWER_STATE', [VM, 'running', power_state.toLowerCase()]);
      }
      if (currently_attached) throw new XapiFailure('DEVICE_ALREADY_ATTACHED', [vbd]);
      if (VDI !== NULL_REF) assertAttachable(call, VDI, mode === 'RW' ? 'RW' : 'RO');
      call.world.updateObject('VBD', vbd, { currently_attached: true, device: 'xvdp' });
    },
  },
  'VBD.unplug': {
    params: 1,
    run(call, args) {
      const vbd = ref(call, 'VBD', args, 0);
      const { currently_attached, unpluggable } = call.world.getObject('VBD', vbd);
      if (!currently_attached) throw new XapiFailure('DEVICE_ALREADY_DETACHED', [vbd]);
      if (!unpluggable) throw new XapiFailure('VBD_NOT_UNPLUGGABLE', [vbd]);
      call.world.updateObject('VBD', vbd, { currently_attached: false });
    },
  },
  'VBD.insert': {
    params: 2,
    run(call, args) {
      const [vbd, vdi] = [ref(call, 'VBD', args, 0), ref(call, 'VDI', args, 1)];
      const { empty } = call.world.getObject('VBD', vbd);
      if (!empty) throw new XapiFailure('VBD_NOT_EMPTY', [vbd]);
      call.world.updateObject('VBD', vbd, { VDI: vdi, empty: false });
    },
  },
  'VBD.eject': {
    params: 1,
    run(call, args) {
      const vbd = ref(call, 'VBD', args, 0);
      if (call.world.getObject('VBD', vbd).empty) throw new XapiFailure('VBD_IS_EMPTY', [vbd]);
      call.world.updateObject('VBD', vbd, { VDI: NULL_REF, empty: true });
    },
  },
  'VIF.create': { params: 1, run: (call, args) => createVif(call, constructorFields('VIF', args[0])) },
  'VIF.destroy': {
    params: 1,
    run(call, args) {
      const vif = ref(call, 'VIF', args, 0);
      if (call.world.getObject('VIF', vif).currently_attached) {
        throw new XapiFailure('OPERATION_NOT_ALLOWED', [`VIF '${vif}' still attached`]);
      }
      call.world.removeObject('VIF', vif);
    },
  },
  'VTPM.create': {
    params: 2,
    run(call, args) {
      const vm = ref(call, 'VM', args, 0);
      const restrictions = call.world.getObject('pool', call.refs.pool).restrictions;
      if (restrictions['restrict_vtpm'] !== 'false') throw new XapiFailure('FEATURE_RESTRICTED', ['VTPM']);
      const { power_state, VTPMs } = call.world.getObject('VM', vm);
      if (power_state !== 'Halted')
        throw new XapiFailure('VM_BAD_POWER_STATE', [vm, 'halted', power_state.toLowerCase()]);
      if (VTPMs.length > 0) throw new XapiFailure('VTPM_MAX_AMOUNT_REACHED', ['1']);
      if (typeof args[1] !== 'boolean') throw new XapiFailure('INTERNAL_ERROR', ['bool expected']);
      return call.world.addObject('VTPM', { VM: vm, is_unique: args[1], persistence_backend: 'xapi' });
    },
  },
  'VTPM.destroy': {
    params: 1,
    run(call, args) {
      const vtpm = ref(call, 'VTPM', args, 0);
      call.world.tpmContents.delete(vtpm);
      call.world.removeObject('VTPM', vtpm);
    },
  },
  'VTPM.get_contents': {
    params: 1,
    syncOnly: true,
    run(call, args) {
      const contents = call.world.tpmContents.get(ref(call, 'VTPM', args, 0));
      // A TPM that no guest ever used has none, and the host trips over it.
      if (contents === undefined) throw new XapiFailure('INTERNAL_ERROR', ['Not_found']);
      return contents;
    },
  },
  'VTPM.set_contents': {
    params: 2,
    syncOnly: true,
    run(call, args) {
      call.world.tpmContents.set(ref(call, 'VTPM', args, 0), text(args, 1));
    },
  },
};

type VbdFields = ReturnType<typeof constructorFields<'VBD'>>;
type VifFields = ReturnType<typeof constructorFields<'VIF'>>;

function createVbd({ world }: Call, fields: VbdFields): string {
  const { VM = NULL_REF, VDI = NULL_REF, type = 'Disk', mode = 'RW', empty = false, userdevice = '' } = fields;
  const vm = world.getObject('VM', VM);
  if (type === 'CD' && mode !== 'RO') throw new XapiFailure('VBD_CDS_MUST_BE_READONLY');
  if (empty && type !== 'CD') throw new XapiFailure('VBD_NOT_REMOVABLE_MEDIA', ['in constructor']);
  if (!empty) {
    const vdi = world.getObject('VDI', VDI);
    if (vdi.type === 'cbt_metadata') throw new XapiFailure('VDI_INCOMPATIBLE_TYPE', [VDI, vdi.type]);
    if (mode === 'RW' && vdi.read_only) throw new XapiFailure('VDI_READONLY', [VDI]);
  }
  const used = vm.VBDs.map((vbd) => world.getObject('VBD', vbd).userdevice);
  const free = Array.from({ length: 255 }, (_, index) => String(index)).find((position) => !used.includes(position));
  const position = userdevice === 'autodetect' ? free! : userdevice;
  if (!/^(\d{1,3}|(xvd|hd|sd)[a-z]{1,2})$/.test(position)) throw new XapiFailure('INVALID_DEVICE', [position]);
  if (used.includes(position)) throw new XapiFailure('DEVICE_ALREADY_EXISTS', [position]);
  return world.addObject('VBD', {
    ...fields,
    userdevice: position,
    VDI: empty ? NULL_REF : VDI,
    device: vm.power_state === 'Suspended' ? (fields.device ?? '') : '',
    currently_attached: vm.power_state === 'Suspended' && (fields.currently_attached ?? false),
    allowed_operations: ['attach', 'unpause', 'pause'],
  });
}

function createVif({ world }: Call, fields: VifFields): string {
  const { VM = NULL_REF, network = NULL_REF, device = '', MAC = '' } = fields;
  const vm = world.getObject('VM', VM);
  world.assertObject('network', network);
  if (!/^\d{1,2}$/.test(device)) throw new XapiFailure('INVALID_DEVICE', [device]);
  if (vm.VIFs.some((vif) => world.getObject('VIF', vif).device === device)) {
    throw new XapiFailure('DEVICE_ALREADY_EXISTS', [device]);
  }
  const seed = vm.other_config['mac_seed'];
  const derived = MAC === '' && seed !== undefined;
  const address = derived ? deriveMac(seed, Number(device)) : MAC;
  if (!isMac(address)) throw new XapiFailure('MAC_INVALID', [MAC]);
  return world.addObject('VIF', {
    locking_mode: 'network_default',
    ...fields,
    MAC: address.toLowerCase(),
    MAC_autogenerated: derived,
    currently_attached: false,
    allowed_operations: ['attach'],
  });
}
