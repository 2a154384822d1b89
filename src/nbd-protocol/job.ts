import type { Command, StatusExtent } from './command.ts';

/** Who waits for a command's outcome. */
export interface JobOwner {
  done(extents: readonly StatusExtent[]): void;
  failed(error: Error): void;
}

/** A command that waits for a connection, or is on one, and what has befallen it so far. */
export class Job {
  command: Command;
  /** Connections that were lost with this in flight. */
  losses = 0;
  /** Answers with an error that may pass. */
  failures = 0;
  readonly #owner: JobOwner;
  readonly #whole: Job | undefined;
  #cancelled = false;

  constructor(command: Command, owner: JobOwner, whole?: Job) {
    this.command = command;
    this.#owner = owner;
    this.#whole = whole;
  }

  /** Nobody wants the outcome any more. */
  get cancelled(): boolean {
    return this.#cancelled || this.#whole?.cancelled === true;
  }

  cancel(): void {
    this.#cancelled = true;
  }

  done(extents: readonly StatusExtent[]): void {
    this.#owner.done(extents);
  }

  failed(error: Error): void {
    this.#owner.failed(error);
  }
}

/**
 * Two jobs for the halves of a read, at least `alignment` bytes each; the first failure of either is the whole's.
 * `undefined` when it cannot be halved.
 */
export function halve(job: Job, alignment: number): readonly [Job, Job] | undefined {
  const { offset, length, target } = job.command;
  const middle = Math.ceil(length / 2 / alignment) * alignment;
  if (target === undefined || middle >= length) return undefined;
  let left = 2;
  const owner: JobOwner = {
    done: () => {
      if (--left === 0) job.done([]);
    },
    failed: (error) => job.failed(error), // which cancels the whole, and with it the other half
  };
  const part = (from: number, to: number) =>
    new Job(
      { ...job.command, offset: offset + from, length: to - from, target: target.subarray(from, to) },
      owner,
      job,
    );
  return [part(0, middle), part(middle, length)];
}
