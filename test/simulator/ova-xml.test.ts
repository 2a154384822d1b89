import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { byteReader } from '../../src/bytes/index.ts';
import { archiveFailure, openArchive, readOva } from '../../src/simulator/archive-stream.ts';
import { newRecord } from '../../src/simulator/data-model.ts';
import { decodeOva, decodeValue, encodeOva, typedRecord } from '../../src/simulator/ova-xml.ts';
import { decodeTarHeader, encodeTarHeader, readTarHeader, TAR_END, tarPadding } from '../../src/simulator/tar-v7.ts';
import { readXml } from '../../src/simulator/xml-reader.ts';
import { hasTool } from '../support/has-tool.ts';
import { chunksOf } from '../support/sources.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const VERSION = { hostname: 'localhost', xapi_major: '25', xapi_minor: '33' };

function archiveOf(xml: string, name = 'ova.xml'): Uint8Array {
  const body = new TextEncoder().encode(xml);
  const parts = [
    encodeTarHeader({ name, size: body.byteLength }),
    body,
    new Uint8Array(tarPadding(body.byteLength)),
    TAR_END,
  ];
  return new Uint8Array(Buffer.concat(parts));
}

describe('the text of ova.xml', () => {
  test('is written as a host writes it', () => {
    const vm = { ...newRecord('VM', { name_label: 'a<&>"b\u0001', memory_static_max: 2 ** 40, is_a_template: true }) };
    const snapshot = Object.fromEntries(
      [
        'name_label',
        'memory_static_max',
        'is_a_template',
        'HVM_shadow_multiplier',
        'snapshot_time',
        'VBDs',
        'platform',
      ].map((field) => [field, vm[field as keyof typeof vm]]),
    );
    const text = encodeOva({ version: { export_vsn: '2' }, objects: [{ class: 'VM', id: 'Ref:7', snapshot }] });
    const member = (name: string, value: string) => `<member><name>${name}</name><value>${value}</value></member>`;
    const record = [
      member('name_label', 'a&lt;&amp;&gt;&quot;b'),
      member('memory_static_max', '1099511627776'),
      member('is_a_template', '<boolean>1</boolean>'),
      member('HVM_shadow_multiplier', '<double>1</double>'),
      member('snapshot_time', '<dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601>'),
      member('VBDs', '<array><data></data></array>'),
      member('platform', '<struct></struct>'),
    ];
    const object = `<struct>${member('class', 'VM')}${member('id', 'Ref:7')}${member('snapshot', `<struct>${record.join('')}</struct>`)}</struct>`;
    const version = member('version', `<struct>${member('export_vsn', '2')}</struct>`);
    const objects = member('objects', `<array><data><value>${object}</value></data></array>`);
    expect(text).toBe(`<value><struct>${version}${objects}</struct></value>`);
  });

  test('gives back every record, whatever its texts', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 20 }).filter((value) => !/\p{Cc}/u.test(value));
    const fields = fc.record({
      name_label: text,
      other_config: fc.dictionary(text, text, { maxKeys: 4 }),
      tags: fc.array(text, { maxLength: 4 }),
      memory_static_max: fc.nat(2 ** 31 - 1),
      HVM_shadow_multiplier: fc.double({ noNaN: true, noDefaultInfinity: true }),
      is_a_template: fc.boolean(),
    });
    fc.assert(
      fc.property(fields, (values) => {
        const record = newRecord('VM', values);
        const read = decodeOva(
          encodeOva({ version: VERSION, objects: [{ class: 'VM', id: 'Ref:1', snapshot: record }] }),
        );
        expect(read.version).toEqual(VERSION);
        const [object] = read.objects;
        const typed = typedRecord('VM', object?.snapshot ?? {});
        expect({ ...typed, HVM_shadow_multiplier: 0 }).toEqual({ ...record, HVM_shadow_multiplier: 0 });
        expect(typed['HVM_shadow_multiplier']).toBe(record.HVM_shadow_multiplier + 0);
      }),
      { numRuns: 60 },
    );
  });

  test('is read with the types and the white space of other writers', () => {
    const xml = `<?xml version="1.0"?>
      <!-- by hand -->
      <value> <array> <data>
        <value><string>a</string></value><value><int>1</int></value><value><i8>2</i8></value>
        <value><double>1.5</double></value><value><nil/></value><value/><value><![CDATA[<x>]]>&#65;&#x42;</value>
      </data> </array> </value>
      <!-- the end -->`;
    expect(decodeValue(readXml(xml))).toEqual(['a', '1', '2', '1.5', '', '', '<x>AB']);
  });

  test.each([
    ['nothing', ''],
    ['text only', 'value'],
    ['an open element', '<value>'],
    ['another end', '<value></valu>'],
    ['a longer end', '<value></value2>'],
    ['two roots', '<value/><value/>'],
    ['attributes', '<value a="b"/>'],
    ['a document type', '<!DOCTYPE value><value/>'],
    ['an instruction', '<value><?x?></value>'],
    ['an unknown entity', '<value>&nbsp;</value>'],
    ['an entity of the prototype', '<value>&constructor;</value>'],
    ['a bare ampersand', '<value>a & b</value>'],
    ['a code point that is none', '<value>&#x110000;</value>'],
    ['an open comment', '<value><!-- </value>'],
    ['open CDATA', '<value><![CDATA[</value>'],
    ['100 levels', '<value><array><data>'.repeat(100)],
  ])('is refused with %s', (_name, xml) => {
    expect(() => readXml(xml)).toThrow(SyntaxError);
  });

  test.each([
    ['no value', '<values/>'],
    ['two things in a value', '<value><int>1</int><int>2</int></value>'],
    ['text beside a thing', '<value>x<int>1</int></value>'],
    ['an unknown type', '<value><float>1</float></value>'],
    ['a boolean of words', '<value><boolean>true</boolean></value>'],
    ['an array without data', '<value><array><value/></array></value>'],
    ['a member without a name', '<value><struct><member><value/></member></struct></value>'],
    ['no archive', '<value><struct></struct></value>'],
  ])('is refused as a value with %s', (_name, xml) => {
    expect(() => decodeOva(xml)).toThrow(SyntaxError);
  });

  test('takes missing fields from the data model, leaves unknown ones out, and refuses others of another type', () => {
    expect(typedRecord('VBD', { type: 'CD', invented: 'x' })).toEqual(newRecord('VBD', { type: 'CD' }));
    for (const wrong of [
      { empty: 'true' },
      { status_code: 'x' },
      { status_code: '1.5' },
      { other_config: 'x' },
      { device: [] },
    ]) {
      expect(() => typedRecord('VBD', wrong)).toThrow(SyntaxError);
    }
    expect(typedRecord('PVS_site', { uuid: 'x' })).toEqual({});
  });
});

