#!/usr/bin/python3
"""One NBD client of the workload `blocks`: random block reads, writes, FUA writes, zeroings and flushes, many in flight.

Every block has one writer (block % clients), whose versions grow by one; its contents repeat a unit that names
block, version and writer, so a torn or foreign block shows. The history goes to stdout, a line per event, with
times of CLOCK_MONOTONIC in microseconds, which all processes of the machine share:

    n T HOST            connected through that host
    W T ID BLOCK VERSION FLAGS    a write is sent (f: FUA, z: as zeroes)
    R T ID BLOCK        a read is sent
    F T ID              a flush is sent
    c T ID [VERSION|z]  answered; a read says what it saw
    b T ID TEXT         a read saw what nobody wrote
    e T ID ERRNO        answered by an error
    u T                 the connection is gone: what was not answered may have happened or not
    d T                 the reads asked for on stdin are done
    t T                 nothing new until T

Commands on stdin: `read BLOCK...`, `sweep` (read all), `home` (reconnect to the own host), `stop`.
"""
import argparse
import errno
import os
import random
import struct
import sys
import time

import nbd

BLOCK = 4096
UNIT = struct.Struct('<8sQQQ')
MAGIC = b'hf-chaos'
ZEROES = bytes(BLOCK)
CONNECT_SECONDS = 3.0
NOT_CONNECTED = (errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE)
# A write that was not answered may still be on its way; its block is left alone for so long.
SETTLE_SECONDS = 10.0


def now():
    return time.monotonic_ns() // 1000


