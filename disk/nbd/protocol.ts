/**
 * The numbers of the NBD protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md. All integers on
 * the wire are big-endian. What the specification calls `cookie` (once `handle`) is two u32 here.
 */

/** `NBDMAGIC`, `IHAVEOPT`, and what begins a reply to an option, each as two u32. */
export const INIT_MAGIC = [0x4e42444d, 0x41474943] as const;
export const OPTION_MAGIC = [0x49484156, 0x454f5054] as const;
export const OPTION_REPLY_MAGIC = [0x0003e889, 0x045565a9] as const;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const CHUNK_MAGIC = 0x668e33ef;

/** Bytes of: the server's first message, an option's header, its reply's header, a request, the two kinds of reply. */
export const GREETING = 18, OPTION_HEADER = 16, OPTION_REPLY_HEADER = 20, REQUEST = 28, SIMPLE_REPLY = 16, CHUNK = 20;
/** What follows the header of a chunk with data, before the data. */
export const DATA_OFFSET = 8;

/** "Handshake flags" and "Client flags": the same bits. */
export const Handshake = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const Option = {
  exportName: 1, abort: 2, list: 3, startTls: 5, info: 6, go: 7, structuredReply: 8, listMetaContext: 9, setMetaContext: 10,
} as const;

export const Reply = { ack: 1, server: 2, info: 3, metaContext: 4 } as const;

const ERROR = 2 ** 31;
export const ReplyError = {
  unsupported: ERROR + 1, policy: ERROR + 2, invalid: ERROR + 3, platform: ERROR + 4, tlsRequired: ERROR + 5,
  unknown: ERROR + 6, shutdown: ERROR + 7, blockSizeRequired: ERROR + 8, tooBig: ERROR + 9,
} as const;
export const isReplyError = (type: number): boolean => type >= ERROR;

/** What `NBD_OPT_INFO` and `NBD_OPT_GO` tell. */
export const Info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** "Transmission flags": what an export can. */
export const Flag = {
  hasFlags: 1, readOnly: 2, flush: 4, fua: 8, rotational: 16, trim: 32, writeZeroes: 64, df: 128, multiConn: 256, resize: 512, cache: 1024, fastZero: 2048,
} as const;

export const Command = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, cache: 5, writeZeroes: 6, blockStatus: 7 } as const;

export const CommandFlag = { fua: 1, noHole: 2, df: 4, requestOne: 8, fastZero: 16 } as const;

export const Chunk = { none: 0, offsetData: 1, offsetHole: 2, blockStatus: 5, error: 0x8001, errorOffset: 0x8002 } as const;
export const isErrorChunk = (type: number): boolean => type >= 0x8000;
/** `NBD_REPLY_FLAG_DONE`: the last chunk of a reply. */
export const DONE = 1;

/** The flags of `base:allocation`. */
export const State = { hole: 1, zero: 2 } as const;
export const BASE_ALLOCATION = "base:allocation";
/** QEMU's own: how deep in the chain a range stands (1: the top; 0: nowhere). */
export const ALLOCATION_DEPTH = "qemu:allocation-depth";
/** QEMU's own, before a bitmap's name: flag 1 where it is dirty. */
export const DIRTY_BITMAP = "qemu:dirty-bitmap:";

/** "Error values". */
export const Errno = { perm: 1, io: 5, noMemory: 12, invalid: 22, noSpace: 28, overflow: 75, notSupported: 95, shutdown: 108 } as const;

/** The largest request that clients may expect of a server that says nothing, and that we serve, in bytes. */
export const MAX_REQUEST = 32 << 20;
/** "Strings": longer names are refused. */
export const MAX_STRING = 4096;
/** The usual port. */
export const PORT = 10809;
