export { abortableChunks } from './abortable-chunks.ts';
export { type BitRun, countSetBits, hasBit, nextBit, runsOfSetBits, setBits } from './bitmap.ts';
export { type ByteReader, byteReader } from './byte-reader.ts';
export {
  assertRange,
  type ByteSource,
  type FileSource,
  fileSource,
  memorySource,
  openFileSource,
  readBytes,
  readStruct,
} from './byte-source.ts';
export { type MemoryRing, memoryRing } from './memory-ring.ts';
export { exactly, type SizedStream } from './sized-stream.ts';
export { type SourceChunksOptions, sourceChunks } from './source-chunks.ts';
export {
  ascii,
  type Field,
  type Fields,
  raw,
  readSize64,
  type Shape,
  type Struct,
  size64,
  struct,
  u8,
  u16,
  u32,
  u64,
} from './struct.ts';
export { loadXxh64, type Xxh64, type Xxh64Hasher, xxh64Hex } from './xxh64.ts';
export { isZero, zeroes } from './zero.ts';
