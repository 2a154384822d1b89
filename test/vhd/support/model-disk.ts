import { type Disk, type Extent, type ExtentKind, joinExtents, memoryDisk, rangeOf } from '../../../src/disk/index.ts';

/** A run of a model disk; what no run covers is `rest`. */
export interface ModelRun {
  readonly offset: number;
  readonly length: number;
  readonly kind: ExtentKind;
}

/** A disk over `bytes` that says of itself exactly what it is told to say, and refuses to be read where `absent`. */
export function modelDisk(bytes: Uint8Array, runs: readonly ModelRun[], rest: ExtentKind = 'absent'): Disk {
  const all: Extent[] = [];
  let end = 0;
  for (const run of runs) {
    all.push({ offset: end, length: run.offset - end, kind: rest }, run);
    end = run.offset + run.length;
  }
  all.push({ offset: end, length: bytes.byteLength - end, kind: rest });
  function* within(from: number, to: number): Generator<Extent, void> {
    for (const { offset, length, kind } of all) {
      const start = Math.max(offset, from);
      const stop = Math.min(offset + length, to);
      if (start < stop) yield { offset: start, length: stop - start, kind };
    }
  }
  return {
    ...memoryDisk(bytes),
    extents: (options = {}) => {
      const { offset, end: to } = rangeOf('model', bytes.byteLength, options);
      return joinExtents(within(offset, to));
    },
    async readInto(target, offset) {
      for (const run of within(offset, offset + target.byteLength)) {
        if (run.kind === 'absent') throw new RangeError(`the model was asked for what is absent, at ${run.offset}`);
        const piece = target.subarray(run.offset - offset, run.offset - offset + run.length);
        if (run.kind === 'zero') piece.fill(0);
        else piece.set(bytes.subarray(run.offset, run.offset + run.length));
      }
    },
  };
}
