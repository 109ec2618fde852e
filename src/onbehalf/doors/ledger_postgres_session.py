"""One connection of a replica to the ledger's database: what it demands of it, and each step of a transaction.

A step that fails in any way ends the connection: what a broken one has done is asked of the next one. Must not hold the
tree or a key (ledger_postgres_sequencer.py).

Trust: the server does what its settings say. Each new connection looks at them, and a replica that may do more than
append is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from onbehalf.doors.ledger_postgres_handover_sql import HAND_OVER, REKEYED
from onbehalf.doors.ledger_postgres_keys import KEY_GONE
from onbehalf.doors.ledger_postgres_schema import FENCED, LOCK_SPACE, PRESENT, STOPPED
from onbehalf.doors.ledger_postgres_store import PostgresView
from onbehalf.doors.ledger_store import View
from onbehalf.errors import ConfigInvalid

__all__ = ["ALIVE", "Demands", "Fenced", "Head", "KeyGone", "Lost", "Present", "Session", "open_session"]

_STATEMENT_SECONDS = 30
_HEAD_SECONDS = 10
"""How long to wait for whoever holds the head."""
_STEP = 4096
_LOCKED, _LEAVES = "SELECT * FROM onbehalf_log.lock_head", "SELECT entry FROM onbehalf_log.leaf"
ALIVE = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SETTINGS = f"""
SET statement_timeout = '{_STATEMENT_SECONDS}s'; SET lock_timeout = '{_HEAD_SECONDS}s';
SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;
SET client_min_messages = warning; SET TimeZone = 'UTC'; SET default_transaction_isolation = 'read committed';
SELECT set_config('idle_in_transaction_session_timeout', '%d', false),
       set_config('synchronous_commit', current_setting('synchronous_commit'), false),
       current_setting('fsync'), current_setting('full_page_writes'),
       current_setting('server_version_num')::integer, to_regclass('onbehalf_log.head') IS NOT NULL,
       to_regclass('onbehalf_keys.key') IS NOT NULL AND to_regclass('onbehalf_log.handover') IS NOT NULL
         AND to_regclass('onbehalf_log.cosignature') IS NOT NULL,
       pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""  # noqa: S608  # numbers of ours
_MIGHT = f"""
SELECT CASE
  WHEN EXISTS (SELECT FROM pg_roles s WHERE s.rolsuper AND pg_has_role(current_user, s.oid, 'MEMBER'))
    THEN 'is a superuser, or may become one'
  WHEN pg_has_role(current_user, n.nspowner, 'MEMBER') THEN 'owns the record, or may become its owner'
  ELSE coalesce(
    (SELECT 'may write the table ' || c.relname FROM pg_class c
       WHERE c.relnamespace IN (n.oid, to_regnamespace('onbehalf_keys')) AND c.relkind = 'r'
         AND has_table_privilege(current_user, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') ORDER BY 1 LIMIT 1),
    (SELECT 'may destroy keys of people' WHERE has_function_privilege(
       current_user, to_regprocedure('onbehalf_keys.destroy(bytea, bytea[], bytea)'), 'EXECUTE')),
    (SELECT 'may change the log''s keys' WHERE has_function_privilege(
       current_user, to_regprocedure('{HAND_OVER}'), 'EXECUTE'))) END
FROM pg_namespace n WHERE n.nspname = 'onbehalf_log'
"""  # noqa: S608  # a name of ours
_ABSENT = f"""
SELECT r.id FROM onbehalf_log.replica r WHERE r.gone IS NULL AND r.id <> %s AND NOT EXISTS (
  SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = {LOCK_SPACE} AND l.objid = r.id::oid
    AND l.objsubid = 2 AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""  # noqa: S608  # a number of ours
_GONE = "SELECT gone IS NOT NULL, onbehalf_log.former(id), barred FROM onbehalf_log.replica WHERE id = %s"
_TAKEN = "another replica took this one for gone"
_FORMER = "the log's keys were changed, and this replica has the former ones"
_DISOWNED = "a witness disowns this log, as another replica put on record"
_CALLED = "onbehalf_log.hand_over(%b, %b, %b, %b, %b, %b, %b)"
_OLDER = "`onbehalf db ledger` prints the SQL that brings them up to date; it can be run again: docs/replicas.md"
_HINT = "`onbehalf db ledger` prints the SQL that makes the record and its roles: docs/replicas.md"


class Lost(Exception):
    """Something failed on the way. Whether a commit that was under way is there is not known from this."""


class Fenced(Exception):
    """This replica may write nothing more: another one took it for gone and put an end to its open intents, the log's
    keys were changed, or a witness disowns the log."""


class KeyGone(Exception):
    """A payload is sealed with a person's key that is not there any more. The transaction must be ended by `leave`."""


