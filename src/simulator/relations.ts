import type { ClassName } from './data-model.ts';

/** A reference on one side that is a list on the other; the host derives the list from the references. */
interface Relation {
  readonly from: ClassName;
  readonly field: string;
  readonly to: ClassName;
  readonly list: string;
}

const relation = (from: ClassName, field: string, to: ClassName, list: string): Relation => ({ from, field, to, list });

const RELATIONS: readonly Relation[] = [
  relation('VBD', 'VM', 'VM', 'VBDs'),
  relation('VBD', 'VDI', 'VDI', 'VBDs'),
  relation('VIF', 'VM', 'VM', 'VIFs'),
  relation('VIF', 'network', 'network', 'VIFs'),
  relation('VTPM', 'VM', 'VM', 'VTPMs'),
  relation('VUSB', 'VM', 'VM', 'VUSBs'),
  relation('VGPU', 'VM', 'VM', 'VGPUs'),
  relation('console', 'VM', 'VM', 'consoles'),
  relation('VM', 'snapshot_of', 'VM', 'snapshots'),
  relation('VM', 'parent', 'VM', 'children'),
  relation('VM', 'resident_on', 'host', 'resident_VMs'),
  relation('VDI', 'SR', 'SR', 'VDIs'),
  relation('VDI', 'snapshot_of', 'VDI', 'snapshots'),
  relation('PBD', 'SR', 'SR', 'PBDs'),
  relation('PBD', 'host', 'host', 'PBDs'),
  relation('PIF', 'network', 'network', 'PIFs'),
  relation('PIF', 'host', 'host', 'PIFs'),
  relation('task', 'subtask_of', 'task', 'subtasks'),
];

const byClass = Map.groupBy(RELATIONS, ({ from }) => from);

/** The lists that references of this class's objects appear in. */
export function relationsFrom(className: ClassName): readonly Relation[] {
  return byClass.get(className) ?? [];
}
