/** What travels in calls: JSON without `null`. */
export type XapiValue = string | number | boolean | readonly XapiValue[] | XapiMap;
/** A map with text keys; values are text almost everywhere. */
export interface XapiMap {
  readonly [key: string]: XapiValue;
}

/** What a field holds: decides its default, and how it is written in XML-RPC text. */
export type FieldKind = 'text' | 'int' | 'float' | 'bool' | 'date' | 'ref' | 'texts' | 'ints' | 'refs' | 'map';

/** One field of a class. */
export interface FieldSpec<T extends XapiValue> {
  readonly kind: FieldKind;
  /** Is there a `set_…` call? */
  readonly writable: boolean;
  /** What a new object has unless its maker says otherwise. */
  readonly initial: T;
}

/** "Never", as the host writes it. */
export const EPOCH = '19700101T00:00:00Z';

function builders(writable: boolean) {
  const spec =
    <T extends XapiValue>(kind: FieldKind, usual: T) =>
    (initial: T = usual): FieldSpec<T> => ({ kind, writable, initial });
  return {
    text: spec<string>('text', ''),
    int: spec<number>('int', 0),
    float: spec<number>('float', 0),
    bool: spec<boolean>('bool', false),
    date: spec<string>('date', EPOCH),
    ref: spec<string>('ref', 'OpaqueRef:NULL'),
    texts: spec<readonly string[]>('texts', []),
    ints: spec<readonly number[]>('ints', []),
    refs: spec<readonly string[]>('refs', []),
    map: spec<Readonly<Record<string, string>>>('map', {}),
  };
}

/** Fields that only the host changes. */
export const ro = builders(false);
/** Fields with a `set_…` call. */
export const rw = builders(true);
