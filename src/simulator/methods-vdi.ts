import { changedBlocks, destroyData, setChangeTracking } from './cbt.ts';
import { constructorFields } from './constructors.ts';
import { cloneDisk, createDisk, destroyDisk, type NewVdi, resizeDisk, snapshotDisk } from './disks.ts';
import { bool, type MethodTable, number, optionalText, ref, text } from './method.ts';
import { nbdInfo } from './nbd-info.ts';
import { storageCan } from './storage-drivers.ts';
import { assertRoom } from './storage-room.ts';
import { assertVdiOperation } from './vdi-checks.ts';
import { NULL_REF, XapiFailure } from './world.ts';

/** Disks: made, copied, tracked, destroyed. */
export const vdiMethods: MethodTable = {
  'VDI.create': {
    params: 1,
    async run(call, args) {
      const fields = constructorFields('VDI', args[0]) as NewVdi;
      const { type } = call.world.getObject('SR', fields.SR);
      if (fields.type === 'cbt_metadata') throw new XapiFailure('INVALID_VALUE', ['type', 'cbt_metadata']);
      if (!storageCan(type, 'VDI_CREATE')) throw new XapiFailure('SR_OPERATION_NOT_SUPPORTED', [fields.SR]);
      assertRoom(call.world, fields.SR, fields.virtual_size);
      return createDisk(call, fields);
    },
  },
  'VDI.destroy': {
    params: 1,
    run: (call, args) => destroyDisk(call, ref(call, 'VDI', args, 0)),
  },
  'VDI.snapshot': {
    params: 1,
    more: true,
    run: (call, args) => snapshotDisk(call, ref(call, 'VDI', args, 0)),
  },
  'VDI.clone': {
    params: 1,
    more: true,
    run: (call, args) => cloneDisk(call, ref(call, 'VDI', args, 0)),
  },
  'VDI.copy': {
    params: 2,
    more: true,
    async run(call, args) {
      const source = ref(call, 'VDI', args, 0);
      assertVdiOperation(call, source, 'copy');
      const sr = text(args, 1) === NULL_REF ? call.world.getObject('VDI', source).SR : ref(call, 'SR', args, 1);
      const into = optionalText(args, 3, NULL_REF);
      const image = call.world.image(source);
      if (into !== NULL_REF) throw new XapiFailure('NOT_IMPLEMENTED', ['VDI.copy into_vdi']);
      const { name_label, name_description, virtual_size, type, other_config } = call.world.getObject('VDI', source);
      const fields = { SR: sr, name_label, name_description, virtual_size, type, other_config };
      return createDisk(call, fields, await image.clone());
    },
  },
  'VDI.resize': {
    params: 2,
    run: (call, args) => resizeDisk(call, ref(call, 'VDI', args, 0), number(args, 1)),
  },
  'VDI.resize_online': {
    params: 2,
    run() {
      throw new XapiFailure('MESSAGE_REMOVED');
    },
  },
  'VDI.enable_cbt': {
    params: 1,
    run: (call, args) => setChangeTracking(call, ref(call, 'VDI', args, 0), true),
  },
  'VDI.disable_cbt': {
    params: 1,
    run: (call, args) => setChangeTracking(call, ref(call, 'VDI', args, 0), false),
  },
  'VDI.list_changed_blocks': {
    params: 2,
    run(call, args) {
      const blocks = changedBlocks(call, ref(call, 'VDI', args, 0), ref(call, 'VDI', args, 1));
      return Buffer.from(blocks).toString('base64');
    },
  },
  'VDI.data_destroy': {
    params: 1,
    run: (call, args) => destroyData(call, ref(call, 'VDI', args, 0), call.signal),
  },
  'VDI.get_nbd_info': {
    params: 1,
    syncOnly: true,
    run: (call, args) => nbdInfo(call, ref(call, 'VDI', args, 0), call.session),
  },
  'VDI.pool_migrate': {
    params: 3,
    run(call, args) {
      const vdi = ref(call, 'VDI', args, 0);
      if (call.world.getObject('VDI', vdi).cbt_enabled) throw new XapiFailure('VDI_CBT_ENABLED', [vdi]);
      throw new XapiFailure('NOT_IMPLEMENTED', ['VDI.pool_migrate']);
    },
  },
  'VDI.set_read_only': {
    params: 2,
    run(call, args) {
      call.world.updateObject('VDI', ref(call, 'VDI', args, 0), { read_only: bool(args, 1) });
    },
  },
  'VDI.update': { params: 1, run: (call, args) => call.world.assertObject('VDI', text(args, 0)) },
  'VDI.forget': {
    params: 1,
    run: (call, args) => call.world.removeObject('VDI', ref(call, 'VDI', args, 0)),
  },
};
