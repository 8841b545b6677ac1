#!/usr/bin/python3
"""Writes files on a mounted filesystem, each made durable before it is told about; or verifies what is there.

    files_client.py write DIR SEED FIRST     until stdin ends; says `c T NUMBER BYTES` per file, `d T NUMBER` before it
                                             removes one, `x T ERRNO TEXT` when the filesystem refuses
    files_client.py verify DIR SEED          reads numbers from stdin; says `bad NUMBER TEXT` for each that is not right

The contents of file N follow from seed and N, so nothing has to be remembered but numbers.
"""
import os
import random
import select
import sys
import time

# Files stay for this many numbers, every seventh much longer: old extents among new ones, and never more than about
# 40 MB of them, however long and fast the run.
KEPT = 120
KEPT_LONG = 1200


def contents(seed, number):
    generator = random.Random(seed * 1_000_003 + number)
    return generator.randbytes(generator.randrange(1, 256 * 1024))


def path(folder, number):
    return os.path.join(folder, f'file-{number}')


def leaving(number):
    return [
        old
        for old, long in ((number - KEPT, False), (number - KEPT_LONG, True))
        if old >= 0 and (old % 7 == 0) == long
    ]


def say(*words):
    print(*words, flush=True)


def now():
    return time.monotonic_ns() // 1000


def write(folder, seed, number):
    directory = os.open(folder, os.O_RDONLY)
    while True:
        data = contents(seed, number)
        name = path(folder, number)
        # Written under another name first: what has the right name is whole.
        fd = os.open(name + '.new', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
        os.fsync(fd)
        os.close(fd)
        os.rename(name + '.new', name)
        os.fsync(directory)
        say('c', now(), number, len(data))
        for old in leaving(number):
            say('d', now(), old)
            try:
                os.unlink(path(folder, old))
            except FileNotFoundError:
                pass
        number += 1
        readable, _, _ = select.select([sys.stdin], [], [], 0.05)
        if readable and os.read(0, 4096) == b'':
            return


def verify(folder, seed):
    for number in map(int, sys.stdin.read().split()):
        try:
            with open(path(folder, number), 'rb') as file:
                found = file.read()
        except OSError as error:
            say('bad', number, error)
            continue
        wanted = contents(seed, number)
        if found != wanted:
            same = next((i for i, (a, b) in enumerate(zip(found, wanted)) if a != b), min(len(found), len(wanted)))
            say('bad', number, f'{len(found)} bytes for {len(wanted)}, different from byte {same}')


def main():
    mode, folder, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if mode == 'verify':
        verify(folder, seed)
        return
    try:
        write(folder, seed, int(sys.argv[4]))
    except OSError as error:
        say('x', now(), error.errno, str(error))


main()
