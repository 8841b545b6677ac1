"""Every command through libnbd, and the errors that the protocol document names.

Arguments: URIs of a writable export of 64 MiB, a read-only one of 1 MiB, one of 1000001 bytes.
"""
import errno
import sys

import nbd

MIB = 1 << 20


def connect(uri, structured=True):
    handle = nbd.NBD()
    handle.set_request_structured_replies(structured)
    if structured:
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    # Let the server judge, not the library.
    handle.set_strict_mode(0)
    handle.connect_uri(uri)
    return handle


def refused(expected, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errnum == expected, (call.__name__, args, error.errnum, expected)
        return
    raise AssertionError("%s%r was not refused" % (call.__name__, args))


def data_of_every_size(handle):
    places = ((1, 0), (1, 4095), (513, 7), (4096, 8192), (65537, 3), (5 * MIB + 1, MIB - 1))
    for count, offset in places:
        payload = bytearray((i * 31 + count) & 0xFF for i in range(count % 4099 + 1))
        payload = (payload * (count // len(payload) + 1))[:count]
        handle.pwrite(payload, offset, nbd.CMD_FLAG_FUA)
        assert handle.pread(count, offset) == payload
    largest = bytearray(b"\x77" * (32 * MIB))
    handle.pwrite(largest, MIB)
    assert handle.pread(32 * MIB, MIB) == largest


def other_commands(handle):
    handle.pwrite(b"\xff" * 20000, 100)
    handle.zero(5000, 200)
    assert handle.pread(5200, 100) == b"\xff" * 100 + bytes(5000) + b"\xff" * 100
    handle.zero(8192, 8192, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    handle.zero(8192, 0, nbd.CMD_FLAG_FAST_ZERO)
    handle.trim(4096, 16384, nbd.CMD_FLAG_FUA)
    handle.cache(MIB, 0)
    handle.flush()


def errors(handle):
    size = handle.get_size()
    refused(errno.EINVAL, handle.pread, 2, size - 1)
    refused(errno.ENOSPC, handle.pwrite, b"ab", size - 1)
    refused(errno.ENOSPC, handle.zero, 2, size - 1)
    refused(errno.EINVAL, handle.trim, 2, size - 1)
    refused(errno.EINVAL, handle.cache, 2, size - 1)
    refused(errno.EINVAL, handle.pread, 1, 0, 1 << 14)
    handle.pread(1, 0)


def many_at_once(handle):
    """Answers find their requests whatever their order."""
    for block in range(256):
        handle.pwrite(bytes([block]) * 4096, block * 4096)
    buffers = []
    for block in range(256):
        buffer = nbd.Buffer(4096)
        buffers.append(buffer)
        handle.aio_pread(buffer, block * 4096, completion=lambda error: 1)
    while handle.aio_in_flight() > 0:
        handle.poll(-1)
    for block, buffer in enumerate(buffers):
        assert buffer.to_bytearray() == bytes([block]) * 4096


def chunks(handle):
    """Structured replies: DF gives one chunk; block status covers what was asked."""
    pieces = []

    def piece(data, offset, status, error):
        pieces.append((offset, len(data)))

    handle.pread_structured(256 * 1024, 5, piece, nbd.CMD_FLAG_DF)
    assert pieces == [(5, 256 * 1024)], pieces
    extents = []

    def extent(context, offset, entries, error):
        extents.append(entries)

    handle.block_status(MIB, 0, extent, nbd.CMD_FLAG_REQ_ONE)
    assert len(extents) == 1 and len(extents[0]) == 2 and 0 < extents[0][0] <= MIB, extents


def main():
    writable, read_only, odd = sys.argv[1:4]
    for structured in (True, False):
        handle = connect(writable, structured)
        assert handle.get_structured_replies_negotiated() == structured
        data_of_every_size(handle)
        other_commands(handle)
        errors(handle)
        many_at_once(handle)
        if structured:
            chunks(handle)
        handle.shutdown()

    handle = connect(read_only)
    refused(errno.EPERM, handle.pwrite, b"a", 0)
    refused(errno.EPERM, handle.zero, 1, 0)
    refused(errno.EPERM, handle.trim, 1, 0)
    assert handle.pread(4, 0) == bytes(4)
    handle.shutdown()

    handle = connect(odd)
    handle.pwrite(b"end", 1000001 - 3)
    assert handle.pread(3, 1000001 - 3) == b"end"
    handle.shutdown()
    print("all commands behaved")


main()
