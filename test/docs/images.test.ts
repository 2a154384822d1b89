import { readdir, readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { MAY_IMPORT } from '../support/architecture.ts';

const root = new URL('../../', import.meta.url);

function readText(name: string): Promise<string> {
  return readFile(new URL(name, root), 'utf8');
}

/** What a picture names, in its order: its texts of the class `name`. */
async function namesIn(picture: string): Promise<string[]> {
  const text = await readText(`docs/images/${picture}`);
  return [...text.matchAll(/<text class="name"[^>]*>([^<]+)</g)].map(([, name]) => name!);
}

test('layers.svg names every layer, and no other', async () => {
  const layers = Object.keys(MAY_IMPORT).map((folder) => (folder === '(top)' ? 'index' : folder));
  expect((await namesIn('layers.svg')).sort()).toEqual(layers.sort());
});

test('layers.svg has no layer above one that imports it', async () => {
  const text = await readText('docs/images/layers.svg');
  const heights = [...text.matchAll(/<text class="name" x="\d+" y="(\d+)">([^<]+)</g)];
  const heightOf = new Map(heights.map(([, y, name]) => [name === 'index' ? '(top)' : name!, Number(y)]));
  for (const [folder, below] of Object.entries(MAY_IMPORT)) {
    if (folder === 'simulator' || folder === 'console') continue; // these stand at the side of what they import
    for (const other of below)
      expect(heightOf.get(other), `${folder}, ${other}`).toBeGreaterThan(heightOf.get(folder)!);
  }
});

test('backup-life.svg names every stage of a backup, in their order', async () => {
  const names = await readdir(new URL('src/backup/', root));
  const texts = await Promise.all(names.map((name) => readText(`src/backup/${name}`)));
  const stages = new Set([...texts.join('\n').matchAll(/\.stage\('([a-z-]+)'\)/g)].map(([, stage]) => stage!));
  expect(stages.size).toBeGreaterThan(5);
  const named = (await namesIn('backup-life.svg')).filter((name) => /^[a-z-]+$/.test(name));
  expect([...named].sort()).toEqual([...stages].sort());
  const guide = await readText('docs/embedding.md');
  expect(guide).toContain(`The stages of a backup: ${named.map((name) => `\`${name}\``).join(', ')};`);
});
