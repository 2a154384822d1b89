import { loadXxh64 } from '../bytes/index.ts';
import type { ChunkShare } from './chunk-hashing.ts';
import { Intake } from './intake.ts';
import { walkXva, type XvaEvent, type XvaWalkMode } from './xva-walk.ts';

/** A walk through an archive that is driven by whoever has its bytes. */
export interface XvaWalker {
  /** Uncompressed bytes taken or passed over so far. */
  readonly offset: number;
  /** How many of the bytes to come nobody wants. */
  readonly toSkip: number;
  /** The next bytes of the archive; they are not looked at any more when this returns. */
  give(piece: Uint8Array): void;
  /** The source passed over `toSkip` bytes by itself. */
  skipped(): void;
  /** There are no more bytes. */
  end(): void;
}

/**
 * Starts a walk; what it meets goes to `onEvent` while bytes are given. `give` and `end` throw `XvaFault`, after which
 * the walk is over.
 */
export async function createWalker(
  mode: XvaWalkMode,
  onEvent: (event: XvaEvent) => void,
  share?: ChunkShare,
): Promise<XvaWalker> {
  const intake = new Intake();
  const walk = walkXva(intake, mode, await loadXxh64(), share);
  const advance = () => {
    for (;;) {
      const step = walk.next();
      if (step.done === true || step.value === undefined) return;
      onEvent(step.value);
    }
  };
  advance();
  return {
    get offset() {
      return intake.offset;
    },
    get toSkip() {
      return intake.toSkip;
    },
    give(piece) {
      intake.give(piece);
      advance();
    },
    skipped: () => intake.skipped(),
    end() {
      intake.end();
      advance();
    },
  };
}
