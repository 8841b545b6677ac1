#!/usr/bin/python3
"""A ledger in SQLite on a mounted filesystem: transfers between accounts, a row per commit.

    ledger_client.py write DIR SEED FIRST    until stdin ends; says `c T NUMBER` for each commit acknowledged, `x T ERRNO
                                             TEXT` when one fails
    ledger_client.py verify DIR SEED         reads the last number acknowledged from stdin; says `bad NUMBER TEXT`

The sum of all balances never changes, and commits are numbered without gaps: the one after the last acknowledged may
be there too.
"""
import os
import random
import select
import sqlite3
import sys
import time

ACCOUNTS = 200
TOTAL = ACCOUNTS * 1000


def say(*words):
    print(*words, flush=True)


def now():
    return time.monotonic_ns() // 1000


def connect(folder):
    connection = sqlite3.connect(os.path.join(folder, 'ledger.db'), isolation_level=None)
    connection.execute('PRAGMA journal_mode = WAL')
    connection.execute('PRAGMA synchronous = FULL')
    connection.execute('PRAGMA wal_autocheckpoint = 200')
    return connection


def prepare(connection):
    connection.execute('BEGIN')
    connection.execute('CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)')
    connection.execute('CREATE TABLE IF NOT EXISTS commits (number INTEGER PRIMARY KEY, note TEXT NOT NULL)')
    if connection.execute('SELECT count(*) FROM accounts').fetchone()[0] == 0:
        connection.executemany('INSERT INTO accounts VALUES (?, 1000)', [(i,) for i in range(ACCOUNTS)])
    connection.execute('COMMIT')


def write(folder, seed, first):
    connection = connect(folder)
    prepare(connection)
    # A commit that was never acknowledged may be there.
    number = max(first, connection.execute('SELECT coalesce(max(number), 0) + 1 FROM commits').fetchone()[0])
    generator = random.Random(seed * 1_000_003 + number)
    while True:
        a, b = generator.sample(range(ACCOUNTS), 2)
        amount = generator.randrange(1, 50)
        connection.execute('BEGIN IMMEDIATE')
        connection.execute('UPDATE accounts SET balance = balance - ? WHERE id = ?', (amount, a))
        connection.execute('UPDATE accounts SET balance = balance + ? WHERE id = ?', (amount, b))
        note = generator.randbytes(generator.randrange(10, 500)).hex()
        connection.execute('INSERT INTO commits VALUES (?, ?)', (number, note))
        connection.execute('COMMIT')
        say('c', now(), number)
        number += 1
        readable, _, _ = select.select([sys.stdin], [], [], 0.02)
        if readable and os.read(0, 4096) == b'':
            connection.close()
            return


def verify(folder):
    acknowledged = int(sys.stdin.read().strip() or 0)
    if not os.path.exists(os.path.join(folder, 'ledger.db')):
        if acknowledged > 0:
            say('bad', acknowledged, 'the database is gone')
        return
    connection = connect(folder)
    answer = [row[0] for row in connection.execute('PRAGMA integrity_check')]
    if answer != ['ok']:
        say('bad', 0, 'integrity_check:', '; '.join(answer)[:500])
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
    if tables == 0 and acknowledged == 0:
        return
    total = connection.execute('SELECT sum(balance) FROM accounts').fetchone()[0]
    if total != TOTAL:
        say('bad', 0, f'the balances sum up to {total}, not {TOTAL}')
    count, last = connection.execute('SELECT count(*), coalesce(max(number), 0) FROM commits').fetchone()
    if last < acknowledged:
        say('bad', acknowledged, f'was acknowledged; the last one there is {last}')
    if count != last:
        say('bad', last, f'{count} commits for numbers up to {last}')
    connection.close()


def main():
    mode, folder, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        if mode == 'verify':
            verify(folder)
        else:
            write(folder, seed, int(sys.argv[4]))
    except (OSError, sqlite3.Error) as error:
        if mode == 'verify':
            say('bad', 0, f'{type(error).__name__}: {error}')
        else:
            say('x', now(), getattr(error, 'errno', None) or 5, str(error))


main()
