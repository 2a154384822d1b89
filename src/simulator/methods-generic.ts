import { type AnyRecord, type ClassName, classNames, fieldsOf, isListed, type RecordOf } from './data-model.ts';
import type { FieldKind, FieldSpec, XapiMap, XapiValue } from './field-spec.ts';
import { type Call, type Method, type MethodTable, number, ref, text, textMap, texts, typeFailure } from './method.ts';
import { XapiFailure } from './world.ts';

/** What every class has: records, look-ups, and the getters and setters of its fields. */
export function genericMethods(): MethodTable {
  const table: Record<string, Method> = {};
  for (const className of classNames) {
    const fields = fieldsOf(className);
    Object.assign(table, recordMethods(className, fields));
    for (const [name, spec] of Object.entries(fields)) Object.assign(table, fieldMethods(className, name, spec));
  }
  return table;
}

function recordMethods(className: ClassName, fields: Readonly<Record<string, FieldSpec<XapiValue>>>): MethodTable {
  const read = (params: number, run: Method['run']): Method => ({ params, syncOnly: true, run });
  return {
    [`${className}.get_record`]: read(1, ({ world }, args) => world.getObject(className, text(args, 0)) as AnyRecord),
    [`${className}.get_by_uuid`]: read(1, ({ world }, args) => world.refByUuid(className, text(args, 0))),
    ...(isListed(className) && listMethods(className, read)),
    ...(Object.hasOwn(fields, 'name_label') && {
      [`${className}.get_by_name_label`]: read(1, ({ world }, args) => {
        const wanted = text(args, 0);
        return [...world.objects(className)]
          .filter(([, record]) => (record as AnyRecord)['name_label'] === wanted)
          .map(([found]) => found);
      }),
    }),
  };
}

function listMethods(className: ClassName, read: (params: number, run: Method['run']) => Method): MethodTable {
  const all: Method['run'] = ({ world }) => Object.fromEntries(world.objects(className)) as XapiMap;
  return {
    [`${className}.get_all`]: read(0, ({ world }) => [...world.objects(className)].map(([found]) => found)),
    [`${className}.get_all_records`]: read(0, all),
    [`${className}.get_all_records_where`]: read(1, all),
  };
}

function fieldMethods(className: ClassName, name: string, { kind, writable }: FieldSpec<XapiValue>): MethodTable {
  const readField = (call: Call, object: string) => (call.world.getObject(className, object) as AnyRecord)[name]!;
  const set = (call: Call, object: string, value: XapiValue) =>
    call.world.updateObject(className, object, { [name]: value } as Partial<RecordOf<ClassName>>);
  const write = (params: number, run: Method['run']): Method => ({ params, syncOnly: true, run });
  const table: Record<string, Method> = {
    [`${className}.get_${name}`]: write(1, (call, args) => readField(call, text(args, 0))),
  };
  if (!writable) return table;
  table[`${className}.set_${name}`] = write(2, (call, args) => {
    set(call, ref(call, className, args, 0), checked(kind, args[1]));
  });
  if (kind === 'map') {
    table[`${className}.add_to_${name}`] = write(3, (call, args) => {
      const [object, key] = [ref(call, className, args, 0), text(args, 1)];
      const map = textMap(readField(call, object));
      if (Object.hasOwn(map, key)) throw new XapiFailure('MAP_DUPLICATE_KEY', [className, name, object, key]);
      set(call, object, { ...map, [key]: text(args, 2) });
    });
    table[`${className}.remove_from_${name}`] = write(2, (call, args) => {
      const object = ref(call, className, args, 0);
      const { [text(args, 1)]: removed, ...rest } = textMap(readField(call, object));
      if (removed !== undefined) set(call, object, rest);
    });
  }
  if (kind === 'texts') {
    // tags: the calls speak of one tag
    table[`${className}.add_${name}`] = write(2, (call, args) => {
      const object = ref(call, className, args, 0);
      set(call, object, [...new Set([...texts(readField(call, object)), text(args, 1)])]);
    });
    table[`${className}.remove_${name}`] = write(2, (call, args) => {
      const object = ref(call, className, args, 0);
      set(
        call,
        object,
        texts(readField(call, object)).filter((item) => item !== text(args, 1)),
      );
    });
  }
  return table;
}

/** The value, if it is what the field holds. */
function checked(kind: FieldKind, value: XapiValue | undefined): XapiValue {
  switch (kind) {
    case 'map':
      return textMap(value);
    case 'texts':
    case 'refs':
      return texts(value);
    case 'int':
    case 'float':
      return number([value!], 0);
    case 'bool':
      if (typeof value !== 'boolean') throw typeFailure('bool', value);
      return value;
    default:
      if (typeof value !== 'string') throw typeFailure('string', value);
      return value;
  }
}
