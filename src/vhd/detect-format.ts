const SIGNATURES: readonly { at: number; bytes: string; name: string }[] = [
  { at: 0, bytes: 'vhdxfile', name: 'a VHDX image (VHDX is not VHD: convert it with qemu-img)' },
  { at: 0, bytes: 'QFI\xfb', name: 'a QCOW2 image (hosts keep disks above 2040 GiB so: ask for format=qcow2)' },
  { at: 0, bytes: 'KDMV', name: 'a VMDK image (convert it with qemu-img)' },
  { at: 0, bytes: '# Disk DescriptorFile', name: 'a VMDK descriptor (convert it with qemu-img)' },
  { at: 0, bytes: '\x1f\x8b', name: 'gzip data (unpack it first)' },
  { at: 0, bytes: '\x28\xb5\x2f\xfd', name: 'zstd data (unpack it first)' },
  { at: 0, bytes: '\xfd7zXZ\0', name: 'xz data (unpack it first)' },
  { at: 0, bytes: 'PK\x03\x04', name: 'a zip archive (unpack it first)' },
  { at: 257, bytes: 'ustar', name: 'a tar archive (an XVA or OVA?)' },
  { at: 0, bytes: 'ova.xml\0', name: 'an XVA archive' },
];

/** What the first 512 bytes of something that is no VHD look like, in words for an error; `undefined`: like nothing known. */
export function detectFormat(head: Uint8Array): string | undefined {
  const text = Buffer.from(head.buffer, head.byteOffset, head.byteLength).toString('latin1');
  return httpHeadOf(head) ?? SIGNATURES.find(({ at, bytes }) => text.startsWith(bytes, at))?.name;
}

/**
 * The status line, where these bytes start with the head of an HTTP answer. A host that fails in the middle of an
 * export writes a second answer, `HTTP/1.1 500`, into the body of the first (xen-api issue 4603).
 */
export function httpHeadOf(bytes: Uint8Array): string | undefined {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, 200)).toString('latin1');
  const line = /^HTTP\/1\.[01] [1-5][0-9]{2}[^\r\n]*/.exec(text)?.[0];
  return line === undefined ? undefined : `an answer of a server, "${line.slice(0, 100)}"`;
}

/** As {@link httpHeadOf}, for an answer that starts anywhere in `bytes`. */
export function findHttpHead(bytes: Uint8Array): string | undefined {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = buffer.indexOf('HTTP/1.'); at >= 0; at = buffer.indexOf('HTTP/1.', at + 1)) {
    const head = httpHeadOf(buffer.subarray(at));
    if (head !== undefined) return head;
  }
  return undefined;
}
