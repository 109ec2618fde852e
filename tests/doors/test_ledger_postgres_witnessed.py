"""Witnesses of a record that replicas share: who is overtaken asks again, and who disowns the log stops them all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from doors.ledger_postgres_house import QUICK, Record, Wire, appended, entry, wait_for
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_heads_kept import HeadsFile
from onbehalf.doors.ledger_postgres import Patience, PostgresLedger
from onbehalf.doors.ledger_postgres_heads import SharedHeads
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.doors.witness_quorum import QuorumWitnesses, Rounds
from onbehalf.errors import LedgerUnavailable, WitnessesUnavailable
from onbehalf.explain import quorum
from onbehalf.explain.checkpoint import Head, write
from onbehalf.explain.cosignature import cosigned
from onbehalf.explain.leaf import read
from onbehalf.model import AuditEntry, Receipt, UnixTime
from onbehalf.witness.judge import Answer
from witness_house import Told, asking, policy_text, witnessing


@pytest.fixture
def record(tmp_path: Path, database: str) -> Record:
    return Record(tmp_path, database)


@dataclass(slots=True)
class House:
    """One replica, its heads, and the witnesses that it asks."""

    ledger: PostgresLedger
    heads: LedgerHeads
    witnesses: QuorumWitnesses
    stopped: list[str]

    async def witnessed(self, number: int, kind: str = "denial") -> Receipt:
        return await self.witnesses.cosigned(await self.ledger.append(entry(number, kind)))


@asynccontextmanager
async def replica(
    record: Record, policy: quorum.Policy, name: str, *, wait_s: float = 10, running: bool = True, dsn: str = "",
    patience: Patience = QUICK,
) -> AsyncIterator[House]:  # fmt: skip
    ledger = await asyncio.to_thread(record.replica, name, dsn=dsn, patience=patience)
    kept = SharedHeads(record.dsn, HeadsFile(record.path / name / "heads.db"))
    heads = LedgerHeads(PostgresStore(record.dsn, primary=True), kept, verifier=record.keys.signer.verifier)
    stopped: list[str] = []

    def stop(why: str) -> None:
        stopped.append(why)
        ledger.stop(AuditEntry(kind="witness_refused", call="", at=UnixTime(9), facts={"reason": why}), why)

    rounds = Rounds(wait_s=wait_s, every_s=600, stop=stop)
    try:
        async with asking(policy, heads, rounds, running=running) as made:
            yield House(ledger, heads, made, stopped)
    finally:
        await asyncio.to_thread(ledger.close)


def log_of(record: Record) -> str:
    return record.keys.signer.verifier.vkey


def policy_of(*told: Told, quorum_: str = "all") -> quorum.Policy:
    named = [(f"w{number}", each.vkey, each.url) for number, each in enumerate(told)]
    return quorum.parse(policy_text(*named, quorum=quorum_).encode())


def meanwhile(heads: LedgerHeads, act: Callable[[], None]) -> None:
    """Have something happen once, between a round's look at the newest head and its questions to the witnesses."""
    newest, done = heads.newest, threading.Event()

    def look() -> Head:
        found = newest()
        if not done.is_set():
            done.set()
            act()
        return found

    heads.newest = look  # type: ignore[method-assign]


def require_shown(record: Record, policy: quorum.Policy, *receipts: Receipt) -> None:
    """Each names a head over its own leaf that is kept for all, and that its quorum cosigned."""
    kept = SharedHeads(record.dsn, None)
    of = LedgerHeads(PostgresStore(record.dsn), kept, verifier=record.keys.signer.verifier)
    for each in receipts:
        assert each.witnessed is not None
        assert each.witnessed.size > each.index
        note = of.noted(each.witnessed.size)
        head = of.signed(note)
        assert of.begins_with(head)
        by = {one.name for one in policy.witnesses if cosigned(note, one.key, head) is not None}
        assert policy.met(by)
        assert {name for name, _ in each.witnessed.by} <= by
    of.close()


