const MIB = 1024 * 1024;

/** How many bytes of a disk one chunk holds, the last one excepted. Source: xen-api `ocaml/xapi/stream_vdi.ml`. */
export const XVA_CHUNK_SIZE = MIB;

/** The largest chunk that is read, in bytes. Every writer we know keeps to 1 MiB; the format would allow 8 GiB. */
export const MAX_CHUNK_SIZE = 16 * MIB;

/** The largest `ova.xml` that is read, in bytes. A host's is some 100 KiB. */
export const MAX_METADATA_SIZE = 8 * MIB;

/** The largest PAX or GNU extension of a tar header that is read, in bytes. */
export const MAX_EXTENSION_SIZE = 64 * 1024;

/** Chunk numbers have eight digits, so a disk ends here. */
export const MAX_CHUNK_NUMBER = 99_999_999;

export const OVA_XML = 'ova.xml';

/** How an archive is compressed, as a whole. */
export type XvaCompression = 'none' | 'gzip' | 'zstd';

/** XXH64, which hosts write since 8.1, or SHA-1, which those before it want. */
export type XvaChecksum = 'xxhash' | 'sha1';
