import { expect, test } from 'vitest';
import { formatCall, MAX_CALL_BYTES, parseAnswer, Refusal } from '../../src/host/rpc-envelope.ts';

const refusalIn = (answer: unknown): Refusal => {
  try {
    parseAnswer(JSON.stringify(answer), 'm');
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
  return expect.fail('expected a refusal');
};

test('a call is one JSON-RPC 2 object with a number for its id', () => {
  const text = new TextDecoder().decode(formatCall('VM.get_record', ['session', 'ü'], 7));
  expect(JSON.parse(text)).toEqual({ jsonrpc: '2.0', method: 'VM.get_record', params: ['session', 'ü'], id: 7 });
});

test('a call that is longer than a host reads is refused here', () => {
  const room = MAX_CALL_BYTES - formatCall('m', [''], 1).byteLength;
  expect(formatCall('m', ['x'.repeat(room)], 1)).toHaveLength(MAX_CALL_BYTES);
  expect(() => formatCall('m', ['x'.repeat(room + 1)], 1)).toThrow(RangeError);
});

test('results of either version of JSON-RPC, an empty one too', () => {
  expect(parseAnswer('{"jsonrpc":"2.0","result":"","id":1}', 'm')).toBe('');
  expect(parseAnswer('{"result":{"a":1},"error":null,"id":1}', 'm')).toEqual({ a: 1 });
});

test('the shapes of a refusal: object with data, object without, array, text', () => {
  expect(refusalIn({ error: { code: 1, message: 'A', data: ['1', '2'] }, id: 1 })).toMatchObject({
    code: 'A',
    params: ['1', '2'],
  });
  expect(refusalIn({ error: { code: 1, message: 'A' }, id: 1 })).toMatchObject({ code: 'A', params: [] });
  expect(refusalIn({ error: ['HOST_STILL_BOOTING'], id: 0 })).toMatchObject({ code: 'HOST_STILL_BOOTING', params: [] });
  expect(refusalIn({ result: null, error: ['B', 'x'], id: 1 })).toMatchObject({ code: 'B', params: ['x'] });
  expect(refusalIn({ error: 'C' })).toMatchObject({ code: 'C', params: [] });
});

test.each([
  ['no JSON', '<html>'],
  ['a list', '[]'],
  ['a text', '"x"'],
  ['nothing in it', '{}'],
  ['an empty error', '{"error":[]}'],
  ['a number for an error', '{"error":7}'],
])('%s is HOST_ANSWER_INVALID', (_, text) => {
  expect(() => parseAnswer(text, 'm')).toThrow(expect.objectContaining({ code: 'HOST_ANSWER_INVALID' }));
});