def test_calls_of_two_replicas_at_once_are_all_witnessed_by_both_witnesses(record: Record, tmp_path: Path) -> None:
    with (
        witnessing(tmp_path / "v", log=log_of(record), name="w.example/1") as v,
        witnessing(tmp_path / "w", log=log_of(record), name="w.example/2") as w,
    ):
        policy = policy_of(v, w)

        async def some(house: House, first: int) -> list[Receipt]:
            found = []
            for number in range(first, first + 40, 4):
                found += await asyncio.gather(*(house.witnessed(each) for each in range(number, number + 4)))
            assert house.stopped == []
            return found

        async def walk() -> list[Receipt]:
            async with replica(record, policy, "a") as one, replica(record, policy, "b") as two:
                both = await asyncio.gather(some(one, 0), some(two, 100))
            return [each for found in both for each in found]

        receipts = asyncio.run(walk())
        assert len(receipts) == 80
        require_shown(record, policy, *receipts)
    assert record.verified() == 80


def test_a_replica_that_was_overtaken_asks_again_within_its_round(record: Record, tmp_path: Path) -> None:
    with witnessing(tmp_path / "w", log=log_of(record)) as w:
        policy = policy_of(w)

        async def walk() -> None:
            async with replica(record, policy, "a", running=False) as one, replica(record, policy, "b") as two:
                loop = asyncio.get_running_loop()
                meanwhile(
                    one.heads, lambda: asyncio.run_coroutine_threadsafe(two.witnessed(2), loop).result(30) and None
                )
                waiting = asyncio.create_task(one.witnessed(1))
                wait = await asyncio.wait({waiting}, timeout=0)
                assert wait[1]
                while not one.witnesses._waiting:
                    await asyncio.sleep(0.01)
                w.asked.clear()
                await one.witnesses._round()
                receipt = await waiting
                require_shown(record, policy, receipt)
                assert receipt.witnessed is not None
                assert receipt.witnessed.size == 2, "the head over both, which both had cosigned"
                assert one.witnesses.problems() == {}
                assert one.stopped == two.stopped == []

        asyncio.run(walk())


def test_a_witness_that_sees_others_first_each_time_is_answered_by_what_they_had_cosigned(
    record: Record, tmp_path: Path
) -> None:
    with witnessing(tmp_path / "w", log=log_of(record)) as w:
        policy = policy_of(w)

        async def walk() -> None:
            async with replica(record, policy, "a", running=False) as one, replica(record, policy, "b") as two:
                first = await one.ledger.append(entry(1))
                point = (await asyncio.to_thread(one.heads.newest)).checkpoint
                other = await two.witnessed(2)
                assert other.witnessed is not None
                w.change = lambda _: Answer(status=409, body="2\n", kind="text/x.tlog.size")
                waiting = asyncio.create_task(one.witnesses.cosigned(first))
                while not one.witnesses._waiting:
                    await asyncio.sleep(0.01)
                newest, early = one.heads.newest, [Head(checkpoint=point, note=write(point, record.keys.signer))]
                one.heads.newest = lambda: early.pop() if early else newest()  # type: ignore[method-assign]
                await one.witnesses._round()
                receipt = await waiting
                assert receipt.witnessed == other.witnessed
                require_shown(record, policy, receipt)

        asyncio.run(walk())


def test_what_somebody_wrote_under_a_head_is_no_cosignature(record: Record, tmp_path: Path) -> None:
    with witnessing(tmp_path / "w", log=log_of(record)) as w:
        policy = policy_of(w)

        async def walk() -> None:
            async with replica(record, policy, "a", wait_s=1) as one:
                await one.ledger.append(entry(1))
                await one.ledger.append(entry(2))
                head = one.heads.newest()
                one.heads.keep(head, {"w0": (7, "— w.example/1 AAAA\n")})
                w.change = lambda _: Answer(status=409, body="2\n", kind="text/x.tlog.size")
                first = await one.ledger.append(entry(3))
                with pytest.raises(WitnessesUnavailable):
                    await one.witnesses.cosigned(first)
                assert one.stopped == []

        asyncio.run(walk())


