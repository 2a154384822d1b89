import { Coverage } from './coverage.ts';

/** A run as a metadata context describes it, in bytes and with the context's flags. */
export interface StatusExtent {
  readonly length: number;
  readonly flags: number;
}

/** What is asked of the server. */
export interface Command {
  readonly type: number;
  readonly flags: number;
  /** In bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
  /** Where a READ lands: `length` bytes. */
  readonly target?: Uint8Array | undefined;
  /** What a BLOCK_STATUS is to tell: the name of a metadata context that was agreed on. */
  readonly context?: string | undefined;
  /** What a WRITE sends: `length` bytes. */
  readonly data?: Uint8Array | undefined;
}

/** A run of a disk as a metadata context describes it. */
export interface NbdContextExtent {
  /** In bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
  /** 32 bits, which mean what the context says. */
  readonly flags: number;
}

/** How much data travels with a command, in bytes: none where the server is only asked about a range, or told of one. */
export function dataLength({ target, data }: Command): number {
  return (target ?? data)?.byteLength ?? 0;
}

/** The server's refusal of one request; the connection lives on. */
export class RequestRefused extends Error {
  override readonly name = 'RequestRefused';
  /** The protocol's error number. */
  readonly errno: number;

  constructor(errno: number, detail: string) {
    super(detail);
    this.errno = errno;
  }
}

/** A command in flight, and what has come of its reply. */
export class PendingCommand {
  readonly command: Command;
  readonly coverage: Coverage;
  readonly #settled = Promise.withResolvers<readonly StatusExtent[]>();
  #abandoned = false;
  #landing = false;
  #whenLanded: PromiseWithResolvers<void> | undefined;
  errno: number | undefined;
  errorText = '';
  extents: readonly StatusExtent[] = [];

  constructor(command: Command) {
    this.command = command;
    this.coverage = new Coverage(command.length);
  }

  /** Resolves with the extents of a BLOCK_STATUS, with nothing for all else. */
  get settled(): Promise<readonly StatusExtent[]> {
    return this.#settled.promise;
  }

  succeed(): void {
    this.#settled.resolve(this.extents);
  }

  fail(error: Error): void {
    this.#settled.reject(error);
    this.landed();
  }

  /** Where `length` bytes of the answer go, from `at` within it; `undefined` once nobody wants them. */
  land(at: number, length: number): Uint8Array | undefined {
    if (this.#abandoned) return undefined;
    this.#landing = true;
    return this.command.target!.subarray(at, at + length);
  }

  landed(): void {
    this.#landing = false;
    this.#whenLanded?.resolve();
    this.#whenLanded = undefined;
  }

  /** Gives the answer up, as often as one likes; resolves when nothing more will be written to the target. */
  async abandon(): Promise<void> {
    this.#abandoned = true;
    if (!this.#landing) return;
    this.#whenLanded ??= Promise.withResolvers();
    await this.#whenLanded.promise;
  }

  get abandoned(): boolean {
    return this.#abandoned;
  }
}
