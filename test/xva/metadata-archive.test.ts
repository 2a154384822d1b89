import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  parseXmlRpc,
  readMetadataArchive,
  writeMetadataArchive,
  writeXmlRpc,
  XmlRpcDateTime,
  type XmlRpcValue,
} from '../../src/xva/index.ts';

const run = promisify(execFile);

// Written by hand after the documented layout, as a host writes it.
const OVA_XML =
  '<value><struct><member><name>version</name><value><struct><member><name>hostname</name><value>localhost</value></member>' +
  '<member><name>xapi_major</name><value>1</value></member><member><name>export_vsn</name><value>2</value></member></struct></value></member>' +
  '<member><name>objects</name><value><array><data><value><struct><member><name>class</name><value>VM</value></member>' +
  '<member><name>id</name><value>Ref:3</value></member><member><name>snapshot</name><value><struct>' +
  '<member><name>name_label</name><value>web &amp; &lt;db&gt;</value></member>' +
  '<member><name>is_a_template</name><value><boolean>0</boolean></value></member>' +
  '<member><name>HVM_shadow_multiplier</name><value><double>1.5</double></value></member>' +
  '<member><name>snapshot_time</name><value><dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601></value></member>' +
  '<member><name>VBDs</name><value><array><data><value>Ref:4</value></data></array></value></member>' +
  '<member><name>tags</name><value><array><data/></array></value></member></struct></value></member></struct></value></data></array></value></member></struct></value>';

describe('metadata archive', () => {
  test('reads what GNU tar packed', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'xva-'));
    try {
      await writeFile(join(dir, 'ova.xml'), OVA_XML);
      await run('tar', ['--format=v7', '-cf', 'golden.tar', 'ova.xml'], { cwd: dir });
      const metadata = readMetadataArchive(await readFile(join(dir, 'golden.tar')));
      expect(metadata.version).toEqual({ hostname: 'localhost', xapi_major: '1', export_vsn: '2' });
      expect(metadata.objects).toEqual([
        {
          class: 'VM',
          id: 'Ref:3',
          snapshot: {
            name_label: 'web & <db>',
            is_a_template: false,
            HVM_shadow_multiplier: 1.5,
            snapshot_time: new XmlRpcDateTime('19700101T00:00:00Z'),
            VBDs: ['Ref:4'],
            tags: [],
          },
        },
      ]);
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test('what it writes, GNU tar lists and extracts', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'xva-'));
    try {
      await writeFile(join(dir, 'ova.xml'), OVA_XML);
      await run('tar', ['--format=v7', '-cf', 'golden.tar', 'ova.xml'], { cwd: dir });
      const metadata = readMetadataArchive(await readFile(join(dir, 'golden.tar')));
      await writeFile(join(dir, 'ours.tar'), writeMetadataArchive(metadata));
      const { stdout: listed } = await run('tar', ['-tvf', 'ours.tar'], { cwd: dir });
      expect(listed).toMatch(/^-r-------- .* ova\.xml\n$/);
      const { stdout: extracted } = await run('tar', ['-xOf', 'ours.tar', 'ova.xml'], { cwd: dir });
      expect(extracted).toBe(OVA_XML.replace('<data/>', '<data></data>'));
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test.each([
    ['cut in the header', 'XVA_TRUNCATED', (bytes: Uint8Array) => bytes.subarray(0, 511)],
    ['cut in the text', 'XVA_TRUNCATED', (bytes: Uint8Array) => bytes.subarray(0, 600)],
    ['a flipped bit in the header', 'XVA_TAR_CHECKSUM', (bytes: Uint8Array) => flipped(bytes, 1)],
    ['no text that is XML', 'XVA_XML', (bytes: Uint8Array) => flipped(bytes, 512)],
    ['an empty archive', 'XVA_UNEXPECTED_ENTRY', () => new Uint8Array(1024)],
  ])('%s is %s', (_, code, damage) => {
    const whole = writeMetadataArchive({ version: {}, objects: [] });
    expect(() => readMetadataArchive(damage(whole))).toThrow(expect.objectContaining({ code }));
  });
});

describe('XML-RPC values', () => {
  test('survive both ways, whatever the text', () => {
    const text = fc.string({ unit: 'grapheme' }).map((value) => value.replaceAll('\r', ''));
    const value = fc.letrec<{ value: XmlRpcValue }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        text,
        fc.boolean(),
        fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => (Object.is(number, -0) ? 0 : number)),
        fc.array(tie('value'), { maxLength: 4 }),
        fc.dictionary(text, tie('value'), { maxKeys: 4, noNullPrototype: true }),
      ),
    })).value;
    fc.assert(
      fc.property(value, (given) => {
        expect(parseXmlRpc(writeXmlRpc(given))).toEqual(given);
      }),
    );
  });

  test.each([
    ['<value><struct><member><value>1</value></member></struct></value>'],
    ['<value><array><value>1</value></array></value>'],
    ['<value><unknown>1</unknown></value>'],
    ['<methodResponse/>'],
    [`${'<value><array><data>'.repeat(40)}${'</data></array></value>'.repeat(40)}`],
    ['<value>&undefined;</value>'],
    ['<!DOCTYPE a [<!ENTITY b "bb">]><value>&b;</value>'],
  ])('%s is XVA_XML', (text) => {
    expect(() => parseXmlRpc(text)).toThrow(expect.objectContaining({ code: 'XVA_XML' }));
  });
});

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const damaged = bytes.slice();
  damaged[at] = damaged[at]! ^ 1;
  return damaged;
}