def kinds(record: Record) -> list[str]:
    return [read(leaf).kind for (leaf,) in record.run("SELECT entry FROM onbehalf_log.leaf ORDER BY idx")]


def test_a_witness_that_disowns_the_log_stops_every_replica_that_is_there(record: Record, tmp_path: Path) -> None:
    with witnessing(tmp_path / "w", log=log_of(record)) as w:
        policy = policy_of(w)

        async def walk() -> None:
            busy = Patience(record=5, again=0.05, look=60, gone=0.5)  # it learns of it when it next writes
            still = Patience(record=5, again=0.05, look=0.1, gone=600)  # and this one without ever writing
            async with (
                replica(record, policy, "a") as one,
                replica(record, policy, "idle", running=False, patience=still) as idle,
                replica(record, policy, "busy", running=False, patience=busy) as other,
            ):
                await one.witnessed(1)
                intent = await other.ledger.append(entry(2, "intent"))
                w.change = lambda _: Answer(status=422, body="")
                with pytest.raises(LedgerUnavailable, match=r"w0.*\(422\)"):
                    await one.witnessed(3)
                with pytest.raises(LedgerUnavailable, match=r"w0.*\(422\)"):
                    await one.ledger.append(entry(4))
                wait = asyncio.to_thread(wait_for, lambda: kinds(record)[-1] == "witness_refused", "the last leaf")
                await wait
                with pytest.raises(LedgerUnavailable, match="a witness disowns this log"):
                    await other.ledger.append(entry(5))
                await asyncio.to_thread(wait_for, lambda: idle.ledger.closed, "that it is told")
                for each in (idle, other):
                    assert "a witness disowns this log" in each.ledger.closed
                assert intent.index == 1

        asyncio.run(walk())
        assert kinds(record) == ["denial", "intent", "denial", "witness_refused"]
        w.change = lambda answer: answer

        async def again() -> None:
            async with replica(record, policy, "busy") as one:
                [found] = one.ledger.recovered
                assert found.index == 1
                assert (await one.witnessed(6)).witnessed is not None

        asyncio.run(again())
    assert kinds(record)[4:] == ["unknown", "denial"]
    record.verified()


