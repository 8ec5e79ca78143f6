// node repack.mjs VMLINUZ STUB OUT: takes a Debian kernel apart and puts it together again with an LZ4 payload.
//
// A bzImage is a real-mode part with a header, then a decompressor that carries the kernel proper as an XZ stream. In
// v86 the decompressor runs for 2.8 s. Here the kernel proper is laid out flat, as it is to lie in memory, compressed
// with LZ4, and put behind our own decompressor (lz4-stub.asm). No compiler; needs the commands xz and lz4.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";

/** Fields of the kernel's header, by the names of the Linux/x86 Boot Protocol. */
const SETUP_SECTS = 0x1f1;
const SYSSIZE = 0x1f4;
const RELOCATABLE_KERNEL = 0x234;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const PREF_ADDRESS = 0x258;
const INIT_SIZE = 0x260;

/** Where the stub unpacks to, and where boot loaders put the stub. */
const KERNEL_AT = 0x1000000;
const STUB_AT = 0x100000;

const PT_LOAD = 1;

/** @param {Buffer} image @returns {{ setup: Buffer, kernel: Buffer }} the real-mode part, and the kernel as ELF */
function takeApart(image) {
  if (image.toString("latin1", 0x202, 0x206) !== "HdrS") throw new Error("not a Linux kernel");
  const preferred = Number(image.readBigUInt64LE(PREF_ADDRESS));
  if (preferred !== KERNEL_AT) throw new Error(`the kernel wants to be at 0x${preferred.toString(16)}, not at 16 MiB`);
  const setupEnd = ((image[SETUP_SECTS] || 4) + 1) * 512;
  const start = setupEnd + image.readUInt32LE(PAYLOAD_OFFSET);
  const payload = image.subarray(start, start + image.readUInt32LE(PAYLOAD_LENGTH));
  // After the stream come four bytes of size: not for xz, hence --single-stream.
  const kernel = execFileSync("xz", ["-dc", "--single-stream"], { input: payload, maxBuffer: 1 << 28 });
  if (kernel.toString("latin1", 0, 4) !== "\x7fELF") throw new Error("the payload is not an ELF file");
  return { setup: Buffer.from(image.subarray(0, setupEnd)), kernel };
}

/** The loadable segments at their places relative to KERNEL_AT. @param {Buffer} elf a 32-bit ELF file */
function flatten(elf) {
  const headers = elf.readUInt32LE(28);
  const segments = Array.from({ length: elf.readUInt16LE(44) }, (_, i) => elf.subarray(headers + i * 32))
    .filter((header) => header.readUInt32LE(0) === PT_LOAD)
    .map((header) => ({
      at: header.readUInt32LE(12) - KERNEL_AT,
      bytes: elf.subarray(header.readUInt32LE(4)).subarray(0, header.readUInt32LE(16)),
    }));
  const flat = Buffer.alloc(Math.max(...segments.map(({ at, bytes }) => at + bytes.length)));
  for (const { at, bytes } of segments) bytes.copy(flat, at);
  return flat;
}

/** @param {Buffer} flat @returns {Buffer} LZ4 legacy blocks, each with its size, and a size of 0 at the end */
function compress(flat) {
  const magicAndBlocks = execFileSync("lz4", ["-l", "-12", "-q", "-c", "-"], { input: flat, maxBuffer: 1 << 28 });
  return Buffer.concat([magicAndBlocks.subarray(4), Buffer.alloc(4)]);
}

/** @param {Buffer} setup @param {Buffer} body what a boot loader is to place at STUB_AT */
function putTogether(setup, body) {
  const padded = Buffer.concat([body, Buffer.alloc((16 - (body.length % 16)) % 16)]);
  const initSize = setup.readUInt32LE(INIT_SIZE);
  setup.writeUInt32LE(padded.length / 16, SYSSIZE);
  setup[RELOCATABLE_KERNEL] = 0;
  setup.writeBigUInt64LE(BigInt(STUB_AT), PREF_ADDRESS);
  setup.writeUInt32LE(KERNEL_AT - STUB_AT + initSize, INIT_SIZE);
  // The payload is no longer what these two promise.
  setup.writeUInt32LE(0, PAYLOAD_OFFSET);
  setup.writeUInt32LE(0, PAYLOAD_LENGTH);
  return Buffer.concat([setup, padded]);
}

const [vmlinuz, stub, out] = process.argv.slice(2);
if (vmlinuz === undefined || stub === undefined || out === undefined) {
  console.error("usage: node repack.mjs VMLINUZ STUB OUT");
  process.exit(2);
}
const { setup, kernel } = takeApart(readFileSync(vmlinuz));
writeFileSync(out, putTogether(setup, Buffer.concat([readFileSync(stub), compress(flatten(kernel))])));
