export type ClassName = keyof Model; // replaced below by the whole model
type Model = { VM: unknown; VDI: unknown; task: unknown };
export type RecordOf<C extends ClassName> = { [field: string]: unknown; readonly uuid: string } & {
  readonly __class?: C;
};