class Present(Exception):
    """The replica that was to be taken for gone is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The signed head as it stands, locked for this transaction, and the next leaves that were asked for."""

    size: int
    root: bytes
    note: str
    epoch: int
    leaves: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """Where the ledger is, and what tests may do without. `idle_seconds` is how long a replica may hold the head
    without a word before the server ends its session."""

    dsn: str = field(repr=False)
    idle_seconds: float = 5.0
    insecure_durability: bool = False
    insecure_role: bool = False


class Session:
    """One connection. Every method raises Lost or Fenced, and after Lost only `close` is of use."""

    def __init__(self, connection: psycopg.Connection[Any], backend: tuple[int, Any]) -> None:
        self._connection = connection
        self._warnings: list[str] = []
        self.backend = backend
        """What this session is for the server, by which a later one can end it."""
        connection.add_notice_handler(self._noticed)

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    def end_earlier(self, backend: tuple[int, Any]) -> None:
        """End a session of this replica's that the server may still hold for alive."""
        with _told():
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"
            self._connection.execute(query, backend)

    def join(self, name: str) -> int:
        """A new replica's number."""
        with _told():
            [number] = _row(self._connection.execute("SELECT onbehalf_log.join_log(%s)", (name,)))
        return int(number)

    def hold(self, me: int) -> bool:
        """Show that this replica is there, for as long as this session lasts; whether nobody else does."""
        with _told():
            [held] = _row(self._connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCK_SPACE, me)))
        return bool(held)

    def absent(self, me: int) -> tuple[int, ...]:
        """Replicas whose sessions have ended, and that were not taken for gone yet. Raises Fenced if oneself was."""
        with _told():
            gone, former, barred = _row(self._connection.execute(_GONE, (me,)))
            if gone or former or barred:
                raise Fenced(_FORMER if former else _TAKEN if gone else _DISOWNED)
            return tuple(row[0] for row in self._connection.execute(_ABSENT, (me,)).fetchall())

    def lock(self, me: int, first: int) -> Head:
        """Begin a transaction with the head locked, and read leaves from `first` on, not all where they are many.

        In one journey, and as a simple query: after pipelined ones PostgreSQL 15 does not count how long it is idle.
        """
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
        leaves = f"{_LEAVES} WHERE idx >= {first:d} ORDER BY idx LIMIT {_STEP:d}"
        text = f"{begin}; {_LOCKED}({me:d}); {leaves}"
        with _told():
            cursor = self._connection.execute(text.encode(), prepare=False)
            cursor.nextset()
            size, root, note, epoch = _row(cursor)
            cursor.nextset()
            return Head(size=size, root=root, note=note, epoch=epoch, leaves=tuple(row[0] for row in cursor))

    def fence(self, me: int, other: int) -> int | None:
        """Take a replica for gone, within the transaction; from which index on it may have open intents.

        Raises Present, and ends the transaction, where its session has not ended.
        """
        try:
            with _told():
                [low] = _row(self._connection.execute("SELECT onbehalf_log.fence(%s, %s)", (me, other)))
        except Present:
            self.leave()
            raise
        return None if low is None else int(low)

    def leaves_of(self, other: int, low: int) -> Iterator[tuple[int, bytes]]:
        """Leaves of one replica from `low` on, within the transaction."""
        query = "SELECT idx, entry FROM onbehalf_log.leaf WHERE idx >= %s AND replica = %s ORDER BY idx"
        with _told():
            yield from self._connection.execute(query, (low, other), binary=True)

    def enter(
        self, me: int, head: tuple[int, int], rows: tuple[Sequence[bytes], Sequence[bytes]], signed: tuple[bytes, str],
        low: int,
    ) -> None:  # fmt: skip
        """Append leaves and payloads where the log ends, with the new root and note, and commit.

        `head` is epoch and size before. A warning is an error: a server says no more when it stops waiting for its
        standby, and commits all the same.
        """
        call = "SELECT onbehalf_log.enter(%b, %b, %b, %b, %b, %b, %b, %b)"
        with _told(), self._connection.pipeline():
            self._connection.execute(call, (me, *head, [*rows[0]], [*rows[1]], *signed, low))
            self._connection.execute("COMMIT")
        self._require_quiet()

    def settle(self, me: int) -> None:
        """Commit something that changes nothing, so that what was committed before is durable as well."""
        with _told(), self._connection.pipeline():
            self._connection.execute("SELECT onbehalf_log.settle(%s)", (me,))
            self._connection.execute("COMMIT")
        self._require_quiet()

    def leave(self) -> None:
        """End the transaction; nothing of it stays."""
        with _told():
            self._connection.execute("ROLLBACK")

    def begin(self) -> View:
        """Begin a transaction; what reads the record within it."""
        with _told():
            self._connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
            self._connection.execute("SET LOCAL search_path = onbehalf_log, pg_catalog")
        return PostgresView(self._connection)

    def lock_alone(self) -> Head:
        """Within a transaction lock the head, with no replica there. Raises Present where one is."""
        with _told():
            size, root, note, epoch = _row(self._connection.execute("SELECT * FROM onbehalf_log.lock_alone()"))
        return Head(size=size, root=root, note=note, epoch=epoch, leaves=())

    def hand_over(
        self, head: tuple[int, int], row: tuple[bytes, bytes], signed: tuple[bytes, str], told: str
    ) -> None:  # fmt: skip
        """Within that transaction append the leaf of a change with its payload, and commit. As `enter`."""
        with _told(), self._connection.pipeline():
            self._connection.execute(f"SELECT {_CALLED}", (*head, *row, *signed, told))
            self._connection.execute("COMMIT")
        self._require_quiet()

    def settle_handover(self) -> None:
        """Commit, so that every change of the log's keys that is seen within the transaction is durable as well."""
        with _told(), self._connection.pipeline():
            self._connection.execute("SELECT onbehalf_log.settle_handover()")
            self._connection.execute("COMMIT")
        self._require_quiet()

    def may_hand_over(self) -> bool:
        """Whether this login may change the log's keys."""
        with _told():
            [may] = _row(self._connection.execute("SELECT has_function_privilege(%s, 'EXECUTE')", (HAND_OVER,)))
        return bool(may)

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        self._warnings.append(f"{notice.message_primary} ({notice.sqlstate})")

    def _require_quiet(self) -> None:
        if self._warnings:
            raise Lost(f"the server warns: {self._warnings[0]}")


