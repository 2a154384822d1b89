import type { CallOptions } from '../core/index.ts';

/**
 * What a finding says. Stable: match these, not the messages. Each is explained in `docs/preparing-hosts.md`.
 */
export type FindingId =
  | 'check.failed'
  // pool
  | 'pool.version'
  | 'pool.licence'
  | 'pool.leftovers'
  // NBD
  | 'nbd.contradictory'
  | 'nbd.insecure'
  | 'nbd.no-network'
  | 'nbd.no-address'
  | 'nbd.session'
  | 'nbd.port-closed'
  | 'nbd.turned-away'
  | 'nbd.tls-failed'
  | 'nbd.failed'
  | 'nbd.slots'
  // hosts
  | 'host.missing'
  | 'host.certificate'
  | 'host.clock'
  // storage
  | 'sr.detached'
  | 'sr.room'
  // VMs
  | 'vm.missing'
  | 'vm.refused'
  | 'vm.usb'
  | 'vm.suspended'
  | 'vm.tools'
  // disks
  | 'disk.shared'
  | 'disk.resets'
  | 'disk.size'
  | 'disk.large'
  | 'disk.no-snapshot'
  | 'disk.no-tracking'
  | 'disk.chain';

/**
 * `ok`: looked at, and well. `info`: good to know. `warning`: a backup runs, but with less than one might expect, or for
 * not much longer. `error`: what was asked about cannot be done.
 */
export type Severity = 'ok' | 'info' | 'warning' | 'error';

/** What to do about it. */
export interface Fix {
  /** In words. */
  readonly words: string;
  /** Does it, where a call can; nothing is ever changed without this being called. */
  readonly apply?: ((options?: CallOptions) => Promise<void>) | undefined;
}

/** What a finding is about. */
export interface Subject {
  /** What kind of object. */
  readonly kind: 'pool' | 'host' | 'network' | 'sr' | 'vm' | 'disk';
  /** Empty where there is no such object. */
  readonly uuid: string;
  /** As people call it. */
  readonly name: string;
}

/** One thing that was looked at. But for `fix.apply`, plain JSON. */
export interface Finding {
  /** Stable: match it, not the message. */
  readonly id: FindingId;
  /** How bad it is. */
  readonly severity: Severity;
  /** The object that it is about. */
  readonly subject: Subject;
  /** One sentence for people. */
  readonly message: string;
  /** The facts it rests on. */
  readonly evidence: Readonly<Record<string, unknown>>;
  /** What to do about it, where there is something to do. */
  readonly fix?: Fix | undefined;
}

type Named = { readonly uuid: string; readonly name_label: string };

/** A record as the subject of findings. */
export function subjectOf(kind: Subject['kind'], { uuid, name_label: name }: Named): Subject {
  return { kind, uuid, name };
}
