/** An element: its text, or the elements in it. Attributes are not kept, the host's dialect has none. */
export interface XmlElement {
  readonly name: string;
  readonly children: readonly XmlElement[];
  /** All text directly inside, entities resolved. */
  readonly text: string;
}

/** Deeper than any record of a host, shallow enough for every recursion over the result. */
const MAX_DEPTH = 64;
const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };
const NAME = /[A-Za-z_:][\w:.-]*/y;
const TAG_END = /\s*(\/?)>/y;
const PROLOG = /\s*(?:<\?xml\s[^>]*\?>)?/y;
const SPACE = /\s*/y;

/**
 * Reads one XML document: elements, text, CDATA, comments and the predefined entities. Attributes, document types and
 * processing instructions are refused: no host writes them.
 *
 * @throws SyntaxError with the offset, in characters
 */
export function readXml(text: string): XmlElement {
  let at = 0;
  take(PROLOG);
  between();
  const root = element(0);
  between();
  if (at < text.length) throw wrong('the end of the document');
  return root;

  function element(depth: number): XmlElement {
    if (depth > MAX_DEPTH) throw wrong(`at most ${MAX_DEPTH} levels`);
    expect('<');
    const name = take(NAME)?.[0] ?? missing('the name of an element');
    const tag = take(TAG_END) ?? missing('the end of a tag, without attributes');
    const children: XmlElement[] = [];
    const pieces: string[] = [];
    if (tag[1] === '/') return { name, children, text: '' };
    while (!text.startsWith('</', at)) {
      if (text.startsWith('<!--', at)) upTo('-->', '<!--'.length);
      else if (text.startsWith('<![CDATA[', at)) pieces.push(upTo(']]>', '<![CDATA['.length));
      else if (text[at] === '<') children.push(element(depth + 1));
      else pieces.push(resolve(characters()));
    }
    expect(`</${name}`);
    if (take(TAG_END)?.[1] !== '') throw wrong(`the end of </${name}>`);
    return { name, children, text: pieces.join('') };
  }

  /** Passes over white space and comments outside the root. */
  function between(): void {
    take(SPACE);
    while (text.startsWith('<!--', at)) {
      upTo('-->', '<!--'.length);
      take(SPACE);
    }
  }

  function characters(): string {
    const end = text.indexOf('<', at);
    if (end < 0) throw wrong('an end tag');
    const piece = text.slice(at, end);
    at = end;
    return piece;
  }

  function resolve(raw: string): string {
    return raw.replace(/&([^;]*;?)/g, (_, entity: string) => {
      const name = entity.slice(0, -1);
      const code = /^#(?:x([0-9a-f]{1,6})|([0-9]{1,7}));$/i.exec(entity);
      const point =
        code === null ? undefined : Number.parseInt(code[1] ?? code[2] ?? '', code[1] === undefined ? 10 : 16);
      if (point !== undefined && point <= 0x10ffff) return String.fromCodePoint(point);
      if (entity.endsWith(';') && Object.hasOwn(ENTITIES, name)) return ENTITIES[name] ?? '';
      throw wrong(`a known entity instead of "&${entity.slice(0, 16)}"`);
    });
  }

  function upTo(end: string, skipped: number): string {
    const found = text.indexOf(end, at + skipped);
    if (found < 0) throw wrong(end);
    const piece = text.slice(at + skipped, found);
    at = found + end.length;
    return piece;
  }

  function take(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) return undefined;
    at = pattern.lastIndex;
    return match;
  }

  function expect(literal: string): void {
    if (!text.startsWith(literal, at)) throw wrong(`"${literal}"`);
    at += literal.length;
  }

  function missing(what: string): never {
    throw wrong(what);
  }

  function wrong(expected: string): SyntaxError {
    return new SyntaxError(`XML at ${at}: expected ${expected}, got "${text.slice(at, at + 20)}"`);
  }
}
