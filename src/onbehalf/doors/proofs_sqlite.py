"""Which DPoP proofs were used, until none of them could be taken any more: in memory, and in one SQLite file.

Memory says whether a proof is new, at once and for all that come at the same time; the file (WAL, `synchronous=FULL`)
lets a restart know it too. A proof is taken only once it is in both. What was waited for at the same time is written in
one transaction. Proofs are kept by the digest of their key and id; of one key there are at most so many, so that no
client can fill what the others need. Full means refused: nothing is forgotten early. Must not know what a proof is.

Trust: whoever can delete rows here, or turn the clock back over a restart, can have a proof taken twice within its
window of time.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import sqlite3
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from onbehalf.errors import ConfigInvalid, ProofsUnavailable
from onbehalf.model import UnixTime

__all__ = ["SqliteProofs"]

MOST = 100_000
MOST_OF_ONE_KEY = 10_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS proof(
    name BLOB PRIMARY KEY, key TEXT NOT NULL, until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS proof_until ON proof(until);
"""
_BUSY_SECONDS = 5.0


class SqliteProofs:
    """Made by `open`, ended by `close`. Used within one event loop; one thread writes, in order."""

    def __init__(self, connection: sqlite3.Connection, *, most: int, most_of_one_key: int) -> None:
        self._connection = connection
        self._most, self._most_of_one_key = most, most_of_one_key
        self._seen: set[bytes] = set()
        self._of_key: Counter[str] = Counter()
        self._ends: list[tuple[int, bytes, str]] = []
        self._forgotten = 0
        self._pending: deque[tuple[bytes, str, int]] = deque()
        self._lost: set[bytes] = set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="proofs")

    @classmethod
    def open(
        cls, path: Path, *, now: UnixTime, most: int = MOST, most_of_one_key: int = MOST_OF_ONE_KEY
    ) -> SqliteProofs:
        """The file, made where it is missing, and what it knows that is not over. Raises ConfigInvalid."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            connection.execute("DELETE FROM proof WHERE until <= ?", (now,))
            rows = connection.execute("SELECT name, key, until FROM proof").fetchall()
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid(
                f"`{path}` cannot be used: {error}", hint="move it away after some minutes; it is made anew"
            ) from error
        made = cls(connection, most=most, most_of_one_key=most_of_one_key)
        made._forgotten = now
        for name, key, until in rows:
            made._keep(name, key, until)
        return made

    async def add(self, key: str, id_: str, *, now: UnixTime, until: UnixTime) -> bool:
        """Whether a proof by the key of this thumbprint is new; then it is not, from now until `until`.

        Raises ProofsUnavailable where it cannot be kept; the proof then counts as used here.
        """
        self._forget(now)
        name = sha256(f"{key}\0{id_}".encode("utf-8", "surrogatepass")).digest()
        if name in self._seen or until <= self._forgotten:  # what may have been forgotten is not new
            return False
        if len(self._seen) >= self._most or self._of_key[key] >= self._most_of_one_key:
            raise ProofsUnavailable(
                "more proofs are to be remembered than there is room for", hint="wait a minute, then try again"
            )
        self._keep(name, key, until)  # no await since the look: of two at once the second finds it
        self._pending.append((name, key, until))
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write)
        except RuntimeError as error:  # the thread is ended
            raise _unwritten() from error
        if name in self._lost:
            self._lost.discard(name)
            raise _unwritten()
        return True

    def close(self) -> None:
        """End the thread and the connection, after what is under way."""
        self._thread.shutdown()
        self._connection.close()

    def _keep(self, name: bytes, key: str, until: int) -> None:
        self._seen.add(name)
        self._of_key[key] += 1
        heapq.heappush(self._ends, (until, name, key))

    def _forget(self, now: UnixTime) -> None:
        self._forgotten = max(self._forgotten, now)  # a clock that is turned back makes nothing new again
        while self._ends and self._ends[0][0] <= self._forgotten:
            _, name, key = heapq.heappop(self._ends)
            self._seen.discard(name)
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]

    def _write(self) -> None:
        """Write all that waits. Who comes after that finds nothing to do: theirs was among it."""
        rows = []
        while self._pending:
            rows.append(self._pending.popleft())
        if not rows:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR REPLACE INTO proof VALUES (?, ?, ?)", rows)
                self._connection.execute("DELETE FROM proof WHERE until <= ?", (self._forgotten,))
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise
        except sqlite3.Error:
            self._lost.update(name for name, _, _ in rows)


def _unwritten() -> ProofsUnavailable:
    return ProofsUnavailable("it cannot be kept that the proof was used", hint="nothing was done; try again later")