def test_the_database_takes_nothing_more_of_a_replica_that_is_barred_whatever_it_calls(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = record.replica("one"), record.replica("other", patience=Patience(look=60))
    appended(one, 1)
    me = other._sequencer.me
    one.stop(AuditEntry(kind="witness_refused", call="", at=UnixTime(9), facts={"reason": "so"}), "so")
    wait_for(lambda: not one._thread.is_alive(), "that its writer has ended")
    assert caplog.messages == [], "it ends because it is told to, and tries nothing that the database refuses"
    assert kinds(record)[-1] == "witness_refused"
    [(size, note, epoch)] = record.run("SELECT size, note, epoch FROM onbehalf_log.head")
    leaf = b'{"id":"%b","call":"","at":1,"kind":"denial"}' % (b"0" * 32)
    longer = note.replace(f"\n{size}\n", f"\n{size + 1}\n")
    with psycopg.connect(record.dsn, autocommit=True) as gateway:
        for statement, values in (
            ("SELECT onbehalf_log.enter(%s, %s::bigint, %s::bigint, %s, %s, %s, %s, 0)",
             (me, epoch, size, [leaf], [b""], b"", longer)),
            ("SELECT onbehalf_log.lock_head(%s)", (me,)),
            ("SELECT onbehalf_log.fence(%s, %s)", (me, one._sequencer.me)),
        ):  # fmt: skip
            with pytest.raises(psycopg.Error) as refused:
                gateway.execute(statement.encode(), values)
            assert refused.value.sqlstate in ("OB001", "OB007")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            gateway.execute("UPDATE onbehalf_log.replica SET barred = false")
    for each in (one, other):
        each.close()
    assert record.run("SELECT size FROM onbehalf_log.head") == [(size,)]


def test_words_of_a_call_bar_nobody(record: Record) -> None:
    ledger = record.replica()

    async def walk() -> None:
        await ledger.append(AuditEntry(kind="denial", call='"witness_refused"', at=UnixTime(1), facts={}))
        await ledger.append(AuditEntry(kind="denial", call="witness_refused", at=UnixTime(1), facts={}))
        await ledger.append(entry(1))

    asyncio.run(walk())
    ledger.close()
    assert record.run("SELECT count(*) FROM onbehalf_log.replica WHERE barred") == [(0,)]


def test_a_stop_that_cannot_be_written_holds_here_at_once_and_everywhere_when_the_database_is_back(
    record: Record,
) -> None:
    wire = Wire(record.dsn)
    one = record.replica("one", dsn=wire.dsn, patience=Patience(record=0.2, again=0.05, look=0.1))
    other = record.replica("other")
    appended(one, 1)
    wire.open = False
    wire.cut()
    one.stop(AuditEntry(kind="witness_refused", call="", at=UnixTime(9), facts={"reason": "so"}), "it was put back")
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="it was put back"):
            appended(one, 2)
    appended(other, 3)  # which asks witnesses of its own, and was not told
    wait_for(lambda: one._trouble[0], "that it was tried")
    wire.open = True
    wait_for(lambda: other.closed, "that the other one is told")
    assert one.closed == "it was put back"
    for each in (one, other):
        each.close()
    wire.close()
    assert kinds(record) == ["denial", "denial", "witness_refused"]


@pytest.mark.parametrize("step", ["locked", "signed", "committed"])
def test_a_session_that_is_ended_at_any_step_of_a_stop_stops_all_the_same(record: Record, step: str) -> None:
    armed, ended = threading.Event(), threading.Event()

    def end(name: str) -> None:
        if name == step and armed.is_set() and not ended.is_set():
            ended.set()
            record.run(f"SELECT pg_terminate_backend({one._sequencer._session.backend[0]}, 5000)")  # type: ignore[union-attr]

    one, other = record.replica("one", failpoint=end), record.replica("other")
    appended(one, 1)
    armed.set()
    one.stop(AuditEntry(kind="witness_refused", call="", at=UnixTime(9), facts={"reason": "so"}), "so")
    wait_for(lambda: other.closed, "that the other one is told")
    assert ended.is_set()
    assert one.closed == "so"
    for each in (one, other):
        each.close()
    assert kinds(record) == ["denial", "witness_refused"]


def test_a_stop_whose_commit_has_no_answer_stops_all_the_same_and_is_there_once(record: Record) -> None:
    wire, armed, cut = Wire(record.dsn), threading.Event(), threading.Event()

    def deafen(name: str) -> None:
        if name == "signed" and armed.is_set() and not cut.is_set():
            cut.set()
            wire.deaf = True  # what is sent arrives, and no answer comes back
            threading.Timer(0.3, restore).start()

    def restore() -> None:
        wire.cut()
        wire.deaf = False

    one, other = record.replica("one", dsn=wire.dsn, failpoint=deafen), record.replica("other")
    appended(one, 1)
    armed.set()
    one.stop(AuditEntry(kind="witness_refused", call="", at=UnixTime(9), facts={"reason": "so"}), "so")
    wait_for(lambda: other.closed and not one._thread.is_alive(), "that both have ended")
    assert cut.is_set()
    assert one.closed == "so"
    for each in (one, other):
        each.close()
    wire.close()
    assert kinds(record) == ["denial", "witness_refused"]
