import type { Duplex } from 'node:stream';
import type { Clock } from '../core/index.ts';
import type { ClassName, RecordOf } from './data-model.ts';
import type { Faults } from './faults.ts';
import type { Image } from './image.ts';
import type { Profile } from './profiles.ts';

export type { ClassName, RecordOf } from './data-model.ts';
export type { Faults } from './faults.ts';
export type { Image, ImageNode } from './image.ts';
export type { Profile } from './profiles.ts';

/** The reference that points to nothing. */
export const NULL_REF = 'OpaqueRef:NULL';

/** What the host says no with: its own code, and parameters that are always strings. */
export class XapiFailure extends Error {
  /** For example `VDI_IN_USE`. */
  readonly code: string;
  readonly params: readonly string[];

  constructor(code: string, params: readonly string[] = [], options?: ErrorOptions) {
    super(`${code}(${params.join(', ')})`, options);
    this.name = 'XapiFailure';
    this.code = code;
    this.params = params;
  }
}

/** Tools in a guest: none, those that tell about it, or those that can also get it ready for a snapshot (VSS). */
export type GuestTools = 'none' | 'basic' | 'vss';

/** The whole state of the pool: tables of records by class and reference. Every change becomes an event. */
export interface World {
  /** Which release it plays. */
  readonly profile: Profile;
  /** What time it is. */
  readonly clock: Clock;
  /** What is to go wrong. */
  readonly faults: Faults;
  /** Where files of the simulator go; removed with everything in it when the simulator closes. */
  readonly directory: string;

  /**
   * Makes an object; fields left out take the data model's defaults, `uuid` a random one.
   * @returns its reference, random unless given
   */
  addObject<C extends ClassName>(className: C, fields: Partial<RecordOf<C>>, ref?: string): string;
  /** Sets fields of an object. Throws `HANDLE_INVALID` if it is gone. */
  updateObject<C extends ClassName>(className: C, ref: string, changes: Partial<RecordOf<C>>): void;
  /** Takes an object away; nothing happens if it is gone. */
  removeObject(className: ClassName, ref: string): void;

  /** Takes an object away without an event, as a restart of the toolstack does with tasks. */
  forgetObject(className: ClassName, ref: string): void;

  /** The record as it is now; never change it in place. Throws `HANDLE_INVALID` if there is none. */
  getObject<C extends ClassName>(className: C, ref: string): Readonly<RecordOf<C>>;
  /** The same, or `undefined`. */
  findObject<C extends ClassName>(className: C, ref: string): Readonly<RecordOf<C>> | undefined;
  /** The reference of the object with this uuid. Throws `UUID_INVALID` if there is none. */
  refByUuid(className: ClassName, uuid: string): string;
  /** What handlers take in a query: a reference or a uuid. Throws `HANDLE_INVALID` if it is neither. */
  refByRefOrUuid(className: ClassName, text: string): string;
  /** All objects of a class, oldest first. */
  objects<C extends ClassName>(className: C): Iterable<readonly [ref: string, record: Readonly<RecordOf<C>>]>;
  /** Throws `HANDLE_INVALID` unless the object exists. */
  assertObject(className: ClassName, ref: string): void;

  /** The content of a disk. Throws `VDI_MISSING` if it has none (ISO, `cbt_metadata`). */
  image(vdiRef: string): Image;
  /** The same, or `undefined`. */
  findImage(vdiRef: string): Image | undefined;
  /** Puts content under a disk's record, or takes it away; does not destroy what was there. */
  setImage(vdiRef: string, image: Image | undefined): void;
  /** A new disk content of zeros, as `VDI.create` makes one; `size` in bytes. */
  createImage(size: number): Promise<Image>;

  /** What is installed in a machine's guest, by the machine's reference; `basic` where nothing is said. */
  readonly guestTools: Map<string, GuestTools>;

  /** The state of virtual TPMs (base64 text) by their reference; one that was never used has none. */
  readonly tpmContents: Map<string, string>;

  /** Counts every change; a newer object has a higher number. */
  readonly generation: number;
  /** Changes since a generation number, for `event.from`. */
  changesSince(generation: number): readonly Change[];
  /** Resolves at the next change after `generation`, or rejects with the signal's reason. */
  nextChange(generation: number, signal?: AbortSignal): Promise<void>;
  /** Marks an object as changed without changing it, and gives the generation number: `event.inject`. */
  touch(className: ClassName, ref: string): number;
}

