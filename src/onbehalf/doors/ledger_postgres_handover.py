"""The record in PostgreSQL, for a change of its keys: its head locked while no replica is there.

The transaction that holds the lock reads the whole log and commits the change. Whoever is only after what was changed
before looks with a gateway's own login. In both cases no gateway of this data folder starts meanwhile. Must not know
the order of a change (ledger_handover.py).

Trust: as ledger_postgres_handover_sql.py. A replica whose session ended for the server may still run, with the former
keys in memory: it is barred, and does not know the new head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

from onbehalf.doors.ledger_followed import handovers, require_newest
from onbehalf.doors.ledger_handover import Change
from onbehalf.doors.ledger_postgres_replica import Replica
from onbehalf.doors.ledger_postgres_session import Demands, Fenced, Head, Lost, Present, Session, open_session
from onbehalf.doors.ledger_reader import Scan, scan
from onbehalf.doors.ledger_store import View
from onbehalf.doors.ledger_waiting import require_whole
from onbehalf.errors import ConfigInvalid, LedgerUnavailable
from onbehalf.explain.handover import Handover
from onbehalf.explain.seal import LedgerKeys

__all__ = ["PostgresChangeable"]

_VERIFY = "keep the database as it is; `onbehalf audit verify` lists what does not hold"
_STOP = "stop all gateways of this record first, and commands that erase; then try again: docs/replicas.md"
_AGAIN = "see that it can be reached, and run it again: what was begun is finished or was not done"
_ROLE = "make a login in the role `onbehalf_log_rekeyer`, and name it with --login: docs/replicas.md"


class _Seen:
    """The record within a transaction, which `settle` ends."""

    def __init__(self, session: Session, view: View) -> None:
        self._session, self._view = session, view

    def handovers(self) -> tuple[Handover, ...]:
        return handovers(self._view)

    def settle(self) -> None:
        self._session.settle_handover()


class _Held(_Seen):
    """The record, whose head is locked."""

    def __init__(self, session: Session, view: View, head: Head) -> None:
        super().__init__(session, view)
        self._head = head

    def checked(self, keys: LedgerKeys) -> Scan:
        require_newest(self._view, keys)
        result, _ = scan(self._view, keys.signer.verifier)
        return require_whole(result, hint=_VERIFY)

    def commit(self, change: Change) -> None:
        place, told = (self._head.epoch, change.told.index), change.told.line().rstrip("\n")
        self._session.hand_over(place, (change.leaf, change.sealed), (change.root, change.note), told)


class PostgresChangeable:
    """One database, for the gateway whose file `replica` this is. To change keys, `demands` has a login that may."""

    def __init__(self, demands: Demands, *, replica: Path, origin: str) -> None:
        self._demands, self._replica, self._origin = demands, replica, origin

    @contextmanager
    def alone(self) -> Iterator[_Held]:
        with self._session() as session:
            if not session.may_hand_over():
                raise ConfigInvalid("this login may not change the keys of the record", hint=_ROLE)
            view = session.begin()
            head = session.lock_alone()
            with self._folder():
                yield _Held(session, view, head)

    @contextmanager
    def seen(self) -> Iterator[_Seen]:
        with self._session() as session, self._folder():
            yield _Seen(session, session.begin())

    def _folder(self) -> closing[Replica]:
        return closing(Replica.hold(self._replica, log=self._origin))

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with closing(open_session(self._demands)) as session:
                yield session
        except Present as error:
            raise LedgerUnavailable(f"the record is written: {error}", hint=_STOP) from error
        except (Lost, Fenced, psycopg.Error) as error:
            raise LedgerUnavailable(f"the ledger's database: {str(error).strip()}", hint=_AGAIN) from error
