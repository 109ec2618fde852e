"""Looks through the whole file after other hands wrote to it: in a thread, on a connection of its own, one at a time.

What it finds closes the directory until a later look finds it whole. What is served meanwhile has been seen to be
whole slice by slice (directory_sqlite_slice.py). Must not hold what is looked for (directory_sqlite_check.py).

Trust: whoever can write the file can say that nobody wrote to it; slices are looked at all the same.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

from onbehalf.doors.directory_sqlite_check import require_pages, require_whole
from onbehalf.doors.directory_sqlite_schema import Standing, connected, standing
from onbehalf.errors import DirectoryUnavailable

__all__ = ["Look"]


class Look:
    """The looks through one file, and what the last of them found."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._begun = -1
        self._running = False
        self._failed: DirectoryUnavailable | None = None
        self._stopped = False

    def start(self, found: Standing, *, all_of_it: bool = False) -> None:
        """Look, where other hands wrote or the last look found damage, unless this content is looked at already.

        With `all_of_it` whoever wrote, and every page of the file. What comes while a look is under way is seen by a
        look right after it.
        """
        with self._lock:
            needed = all_of_it or found.unsealed or self._failed is not None
            if self._stopped or self._running or not needed or self._begun == found.touched:
                return
            self._running, self._begun = True, found.touched
            self._thread = threading.Thread(target=self._looks, args=(all_of_it,), name="directory look", daemon=True)
            self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether the last look found damage."""
        return self._failed is not None

    def require_passed(self) -> None:
        """Raise what was found, until a look finds the file whole."""
        failed = self._failed
        if failed is not None:
            raise DirectoryUnavailable(failed.message, hint=failed.hint)

    def ended(self, seconds: float) -> bool:
        """Whether no look is under way, or none after `seconds`."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def stop(self) -> None:
        """Give up, at the next part of what is looked at."""
        with self._lock:
            self._stopped = True
            if self._connection is not None:
                self._connection.interrupt()
        self.ended(10.0)

    def _looks(self, pages: bool) -> None:
        """Until what was looked at last is what stands: a write during a look is not seen by it."""
        try:
            with contextlib.closing(connected(self._path)) as connection:
                self._watched(connection)
                try:
                    while True:
                        found = self._look(connection, pages)
                        pages = False
                        with self._lock:
                            now = standing(connection)
                            if self._stopped or now.touched == found.touched:
                                self._running = False
                                return
                            self._begun = now.touched
                finally:
                    self._watched(None)
        except Exception as error:  # whatever it was, what could not be looked through is not served
            with self._lock:
                self._running, self._begun = False, -1
                if not self._stopped:
                    self._failed = DirectoryUnavailable(
                        f"the directory cannot be looked through: {error}", hint="see that its file can be read"
                    )

    def _watched(self, connection: sqlite3.Connection | None) -> None:
        with self._lock:
            self._connection = connection
            if self._stopped and connection is not None:
                connection.interrupt()

    def _look(self, connection: sqlite3.Connection, pages: bool) -> Standing:
        """One look at one content, from the first part to the last."""
        connection.execute("BEGIN")
        at = standing(connection)
        try:
            if pages:
                require_pages(connection)
            require_whole(connection)
        except DirectoryUnavailable as error:
            self._failed = error
            return at
        finally:
            connection.execute("ROLLBACK")
        self._failed = None
        self._seal(connection, at)
        return at

    def _seal(self, connection: sqlite3.Connection, at: Standing) -> None:
        """What was found whole counts as the gateway's own from now on; what came since does not."""
        if not at.unsealed:
            return
        # where a load holds the file for long, it stays unsealed: then it is only looked at once more
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute(
                "UPDATE meta SET revision = revision + ?1, sealed = sealed + ?1 WHERE touched - sealed >= ?1",
                (at.unsealed,),
            )
