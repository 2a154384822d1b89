import { describe, expect, test } from 'vitest';
import {
  type ChangeChain,
  closeLog,
  dropLog,
  listChangedBlocks,
  newChangeChain,
} from '../../src/simulator/change-chain.ts';

const SIZE = 16 * 65536; // two bytes of bits
const log = (id: string, ...bits: number[]) => ({ id, size: SIZE, bits: new Uint8Array(bits) });
const live = { size: SIZE, bits: new Uint8Array([0, 1]) };

/** s1 -> s2 -> s3 -> live */
function chainOfThree(): ChangeChain {
  let chain = newChangeChain('disk');
  chain = closeLog(chain, log('s1', 0xff, 0xff));
  chain = closeLog(chain, log('s2', 0x80, 0));
  return closeLog(chain, log('s3', 0x01, 0x10));
}

const failure = (code: string) => expect.objectContaining({ code });

describe('what changed', () => {
  test('is the union of the logs after the first, up to and including the second', () => {
    const chain = chainOfThree();
    expect(listChangedBlocks(chain, 's1', 's2')).toEqual(new Uint8Array([0x80, 0]));
    expect(listChangedBlocks(chain, 's2', 's3')).toEqual(new Uint8Array([0x01, 0x10]));
    expect(listChangedBlocks(chain, 's1', 's3')).toEqual(new Uint8Array([0x81, 0x10]));
    expect(listChangedBlocks(chain, 's1', 'disk', live)).toEqual(new Uint8Array([0x81, 0x11]));
    expect(listChangedBlocks(chain, 's3', 'disk', live)).toEqual(new Uint8Array([0, 1]));
  });

  test('is refused where no path leads from one to the other', () => {
    const chain = chainOfThree();
    for (const [from, to] of [
      ['s2', 's1'],
      ['s2', 's2'],
      ['s1', 'disk'],
      ['other', 's2'],
      ['s1', 'other'],
    ] as const) {
      expect(() => listChangedBlocks(chain, from, to)).toThrow(failure('SR_BACKEND_FAILURE_460'));
    }
    expect(() => listChangedBlocks(chain, 'disk', 's1', live)).toThrow(failure('SR_BACKEND_FAILURE_460'));
    expect(() => listChangedBlocks(undefined, 's1', 's2')).toThrow(failure('SR_BACKEND_FAILURE_460'));
    expect(() => listChangedBlocks(newChangeChain('disk'), 's1', 's2')).toThrow(failure('SR_BACKEND_FAILURE_460'));
  });

  test('has the size of the second disk after growth, and is refused after shrinking', () => {
    const grown = closeLog(chainOfThree(), { id: 's4', size: 3 * SIZE, bits: new Uint8Array([0, 0, 0, 0, 1, 0]) });
    expect(listChangedBlocks(grown, 's2', 's4')).toEqual(new Uint8Array([0x01, 0x10, 0, 0, 1, 0]));
    const shrunk = closeLog(chainOfThree(), { id: 's4', size: 65536, bits: new Uint8Array([0]) });
    expect(() => listChangedBlocks(shrunk, 's3', 's4')).toThrow(failure('SR_BACKEND_FAILURE_459'));
  });
});

describe('a log that goes', () => {
  test('in the middle is merged into its child', () => {
    const chain = dropLog(chainOfThree(), 's2');
    expect(listChangedBlocks(chain, 's1', 's3')).toEqual(new Uint8Array([0x81, 0x10]));
    expect(() => listChangedBlocks(chain, 's1', 's2')).toThrow(failure('SR_BACKEND_FAILURE_460'));
  });

  test('at the end is merged into the live log, and from there into the next snapshot', () => {
    const chain = dropLog(dropLog(chainOfThree(), 's3'), 's2');
    expect(listChangedBlocks(chain, 's1', 'disk', live)).toEqual(new Uint8Array([0x81, 0x11]));
    const next = closeLog(chain, log('s4', 0, 0x02));
    expect(listChangedBlocks(next, 's1', 's4')).toEqual(new Uint8Array([0x81, 0x12]));
    expect(listChangedBlocks(next, 's4', 'disk', live)).toEqual(new Uint8Array([0, 1]));
  });

  test('at the start takes nothing from what can still be asked', () => {
    const chain = dropLog(chainOfThree(), 's1');
    expect(listChangedBlocks(chain, 's2', 's3')).toEqual(new Uint8Array([0x01, 0x10]));
    expect(dropLog(chain, 'unknown')).toBe(chain);
  });
});
