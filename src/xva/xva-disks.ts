import { FormatError } from '../core/index.ts';
import type { XvaCompression } from './constants.ts';
import { type OvaMetadata, type OvaObject, objectsOf } from './ova-xml.ts';
import { isTrue, numberOf, textOf } from './record-fields.ts';

/** A disk whose data an archive holds, as its `ova.xml` describes it. */
export interface XvaDisk {
  /** `Ref:<n>`: its name in this archive. */
  readonly id: string;
  /** Virtual size, in bytes. */
  readonly size: number;
  /** Of the source. A host gives imported disks new ones: they are matched by `device`. */
  readonly vdiUuid: string;
  /** As the source disk was called. */
  readonly name: string;
  /** The position at which the VM has it, `userdevice`; empty for a suspended VM's memory. */
  readonly device: string;
  /** Does the VM boot from it? */
  readonly bootable: boolean;
  /** `user`, `system`, `suspend` … */
  readonly type: string;
}

/** What the head of an archive tells. */
export interface XvaHead {
  /** The whole of `ova.xml`. */
  readonly metadata: OvaMetadata;
  /** How the archive is compressed. */
  readonly compression: XvaCompression;
  /** Those that should have data, in the order in which it comes. */
  readonly disks: readonly XvaDisk[];
}

/**
 * The disks whose data follows, in the order of their ids as text: those of VBDs that are no CD drive, unless they lie
 * on an ISO storage, and the memory of a suspended VM. It is the rule by which hosts import. Source: xen-api
 * `ocaml/xapi/import.ml` (`non_cdrom_vdis`), `stream_vdi.ml` (`vdi_ordering`).
 *
 * @throws FormatError `XVA_METADATA` for a disk without a size, or two of one id.
 */
export function xvaDisks(metadata: OvaMetadata): XvaDisk[] {
  const isoStorage = new Set(
    objectsOf(metadata, 'SR')
      .filter(({ snapshot }) => snapshot['content_type'] === 'iso')
      .map(({ id }) => id),
  );
  const attachments = new Map<string, OvaObject>();
  for (const vbd of objectsOf(metadata, 'VBD')) {
    const vdi = textOf(vbd, 'VDI');
    if (vbd.snapshot['type'] !== 'CD' && !attachments.has(vdi)) attachments.set(vdi, vbd);
  }
  const disks = objectsOf(metadata, 'VDI')
    .filter((vdi) => {
      const attached = attachments.has(vdi.id) && !isoStorage.has(textOf(vdi, 'SR'));
      return attached || vdi.snapshot['type'] === 'suspend';
    })
    .map((vdi) => diskOf(vdi, attachments.get(vdi.id)));
  disks.sort((a, b) => (a.id < b.id ? -1 : 1));
  const twice = disks.find(({ id }, index) => disks[index + 1]?.id === id);
  if (twice !== undefined) throw wrong(`VDI ${twice.id}`, 'one record', 'two');
  return disks;
}

function diskOf(vdi: OvaObject, vbd: OvaObject | undefined): XvaDisk {
  const size = numberOf(vdi, 'virtual_size');
  if (size === undefined || size === 0) {
    throw wrong(`VDI ${vdi.id}: virtual_size`, 'a number of bytes', String(vdi.snapshot['virtual_size']));
  }
  return {
    id: vdi.id,
    size,
    vdiUuid: textOf(vdi, 'uuid'),
    name: textOf(vdi, 'name_label'),
    device: vbd === undefined ? '' : textOf(vbd, 'userdevice'),
    bootable: vbd !== undefined && isTrue(vbd, 'bootable'),
    type: textOf(vdi, 'type'),
  };
}

function wrong(what: string, expected: string, actual: string): FormatError {
  return new FormatError('XVA_METADATA', { what: `ova.xml: ${what}`, offset: 0, expected, actual });
}
