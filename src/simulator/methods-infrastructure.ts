import { assertPlugged } from './attach.ts';
import { constructorFields } from './constructors.ts';
import { hostDate } from './host-date.ts';
import { type MethodTable, number, ref, text } from './method.ts';
import { addPurpose, removePurpose } from './network-purpose.ts';
import { XapiFailure } from './world.ts';

/** The pool's own parts: storage, networks, hosts, messages. */
export const infrastructureMethods: MethodTable = {
  'SR.scan': {
    params: 1,
    async run(call, args) {
      const { world } = call;
      const sr = ref(call, 'SR', args, 0);
      assertPlugged(call, sr);
      for (const vdi of world.getObject('SR', sr).VDIs) {
        const image = world.findImage(vdi);
        if (image !== undefined) {
          world.updateObject('VDI', vdi, { physical_utilisation: await image.physicalSize() });
        }
      }
    },
  },
  'SR.update': { params: 1, run: (call, args) => call.world.assertObject('SR', text(args, 0)) },
  'PBD.plug': {
    params: 1,
    run: (call, args) => call.world.updateObject('PBD', ref(call, 'PBD', args, 0), { currently_attached: true }),
  },
  'PBD.unplug': {
    params: 1,
    run: (call, args) => call.world.updateObject('PBD', ref(call, 'PBD', args, 0), { currently_attached: false }),
  },
  'network.create': {
    params: 1,
    run: ({ world }, args) =>
      world.addObject('network', {
        MTU: 1500,
        managed: true,
        bridge: `xapi${[...world.objects('network')].length}`,
        default_locking_mode: 'unlocked',
        ...constructorFields('network', args[0]),
      }),
  },
  'network.destroy': {
    params: 1,
    run(call, args) {
      const network = ref(call, 'network', args, 0);
      const { VIFs, PIFs } = call.world.getObject('network', network);
      if (VIFs.length > 0) throw new XapiFailure('NETWORK_CONTAINS_VIF', VIFs);
      if (PIFs.length > 0) throw new XapiFailure('NETWORK_CONTAINS_PIF', PIFs);
      call.world.removeObject('network', network);
    },
  },
  'network.add_purpose': {
    params: 2,
    run: (call, args) => addPurpose(call.world, ref(call, 'network', args, 0), text(args, 1)),
  },
  'network.remove_purpose': {
    params: 2,
    run: (call, args) => removePurpose(call.world, ref(call, 'network', args, 0), text(args, 1)),
  },
  'host.get_servertime': {
    params: 1,
    syncOnly: true,
    run(call, args) {
      ref(call, 'host', args, 0);
      return hostDate(call.world.clock.now());
    },
  },
  'host.get_server_certificate': {
    params: 1,
    syncOnly: true,
    run(call, args) {
      const host = ref(call, 'host', args, 0);
      return (call.hosts.find((one) => one.ref === host) ?? call).identity.certificate;
    },
  },
  'message.create': {
    params: 5,
    syncOnly: true,
    run({ world }, args) {
      return world.addObject('message', {
        name: text(args, 0),
        priority: number(args, 1),
        cls: text(args, 2),
        obj_uuid: text(args, 3),
        body: text(args, 4),
        timestamp: hostDate(world.clock.now()),
      });
    },
  },
  'message.destroy': {
    params: 1,
    syncOnly: true,
    run(call, args) {
      call.world.removeObject('message', ref(call, 'message', args, 0));
    },
  },
};