def open_session(demands: Demands) -> Session:
    """A new connection. Raises ConfigInvalid where the server is not what a record needs, Lost where there is none."""
    with _told():
        connection = psycopg.connect(make_conninfo(demands.dsn, **ALIVE), autocommit=True, prepare_threshold=1)
    try:
        with _told():
            cursor = connection.execute((_SETTINGS % round(demands.idle_seconds * 1000)).encode())
            while cursor.nextset():
                pass
            _, synchronous, fsync, pages, version, made, keyed, *backend = _row(cursor)
            might = None if not made else _row(connection.execute(_MIGHT))[0]
        _require(made, "the database has no record of onbehalf", _HINT)
        _require(keyed, "the record's tables are of an older release", _OLDER)
        _require(version >= 150_000, "the record needs PostgreSQL 15 or newer", "another server")
        if not demands.insecure_durability:
            weak = synchronous not in ("on", "remote_apply")
            _require(not weak, f"synchronous_commit is `{synchronous}`, expected `on` or `remote_apply`", _DURABLE)
            _require(fsync == "on", f"fsync is `{fsync}`, expected `on`", _DURABLE)
            _require(pages == "on", f"full_page_writes is `{pages}`, expected `on`", _DURABLE)
        if not demands.insecure_role:
            _require(might is None, f"the gateway's role {might}", f"a login in {_ROLE_HINT}")
        return Session(connection, (backend[0], backend[1]))
    except BaseException:
        connection.close()
        raise


_DURABLE = "what is said to be on record must survive the server; set it for this role or server"
_ROLE_HINT = "`onbehalf_log_writer` and no other role can append, and no more: docs/replicas.md"


def _require(holds: bool, message: str, hint: str) -> None:
    if not holds:
        raise ConfigInvalid(f"`gateway.ledger`: {message}", hint=hint)


def _row(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    found = cursor.fetchone()
    if found is None:
        raise Lost("the server gave no answer")
    return tuple(found)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What the driver raises, in the words of this file."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate == FENCED:
            raise Fenced(_TAKEN) from error
        if error.sqlstate == REKEYED:
            raise Fenced(_FORMER) from error
        if error.sqlstate == STOPPED:
            raise Fenced(_DISOWNED) from error
        if error.sqlstate == KEY_GONE:
            raise KeyGone from error
        if error.sqlstate == PRESENT:
            raise Present(error.diag.message_primary) from error
        reason = error.diag.message_primary or str(error).strip().split("\n")[0]
        raise Lost(f"{reason} ({error.sqlstate or type(error).__name__})") from error