/** The last thing that happened to an object. */
export interface Change {
  readonly className: ClassName;
  readonly ref: string;
  readonly generation: number;
  /** When it was made. */
  readonly created: number;
  /** Is it gone? */
  readonly deleted: boolean;
}

/** A disk in the control domain's hands: a VBD record as long as it lasts. */
export interface Attachment extends AsyncDisposable {
  readonly vbdRef: string;
  readonly vdiRef: string;
  readonly image: Image;
  /** Lets go: returns at once, but the record stays a moment, as on real hosts (`VDI_IN_USE`). */
  detach(): Promise<void>;
}

/** A task that a handler has adopted: the client's (`task_id`), or one that is destroyed at the end. */
export interface HandlerTask {
  readonly ref: string;
  /** 0 to 1. */
  setProgress(progress: number): void;
  /** What a successful end will report, as XML-RPC text; see `xmlRpcText`. Default: empty. */
  setResult(xml: string): void;
  /** Sets one key of the task's `other_config`. */
  setOtherConfig(key: string, value: string): void;
  /** Fires when the client cancels the task; the reason is a `XapiFailure` TASK_CANCELLED. */
  readonly cancelled: AbortSignal;
}

/** Throw it for an answer other than 200 or 500 before the head is sent, for example 404. */
export class HttpRefusal extends Error {
  readonly status: number;
  /** Fails the adopted task with this, if there is one. */
  readonly failure: XapiFailure | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, failure?: XapiFailure, headers: Readonly<Record<string, string>> = {}) {
    super(`HTTP ${status}${failure === undefined ? '' : `: ${failure.message}`}`, { cause: failure });
    this.name = 'HttpRefusal';
    this.status = status;
    this.failure = failure;
    this.headers = headers;
  }
}

/**
 * One HTTP transfer. The framework has checked the credentials; the handler then
 *
 * 1. looks at its parameters: what it throws now is a bare 500 and leaves the client's task pending for ever, as
 *    on real hosts;
 * 2. calls `adoptTask`: from here on the task fails with what the handler throws;
 * 3. calls `sendHead(200, …)` before the work: what it throws from here on is appended to the body as a second
 *    complete `HTTP/1.1 500 Internal Error` response;
 * 4. reads `body` or calls `write`, and returns: the task succeeds, the connection is closed.
 */
export interface HandlerContext {
  readonly world: World;
  readonly faults: Faults;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** The last of each name wins. Cookies are merged in for names that the query does not have. */
  readonly query: ReadonlyMap<string, string>;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** The reference of the caller's session. */
  readonly session: string;
  /** `Content-Length`, in bytes; a `Transfer-Encoding` must be refused by the handler (`transferEncoding`). */
  readonly contentLength: number | undefined;
  readonly transferEncoding: string | undefined;
  /** The request's body, up to `Content-Length`. Ends early if the client goes. */
  readonly body: AsyncIterable<Uint8Array>;
  /** The connection itself, for what `write` cannot do (destroy it in the middle, for example). */
  readonly socket: Duplex;
  /** Fires when the client has gone, the task is cancelled or the simulator closes. */
  readonly signal: AbortSignal;
  /** `task_id` if it names a pending task, else a task of the handler's own, named in the `task-id` header. */
  adoptTask(label: string): HandlerTask;
  /** Writes status line and headers; adds `task-id`, `connection: close` and `Server`. */
  sendHead(status: number, headers: Readonly<Record<string, string>>, options?: { httpVersion?: '1.0' | '1.1' }): void;
  /** Writes to the body, waiting while the client is slow. Applies the faults `export-cut` and `stall`. */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * Gives a disk to the control domain. Throws what the host throws: `VDI_INCOMPATIBLE_TYPE`, `VDI_IN_USE`,
   * `VDI_READONLY`, `SR_BACKEND_FAILURE_46` …
   */
  attachVdi(vdiRef: string, mode: 'RO' | 'RW'): Promise<Attachment>;
}

/** Serves one method and path; registered in `handlers.ts`. */
export type Handler = (context: HandlerContext) => Promise<void>;

/** For example `['GET /export_raw_vdi', exportRawVdi]`. */
export type HandlerTable = ReadonlyMap<string, Handler>;
