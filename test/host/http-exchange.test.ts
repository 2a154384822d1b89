import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { watchForErrorPage } from '../../src/host/error-page.ts';
import { formatRequestHead, MAX_REQUEST_HEAD_BYTES, parseResponseHead } from '../../src/host/http-exchange.ts';

describe('request head', () => {
  const head = { method: 'PUT', path: '/import_raw_vdi', host: 'h', contentLength: 7 } as const;

  test('has the length, never chunks, and a query that is escaped', () => {
    const text = new TextDecoder().decode(
      formatRequestHead({ ...head, query: { vdi: 'a b', session_id: 'OpaqueRef:1' } }),
    );
    expect(text).toBe(
      'PUT /import_raw_vdi?vdi=a%20b&session_id=OpaqueRef%3A1 HTTP/1.1\r\nHost: h\r\nUser-Agent: xen-backup-sdk\r\n' +
        'Connection: close\r\nContent-Length: 7\r\n\r\n',
    );
  });

  test('IPv6 in brackets', () => {
    expect(new TextDecoder().decode(formatRequestHead({ ...head, query: {}, host: '::1' }))).toContain(
      'Host: [::1]\r\n',
    );
  });

  test('one byte more than hosts take is refused here', () => {
    const room = MAX_REQUEST_HEAD_BYTES - formatRequestHead({ ...head, query: { x: '' } }).byteLength;
    expect(formatRequestHead({ ...head, query: { x: 'y'.repeat(room) } })).toHaveLength(MAX_REQUEST_HEAD_BYTES);
    expect(() => formatRequestHead({ ...head, query: { x: 'y'.repeat(room + 1) } })).toThrow(
      expect.objectContaining({ code: 'HOST_NOT_SUPPORTED' }),
    );
  });
});

describe('response head', () => {
  test('status and headers, in either version, without a reason too', () => {
    expect(parseResponseHead('HTTP/1.0 200 OK\r\nTask-Id: x\r\ncontent-length: 5')).toEqual({
      status: 200,
      headers: new Map([
        ['task-id', 'x'],
        ['content-length', '5'],
      ]),
    });
    expect(parseResponseHead('HTTP/1.1 302').status).toBe(302);
  });

  test.each(['', 'HTTP/2 200', 'HTTP/1.1 20', 'SSH-2.0-x', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked'])(
    '%j is HOST_ANSWER_INVALID',
    (text) => {
      expect(() => parseResponseHead(text)).toThrow(expect.objectContaining({ code: 'HOST_ANSWER_INVALID' }));
    },
  );
});

test('an error page is seen at the start and at the end, however the body is cut', () => {
  const page = Buffer.from('HTTP/1.1 500 Internal Error\r\ncontent-type: text/html\r\n\r\n<html>no</html>');
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 9000 }),
      fc.boolean(),
      fc.boolean(),
      fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1 }),
      (middle, first, last, cuts) => {
        const body = Buffer.concat([...(first ? [page] : []), middle, ...(last ? [page] : [])]);
        const watch = watchForErrorPage();
        for (let at = 0, turn = 0; at < body.length; turn++) {
          const length = cuts[turn % cuts.length]!;
          const chunk = Buffer.from(body.subarray(at, at + length)); // whose slice() is no copy
          watch.see(chunk);
          chunk.fill(0); // the chunk is its receiver's
          at += length;
        }
        expect(watch.length).toBe(body.length);
        expect(watch.atStart()).toBe(body.subarray(0, 12).equals(page.subarray(0, 12)));
        if (last) expect(watch.atEnd()).toBe(true);
        if (!last && !body.subarray(-9000).includes('HTTP/1.1 500')) expect(watch.atEnd()).toBe(false);
      },
    ),
  );
});
