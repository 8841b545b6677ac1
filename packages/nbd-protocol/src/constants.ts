/**
 * Numbers of the NBD protocol in the spelling of its document (doc/proto.md of the nbd project),
 * the extension "extended headers" included. The only file whose names are not camelCase.
 */

/** 64-bit magics as pairs of 32-bit words, high word first. */
export const NBDMAGIC_HIGH = 0x4e42444d
export const NBDMAGIC_LOW = 0x41474943
export const IHAVEOPT_HIGH = 0x49484156
export const IHAVEOPT_LOW = 0x454f5054
export const NBD_REP_MAGIC_HIGH = 0x0003e889
export const NBD_REP_MAGIC_LOW = 0x045565a9

export const NBD_REQUEST_MAGIC = 0x25609513
export const NBD_EXTENDED_REQUEST_MAGIC = 0x21e41c71
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef
export const NBD_EXTENDED_REPLY_MAGIC = 0x6e8a278c

/** Handshake flags (server) and client flags. */
export const NBD_FLAG_FIXED_NEWSTYLE = 1 << 0
export const NBD_FLAG_NO_ZEROES = 1 << 1
export const NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0
export const NBD_FLAG_C_NO_ZEROES = 1 << 1

/** Transmission flags. */
export const NBD_FLAG_HAS_FLAGS = 1 << 0
export const NBD_FLAG_READ_ONLY = 1 << 1
export const NBD_FLAG_SEND_FLUSH = 1 << 2
export const NBD_FLAG_SEND_FUA = 1 << 3
export const NBD_FLAG_SEND_TRIM = 1 << 5
export const NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6
export const NBD_FLAG_SEND_DF = 1 << 7
export const NBD_FLAG_CAN_MULTI_CONN = 1 << 8
export const NBD_FLAG_SEND_CACHE = 1 << 10
export const NBD_FLAG_SEND_FAST_ZERO = 1 << 11
export const NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12

/** Option types. */
export const NBD_OPT_EXPORT_NAME = 1
export const NBD_OPT_ABORT = 2
export const NBD_OPT_LIST = 3
export const NBD_OPT_STARTTLS = 5
export const NBD_OPT_INFO = 6
export const NBD_OPT_GO = 7
export const NBD_OPT_STRUCTURED_REPLY = 8
export const NBD_OPT_LIST_META_CONTEXT = 9
export const NBD_OPT_SET_META_CONTEXT = 10
export const NBD_OPT_EXTENDED_HEADERS = 11

/** Option reply types. */
export const NBD_REP_ACK = 1
export const NBD_REP_SERVER = 2
export const NBD_REP_INFO = 3
export const NBD_REP_META_CONTEXT = 4
export const NBD_REP_ERR_UNSUP = 2 ** 31 + 1
export const NBD_REP_ERR_POLICY = 2 ** 31 + 2
export const NBD_REP_ERR_INVALID = 2 ** 31 + 3
export const NBD_REP_ERR_UNKNOWN = 2 ** 31 + 6
export const NBD_REP_ERR_SHUTDOWN = 2 ** 31 + 7
export const NBD_REP_ERR_TOO_BIG = 2 ** 31 + 9
export const NBD_REP_ERR_EXT_HEADER_REQD = 2 ** 31 + 10

/** Information types of NBD_OPT_INFO and NBD_OPT_GO. */
export const NBD_INFO_EXPORT = 0
export const NBD_INFO_NAME = 1
export const NBD_INFO_DESCRIPTION = 2
export const NBD_INFO_BLOCK_SIZE = 3

/** Request types. */
export const NBD_CMD_READ = 0
export const NBD_CMD_WRITE = 1
export const NBD_CMD_DISC = 2
export const NBD_CMD_FLUSH = 3
export const NBD_CMD_TRIM = 4
export const NBD_CMD_CACHE = 5
export const NBD_CMD_WRITE_ZEROES = 6
export const NBD_CMD_BLOCK_STATUS = 7

/** Command flags. */
export const NBD_CMD_FLAG_FUA = 1 << 0
export const NBD_CMD_FLAG_NO_HOLE = 1 << 1
export const NBD_CMD_FLAG_DF = 1 << 2
export const NBD_CMD_FLAG_REQ_ONE = 1 << 3
export const NBD_CMD_FLAG_FAST_ZERO = 1 << 4
export const NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5

/** Structured and extended replies. */
export const NBD_REPLY_FLAG_DONE = 1 << 0
export const NBD_REPLY_TYPE_NONE = 0
export const NBD_REPLY_TYPE_OFFSET_DATA = 1
export const NBD_REPLY_TYPE_BLOCK_STATUS = 5
export const NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6
export const NBD_REPLY_TYPE_ERROR = 2 ** 15 + 1

/** Status flags of the context `base:allocation`. */
export const NBD_STATE_HOLE = 1 << 0
export const NBD_STATE_ZERO = 1 << 1

/** What this server promises about sizes ("Size constraints"), in bytes. */
export const BLOCK_SIZE_MIN = 1
export const BLOCK_SIZE_PREFERRED = 4096
export const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024
/** No string of the protocol may be longer ("Conventions"). */
export const STRING_BYTES_MAX = 4096

export const COMPACT_REQUEST_BYTES = 28
export const EXTENDED_REQUEST_BYTES = 32
export const SIMPLE_REPLY_BYTES = 16
export const STRUCTURED_REPLY_BYTES = 20
export const EXTENDED_REPLY_BYTES = 32
