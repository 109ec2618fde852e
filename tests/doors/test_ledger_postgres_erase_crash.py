"""Killed at any step, an erasure from a record in PostgreSQL is not begun, or is finished by the next command, once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from doors.erase_house import ALICE, BOB
from doors.ledger_postgres_house import Record, sealing_of, wait_for
from doors.postgres_erase_house import erased, report, told, with_people
from onbehalf.doors.ledger_erase import resurrected
from onbehalf.doors.ledger_postgres import Patience
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.errors import LedgerUnavailable

SHORT = Patience(record=1, again=0.05, look=0.1, gone=0.5)


@pytest.fixture
def filled(tmp_path: Path, database: str) -> Record:
    return with_people(Record(tmp_path, database))


CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from doors.ledger_postgres_house import Record

path, dsn, at = Path(sys.argv[2]), sys.argv[3], sys.argv[4]
with Record(path, dsn, made=True).erasing(lambda step: step == at and os.kill(os.getpid(), signal.SIGKILL)) as erasing:
    asyncio.run(erasing.carry_out())
"""


@pytest.mark.parametrize("step", ["destroyed", "recorded"])
def test_a_process_that_is_killed_for_good_leaves_what_the_next_one_finishes(filled: Record, step: str) -> None:
    filled.asked("erase", ALICE)
    arguments = (str(Path(__file__).parents[1]), str(filled.path), filled.owner, step)
    process = subprocess.run([sys.executable, "-c", CHILD, *arguments], timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL
    alone = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 0 AND objsubid = 2"
    wait_for(lambda: filled.run(alone) == [], "that the server sees its session end")
    filled.erase()
    assert erased(filled) == [2, 4, 6, 8, 10]
    found = report(filled)
    assert found.ok
    assert found.kinds["erased"] == 1


class Killed(BaseException):
    """As kill -9: nothing of the command runs after it, and the server ends its sessions."""


def killed(record: Record, at: str, after: int = 0) -> None:
    """A command that is gone at a step, as the server sees it."""
    seen = [0]

    def stop(step: str) -> None:
        if step == at:
            seen[0] += 1
            if seen[0] > after:
                record.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                    "AND datname = current_database()"
                )
                raise Killed

    async def run() -> None:
        await erasing.begin()
        await erasing.carry_out()

    with pytest.raises(Killed), record.erasing(stop) as erasing:
        asyncio.run(run())


@pytest.mark.parametrize("step", ["asked", "renewed", "destroyed", "scrubbed", "recorded", "done"])
def test_an_erasure_that_is_killed_is_nothing_or_is_finished_by_the_next_command(filled: Record, step: str) -> None:
    request = filled.asked("erase", ALICE)
    killed(filled, step)
    assert told(filled, 4).erased == (step not in ("asked", "renewed"))
    findings = [each.text for each in report(filled).findings]
    assert bool(findings) == (step in ("destroyed", "scrubbed"))
    assert all("an erasure is under way" in each for each in findings)
    store = PostgresStore(filled.dsn)
    assert [*resurrected(store, sealing_of(filled.shared()))] == []  # so that a gateway starts
    store.close()
    filled.erase()
    assert erased(filled) == [2, 4, 6, 8, 10]
    found = report(filled)
    assert found.ok
    assert found.kinds["erased"] == 1
    assert [(each.id, each.count) for each in found.erasures] == [(request.id, 5)]
    assert filled.requests().pending() == ()


@pytest.mark.parametrize(
    ("step", "after"), [("step", 0), ("step", 1), ("deleted", 0), ("scrubbed", 0), ("recorded", 0)]
)
def test_a_retention_that_is_killed_is_finished_by_the_next_command_with_the_right_count(
    filled: Record, monkeypatch: pytest.MonkeyPatch, step: str, after: int
) -> None:
    monkeypatch.setattr("onbehalf.doors.ledger_postgres_erase.STEP", 3)
    request = filled.asked("retain", before=1006)
    killed(filled, step, after)
    filled.erase()
    found = report(filled)
    assert found.ok
    assert found.kinds["erased"] == 1
    assert [(each.id, each.count, each.first, each.last) for each in found.erasures] == [(request.id, 8, 0, 11)]


def test_one_request_is_on_record_once_though_two_commands_carry_it_out(filled: Record) -> None:
    """Both found no leaf of it, and only then did one of them append: the leaf's id is the request's."""
    request = filled.asked("erase", ALICE)

    def other(step: str) -> None:
        if step == "scrubbed":
            filled.run(
                "SELECT pg_terminate_backend(pid) FROM pg_locks "
                "WHERE locktype = 'advisory' AND objid = 0 AND objsubid = 2"
            )
            thread = threading.Thread(target=filled.erase)
            thread.start()
            thread.join(60)

    with filled.erasing(other, patience=SHORT) as it:
        it._on_record = lambda *_: None  # type: ignore[method-assign]  # as if it had looked before
        with pytest.raises(LedgerUnavailable, match="could not be written in time"):
            asyncio.run(it.carry_out())
    found = report(filled)
    assert found.ok
    assert [each.id for each in found.erasures] == [request.id]
    assert found.kinds["erased"] == 1


def test_two_commands_at_once_do_not_mix(filled: Record) -> None:
    with filled.erasing() as one, filled.erasing() as other:
        filled.asked("hold", ALICE)
        asyncio.run(one.carry_out())
        filled.asked("hold", BOB)
        with pytest.raises(Exception, match="another command erases now"):
            asyncio.run(other.carry_out())
