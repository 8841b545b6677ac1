/**
 * The numbers of the NBD protocol that the keeper needs, in the spelling of doc/proto.md of the nbd project.
 */
export const NBDMAGIC = 0x4e42444d41474943n
export const IHAVEOPT = 0x49484156454f5054n
export const NBD_REP_MAGIC = 0x0003e889045565a9n
export const NBD_REQUEST_MAGIC = 0x25609513
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698

/** Both the server's and the client's: FIXED_NEWSTYLE and NO_ZEROES. */
export const HANDSHAKE_FLAGS = 3
export const NBD_FLAG_NO_ZEROES = 1 << 1

export const NBD_FLAG_HAS_FLAGS = 1 << 0
export const NBD_FLAG_READ_ONLY = 1 << 1
export const NBD_FLAG_SEND_FLUSH = 1 << 2
export const NBD_FLAG_SEND_FUA = 1 << 3
export const NBD_FLAG_SEND_TRIM = 1 << 5
export const NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6
export const NBD_FLAG_CAN_MULTI_CONN = 1 << 8

export const NBD_OPT_EXPORT_NAME = 1
export const NBD_OPT_ABORT = 2
export const NBD_OPT_INFO = 6
export const NBD_OPT_GO = 7
export const NBD_REP_ACK = 1
export const NBD_REP_INFO = 3
export const NBD_REP_ERR_UNSUP = 2 ** 31 + 1
export const NBD_INFO_EXPORT = 0

export const NBD_CMD_READ = 0
export const NBD_CMD_WRITE = 1
export const NBD_CMD_DISC = 2

export const REQUEST_BYTES = 28
export const REPLY_BYTES = 16
/** No server promises to take more than that in one request. */
export const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024

export const EIO = 5
export const ESHUTDOWN = 108
