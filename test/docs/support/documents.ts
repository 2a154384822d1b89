import { readdir, readFile } from 'node:fs/promises';

const root = new URL('../../../', import.meta.url);

/** A fenced block of a document. */
export interface Block {
  /** What follows the fence: `js`, `sh`, `text`, and `js serve` for a program that stays until it is interrupted. */
  readonly kind: string;
  readonly code: string;
}

/** Every document that is ours to keep true, by its path from the top of the project. */
export async function documents(): Promise<string[]> {
  const docs = await readdir(new URL('docs/', root), { recursive: true });
  const top = await readdir(root);
  return [...top, ...docs.map((name) => `docs/${name.replaceAll('\\', '/')}`)].filter((name) => name.endsWith('.md'));
}

export function readDocument(name: string): Promise<string> {
  return readFile(new URL(name, root), 'utf8');
}

/** The blocks of a document, in their order. */
export async function blocksOf(name: string): Promise<Block[]> {
  return [...(await readDocument(name)).matchAll(/^```(\S[^\n]*)\n(.*?)^```$/gms)].map(([, kind, code]) => ({
    kind: kind!,
    code: code!,
  }));
}

/** A document without its blocks and its code spans: what is left may hold links. */
export async function proseOf(name: string): Promise<string> {
  return (await readDocument(name)).replace(/^```.*?^```$/gms, '').replace(/`[^`\n]*`/g, '');
}

/** The anchors that a Markdown document gets on the web: one for each heading. */
export function anchorsOf(text: string): ReadonlySet<string> {
  const withoutBlocks = text.replace(/^```.*?^```$/gms, '');
  return new Set(
    [...withoutBlocks.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
      heading!
        .trim()
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}
