import { type World, XapiFailure } from './world.ts';

/**
 * Throws the storage manager's answer where thick storage (LVM) has no room for so many bytes more. There a disk takes its
 * whole size, and what is frozen below it only what it holds.
 *
 * @see xapi-project/sm `drivers/LVHDSR.py` `_ensureSpaceAvailable`
 */
export function assertRoom(world: World, srRef: string, bytes: number): void {
  const { type, physical_size } = world.getObject('SR', srRef);
  if (!type.startsWith('lvm')) return;
  let used = 0;
  for (const [, vdi] of world.objects('VDI')) {
    if (vdi.SR !== srRef) continue;
    used += vdi.managed && !vdi.is_a_snapshot ? vdi.virtual_size : vdi.physical_utilisation;
  }
  if (used + bytes <= physical_size) return;
  throw new XapiFailure('SR_BACKEND_FAILURE_44', ['', 'There is insufficient space', '']);
}
