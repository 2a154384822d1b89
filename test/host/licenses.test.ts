import { describe, expect, test } from 'vitest';
import {
  bundledFolders,
  copyrightLines,
  faults,
  formatNotice,
  isPermissive,
  type Lockfile,
  productionFolders,
} from '../../scripts/licenses.ts';

const pack = (name: string, license: string) => ({ name, version: '1.0.0', license, copyright: ['Copyright 2020 A'] });

describe('licences', () => {
  test.each([
    ['MIT', true],
    ['ISC', true],
    ['AGPL-3.0-or-later', false],
    ['GPL-3.0', false],
    ['LGPL-2.1', false],
    ['MPL-2.0', false],
    ['SEE LICENSE IN LICENSE', false],
    ['', false],
    ['MIT OR GPL-3.0', true],
    ['GPL-3.0 OR (MIT AND Apache-2.0)', true],
    ['MIT AND GPL-3.0', false],
    ['(MIT OR ISC) AND MPL-2.0', false],
    ['GPL-2.0 WITH Classpath-exception-2.0', false],
    ['MIT GPL-3.0', false],
  ])('%j: %s', (expression, expected) => {
    expect(isPermissive(expression)).toBe(expected);
  });

  test('a package under copyleft, without a licence, or banned by name is a fault', () => {
    const packages = [pack('a', 'MIT'), pack('b', 'AGPL-3.0-or-later'), pack('c', ''), pack('xo-common', 'ISC')];
    expect(faults(packages, 'bundle')).toEqual([
      'bundle: b 1.0.0 is under AGPL-3.0-or-later',
      'bundle: c 1.0.0 names no licence',
      'bundle: xo-common 1.0.0 must not be there at all',
    ]);
  });
});

test('the production tree is what is not for development only', () => {
  const packages: Lockfile['packages'] = {
    '': {},
    'node_modules/p': {},
    'node_modules/p/node_modules/q': {},
    'node_modules/d': { dev: true },
    'node_modules/e': { devOptional: true },
    'node_modules/@s/o': {},
  };
  expect(productionFolders({ packages })).toEqual([
    'node_modules/@s/o',
    'node_modules/p',
    'node_modules/p/node_modules/q',
  ]);
});

test('the packages of a bundle are told from its inputs, nested and scoped ones too', () => {
  const inputs = {
    'src/host/index.ts': {},
    'node_modules/xen-api/index.mjs': {},
    'node_modules/xen-api/_Ref.mjs': {},
    'node_modules/xen-api/node_modules/undici/index.js': {},
    'node_modules/@vates/xml/parse.js': {},
    '(disabled):stream': {},
  };
  expect(bundledFolders({ inputs })).toEqual([
    'node_modules/@vates/xml',
    'node_modules/xen-api',
    'node_modules/xen-api/node_modules/undici',
  ]);
});

test('copyright lines are found in a licence text, its terms are not', () => {
  const text = `The MIT License

  Copyright (c) 2015-2020 Ada
Copyright 2021 Grace <g@example.org>
Copyright The Foundation and other contributors
The above copyright notice and this permission notice
copyright holders be liable
Copyright notice and terms
copyright in it.`;
  expect(copyrightLines(text)).toEqual([
    'Copyright (c) 2015-2020 Ada',
    'Copyright 2021 Grace <g@example.org>',
    'Copyright The Foundation and other contributors',
  ]);
});

test('the notice names every bundled package and holds the terms', () => {
  const notice = formatNotice(
    [pack('a', 'MIT'), pack('b', 'ISC')],
    new Map([
      ['MIT', 'mit terms'],
      ['ISC', 'isc terms'],
    ]),
  );
  for (const text of ['a 1.0.0', 'License: ISC', 'Copyright 2020 A', 'mit terms', 'isc terms'])
    expect(notice).toContain(text);
  expect(() => formatNotice([pack('a', 'Zlib')], new Map())).toThrow(/Zlib/);
});
