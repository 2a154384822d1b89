import { isPluggedInto } from './network-purpose.ts';
import type { Simulation } from './simulation.ts';
import { type Attachment, XapiFailure } from './world.ts';

/** How the storage manager refuses a disk that is open elsewhere; its parameters are always three. */
function notAvailable(reason: string): XapiFailure {
  return new XapiFailure('SR_BACKEND_FAILURE_46', ['', `The VDI is not available [opterr=${reason}]`, '']);
}

/** The VBDs that hold a disk open at the moment. */
export function attachedVbds({ world }: Pick<Simulation, 'world'>, vdiRef: string): readonly string[] {
  return world.getObject('VDI', vdiRef).VBDs.filter((vbd) => world.findObject('VBD', vbd)?.currently_attached);
}

/** Can a disk be opened in this mode now? Throws the storage manager's answer if not. */
export function assertAttachable({ world }: Pick<Simulation, 'world'>, vdiRef: string, mode: 'RO' | 'RW'): void {
  const vdi = world.getObject('VDI', vdiRef);
  if (vdi.type === 'cbt_metadata') throw new XapiFailure('VDI_INCOMPATIBLE_TYPE', [vdiRef, vdi.type]);
  if (mode === 'RW' && vdi.read_only) throw new XapiFailure('VDI_READONLY', [vdiRef]);
  assertPlugged({ world }, vdi.SR);
  for (const vbd of attachedVbds({ world }, vdiRef)) {
    const other = world.getObject('VBD', vbd).mode;
    if (!vdi.sharable && (mode === 'RW' || other === 'RW'))
      throw notAvailable(`VDI ${vdi.uuid} already attached ${other}`);
  }
}

/** Throws unless the SR is attached to a host. */
export function assertPlugged({ world }: Pick<Simulation, 'world'>, srRef: string): void {
  const { PBDs } = world.getObject('SR', srRef);
  if (PBDs.length === 0) throw new XapiFailure('SR_HAS_NO_PBDS', [srRef]);
  if (!PBDs.some((pbd) => world.findObject('PBD', pbd)?.currently_attached)) {
    throw new XapiFailure('SR_NOT_ATTACHED', [srRef]);
  }
}

/** What the control domain holds, and when it will have let go. */
export interface ControlDomainAttachment extends Attachment {
  /** Resolves when the record has gone, some time after `detach`. */
  readonly gone: Promise<void>;
}

/** Gives a disk to the control domain, as transfers and NBD connections do. */
export async function attachToControlDomain(
  simulation: Simulation,
  vdiRef: string,
  mode: 'RO' | 'RW',
): Promise<ControlDomainAttachment> {
  const { world, refs, timing } = simulation;
  const busy = world.faults.take('vdi-in-use', fitsAttach(world.getObject('VDI', vdiRef).uuid, vdiRef));
  if (busy !== undefined) throw new XapiFailure('VDI_IN_USE', [vdiRef, 'attach']);
  assertAttachable(simulation, vdiRef, mode);
  const { SR } = world.getObject('VDI', vdiRef);
  if (!isPluggedInto(world, refs.host, SR)) throw new XapiFailure('SR_NOT_ATTACHED', [SR]);
  const image = world.image(vdiRef);
  const taken = world.getObject('VM', refs.controlDomain).VBDs.map((vbd) => world.getObject('VBD', vbd).userdevice);
  let position = 0;
  while (taken.includes(String(position))) position++;
  const vbdRef = world.addObject('VBD', {
    VM: refs.controlDomain,
    VDI: vdiRef,
    userdevice: String(position),
    device: `sm/backend/${position}`,
    mode,
    type: 'Disk',
    currently_attached: true,
    other_config: {},
  });
  let detached = false;
  const gone = Promise.withResolvers<void>();
  const detach = async () => {
    if (detached) return;
    detached = true;
    simulation.inBackground(async (closing) => {
      try {
        await world.clock.sleep(timing.settleMs, { signal: closing });
      } finally {
        if (world.findObject('VBD', vbdRef) !== undefined) {
          world.updateObject('VBD', vbdRef, { currently_attached: false });
          world.removeObject('VBD', vbdRef);
        }
        gone.resolve();
      }
    });
  };
  return { vbdRef, vdiRef, image, detach, gone: gone.promise, [Symbol.asyncDispose]: detach };
}

/** Does a `vdi-in-use` fault speak of attaching this disk? */
function fitsAttach(uuid: string, ref: string) {
  return ({ vdi, operation = 'attach' }: { readonly vdi?: string; readonly operation?: string }) =>
    operation === 'attach' && (vdi === undefined || vdi === uuid || vdi === ref);
}