describe('the tar around it', () => {
  test('has V7 headers: no magic, type NUL, mode 0400, owner 0', () => {
    const header = encodeTarHeader({ name: 'ova.xml', size: 0o1234 }, 1_700_000_000);
    const text = Buffer.from(header).toString('latin1');
    expect(text.slice(100, 148)).toBe('0000400\u00000000000\u00000000000\u000000000001234\u000014524770400\u0000');
    expect(text.slice(148, 156)).toMatch(/^[0-7]{6}\0 $/);
    expect(header.subarray(156)).toEqual(new Uint8Array(356));
    expect(decodeTarHeader(header)).toEqual({ name: 'ova.xml', size: 0o1234 });
    header[0] = 0x78;
    expect(() => decodeTarHeader(header)).toThrow(SyntaxError);
    expect(() => encodeTarHeader({ name: 'x'.repeat(101), size: 0 })).toThrow(RangeError);
  });

  for (const tool of ['tar', 'bsdtar']) {
    test.runIf(hasTool(tool))(`is listed and extracted by ${tool}`, async () => {
      await using dir = await makeTempDir();
      await writeFile(dir.file('a.tar'), archiveOf('<value/>'));
      const { stdout, stderr } = await run(tool, ['-tvf', dir.file('a.tar')]);
      expect(stdout).toMatch(/^-r-------- .* 8 .*ova\.xml\n$/);
      expect(stderr).toBe('');
      expect((await run(tool, ['-xOf', dir.file('a.tar'), 'ova.xml'])).stdout).toBe('<value/>');
    });
  }

  test.runIf(hasTool('bsdtar')).each(['v7', 'ustar', 'pax', 'gnutar'])(
    'is read as bsdtar writes it: %s',
    async (format) => {
      await using dir = await makeTempDir();
      const long = `${'d'.repeat(90)}/${'f'.repeat(99)}`;
      const name = format === 'v7' ? 'ova.xml' : format === 'ustar' ? `${'d'.repeat(90)}/ova.xml` : `${long}/ova.xml`;
      const parent = name.split('/').slice(0, -1).join('/');
      await run('mkdir', ['-p', dir.file(parent)]);
      await writeFile(dir.file(name), '<value/>');
      await run('bsdtar', ['-cf', dir.file('a.tar'), '--format', format, '-C', dir.path, name]);
      await using input = byteReader(chunksOf(await readFile(dir.file('a.tar')), 'odd'));
      expect(await readTarHeader(input)).toEqual({ name, size: 8 });
    },
  );

  const xml = encodeOva({ version: VERSION, objects: [] });
  test.each([
    ['plain', (bytes: Uint8Array) => bytes],
    ['gzip', (bytes: Uint8Array) => new Uint8Array(gzipSync(bytes))],
    ['zstd', (bytes: Uint8Array) => new Uint8Array(zstdCompressSync(bytes))],
  ])('is found inside: %s', async (_name, pack) => {
    const padded = archiveOf(xml.padEnd(4096)); // what is packed must still fill the first block
    const noisy = Buffer.concat([padded, randomBytes(3000)]);
    await using archive = await openArchive(chunksOf(pack(new Uint8Array(noisy)), 'odd'), {});
    expect(await readOva(archive)).toEqual({ version: VERSION, objects: [] });
  });

  test.each([
    ['another file first', archiveOf(xml, 'disk'), 'IMPORT_ERROR_UNEXPECTED_FILE'],
    ['nothing in it', TAR_END, 'IMPORT_ERROR' /* taken for gzip */],
    ['nothing', new Uint8Array(0), 'IMPORT_ERROR_PREMATURE_EOF'],
    ['its end cut off', archiveOf(xml.padEnd(2000)).subarray(0, 1000), 'IMPORT_ERROR_PREMATURE_EOF'],
    ['noise', new Uint8Array(2048).fill(0x33), 'IMPORT_ERROR'],
    ['a text that is no XML', archiveOf('x'), 'IMPORT_ERROR'],
    ['a text that is no UTF-8', archiveOf('x').fill(0xff, 512, 513), 'IMPORT_ERROR'],
  ])('with %s is refused', async (_name, bytes, code) => {
    const attempt = async () => {
      await using archive = await openArchive(chunksOf(bytes), {});
      await readOva(archive);
    };
    const failure = await attempt().then(() => undefined, archiveFailure);
    expect(failure).toMatchObject({ code });
  });
});