def contents(block, version, writer):
    return UNIT.pack(MAGIC, block, version, writer) * (BLOCK // UNIT.size)


class Client:
    def __init__(self, options):
        self.o = options
        self.hosts = options.sockets.split(',')
        self.random = random.Random(options.seed * 1000 + options.id)
        self.handle = None
        self.host = options.home
        self.next_id = 0
        self.in_flight = {}  # id -> block of a write, or None
        self.writing = set()
        self.settling = {}  # block -> when it may be written again
        self.versions = {}
        self.wanted = []
        self.wanted_in_flight = set()
        self.asked = False
        self.stopping = False
        self.rehome = False
        self.lines = []
        self.commands = b''
        os.set_blocking(0, False)

    def say(self, line):
        self.lines.append(line)

    def flush_lines(self):
        if self.lines:
            sys.stdout.write('\n'.join(self.lines) + '\n')
            sys.stdout.flush()
            self.lines = []

    # --- connection

    def connect(self):
        """Own host first, then the others in turn; gives up after a while so that the ticks go on."""
        handle = nbd.NBD()
        try:
            handle.set_export_name(self.o.export)
            handle.aio_connect_unix(self.hosts[self.host])
            deadline = time.monotonic() + CONNECT_SECONDS
            while not handle.aio_is_ready():
                if handle.aio_is_dead() or handle.aio_is_closed() or time.monotonic() > deadline:
                    raise OSError('no connection')
                handle.poll(50)
                self.tick()
        except (nbd.Error, OSError):
            self.host = (self.host + 1) % len(self.hosts)
            time.sleep(0.1)
            return
        self.handle = handle
        self.say(f'n {now()} {self.host}')

    def lost(self):
        self.handle = None
        self.say(f'u {now()}')
        until = time.monotonic() + SETTLE_SECONDS
        for block in self.writing:
            self.settling[block] = until
        self.in_flight.clear()
        self.writing.clear()
        self.wanted += list(self.wanted_in_flight)
        self.wanted_in_flight.clear()
        self.host = self.o.home

    # --- operations

    def begin(self, block):
        self.next_id += 1
        self.in_flight[self.next_id] = block
        return self.next_id

    def done(self, handle, ident, error, block=None, buffer=None):
        # Errors of a dead connection are libnbd's own, no server sends them: `lost` deals with all of them.
        if handle is not self.handle or ident not in self.in_flight or error in NOT_CONNECTED:
            return 1
        t = now()
        written = self.in_flight.pop(ident)
        if error != 0:
            self.say(f'e {t} {ident} {error}')
            if written is not None:
                self.settling[written] = time.monotonic() + SETTLE_SECONDS
        elif buffer is not None:
            self.say(self.seen(t, ident, block, buffer.to_bytearray()))
        else:
            self.say(f'c {t} {ident}')
        if written is not None:
            self.writing.discard(written)
        if buffer is not None:
            self.wanted_in_flight.discard(block)
        return 1

    def seen(self, t, ident, block, data):
        if data == ZEROES:
            return f'c {t} {ident} z'
        magic, named, version, writer = UNIT.unpack_from(data)
        if magic == MAGIC and named == block and data == contents(block, version, writer):
            return f'c {t} {ident} {version}'
        tail = UNIT.unpack_from(data, BLOCK - UNIT.size)
        return f'b {t} {ident} head {magic!r} {named} {version} tail {tail[0]!r} {tail[1]} {tail[2]}'.replace('\n', ' ')

    def read(self, block):
        ident = self.begin(None)
        buffer = nbd.Buffer(BLOCK)
        handle = self.handle
        self.say(f'R {now()} {ident} {block}')
        handle.aio_pread(buffer, block * BLOCK,
                         lambda error: self.done(handle, ident, value(error), block, buffer))

    def write(self, block, fua, zero):
        version = self.versions.get(block, 0) + 1
        self.versions[block] = version
        self.writing.add(block)
        ident = self.begin(block)
        handle = self.handle
        flags = nbd.CMD_FLAG_FUA if fua else 0
        callback = lambda error: self.done(handle, ident, value(error))
        self.say(f"W {now()} {ident} {block} {version} {'f' if fua else ''}{'z' if zero else ''}-")
        if zero:
            handle.aio_zero(BLOCK, block * BLOCK, callback, flags)
        else:
            data = nbd.Buffer.from_bytearray(bytearray(contents(block, version, self.o.id)))
            handle.aio_pwrite(data, block * BLOCK, callback, flags)

    def flush(self):
        ident = self.begin(None)
        handle = self.handle
        self.say(f'F {now()} {ident}')
        handle.aio_flush(lambda error: self.done(handle, ident, value(error)))

    def pick(self):
        """Half of all goes to few hot blocks, where stale reads show soonest."""
        count = self.o.blocks
        return self.random.randrange(min(64, count) if self.random.random() < 0.5 else count)

    def own(self):
        block = self.pick()
        return block - block % self.o.clients + self.o.id

    def one(self):
        if self.wanted:
            block = self.wanted.pop()
            self.wanted_in_flight.add(block)
            self.read(block)
            return
        chance = self.random.random()
        if chance < 0.5:
            self.read(self.pick())
        elif chance < 0.53:
            self.flush()
        else:
            block = self.own()
            if block >= self.o.blocks or block in self.writing:
                return
            if self.settling.get(block, 0) > time.monotonic():
                return
            self.write(block, chance < 0.61, chance > 0.98)

    # --- the loop

    def obey(self):
        try:
            data = os.read(0, 65536)
        except BlockingIOError:
            return
        if data == b'':
            self.stopping = True
        self.commands += data
        *whole, self.commands = self.commands.split(b'\n')
        for line in whole:
            word, *rest = line.decode().split()
            if word == 'stop':
                self.stopping = True
            elif word == 'home':
                self.rehome = self.host != self.o.home
            else:
                self.wanted += [int(b) for b in rest] if word == 'read' else list(range(self.o.blocks))
                self.asked = True

    def tick(self):
        t = now()
        if t - self.ticked > 50_000:
            self.ticked = t
            self.say(f't {t}')
            self.flush_lines()

    def run(self):
        self.ticked = 0
        due = time.monotonic()
        while True:
            self.obey()
            if self.handle is None:
                if self.stopping:
                    break
                self.connect()
                self.tick()
                due = time.monotonic()
                continue
            idle = self.stopping or self.rehome
            try:
                while not idle and len(self.in_flight) < self.o.depth and (due <= time.monotonic() or self.wanted):
                    if not self.wanted:
                        due += 1 / self.o.rate
                    self.one()
                # After a pause the missed operations are not made up for.
                due = max(due, time.monotonic() - 0.1)
                wait = 0 if len(self.in_flight) < self.o.depth and self.wanted else 10
                self.handle.poll(wait)
                dead = self.handle.aio_is_dead() or self.handle.aio_is_closed()
            except nbd.Error:
                dead = True
            if dead:
                self.lost()
            elif idle and not self.in_flight:
                self.handle.aio_disconnect()
                if self.stopping:
                    break
                self.rehome = False
                self.handle = None
                self.host = self.o.home
            if self.asked and not self.wanted and not self.wanted_in_flight:
                self.asked = False
                self.say(f'd {now()}')
            self.tick()
        self.flush_lines()


def value(error):
    return getattr(error, 'value', error)


def main():
    parser = argparse.ArgumentParser()
    for name in ('id', 'clients', 'blocks', 'seed', 'depth', 'home'):
        parser.add_argument(f'--{name}', type=int, required=True)
    parser.add_argument('--rate', type=float, required=True)
    parser.add_argument('--export', required=True)
    parser.add_argument('--sockets', required=True)
    client = Client(parser.parse_args())
    try:
        client.run()
    finally:
        client.flush_lines()


main()
