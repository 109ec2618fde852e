"""Erasure from a record that several replicas write: the same as from a file, and no record is lost between them."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from doors.erase_house import ALICE, BOB, entry
from doors.ledger_postgres_house import Record, sealing_of, wait_for
from doors.postgres_erase_house import erased, sealed, told, with_people, written
from onbehalf.doors.ledger_erase import resurrected
from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.doors.ledger_postgres import Patience, PostgresLedger
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.errors import LedgerUnavailable
from onbehalf.explain.seal import key_id
from onbehalf.verifier.check import check
from onbehalf.verifier.report import Verdict

SHORT = Patience(record=1, again=0.05, look=0.1, gone=0.5)


@pytest.fixture
def record(tmp_path: Path, database: str) -> Record:
    return Record(tmp_path, database)


@pytest.fixture
def filled(record: Record) -> Record:
    return with_people(record)


def test_erasing_a_person_closes_their_payloads_and_nobody_elses(filled: Record) -> None:
    request = filled.asked("erase", ALICE)
    filled.erase()
    assert erased(filled) == [2, 4, 6, 8, 10]
    assert told(filled, 3).facts["arguments"] == {"canary": f"canary-of-{BOB}-2"}
    assert told(filled, 0).facts == {"version": "1"}
    assert filled.verified() == 13
    last = told(filled, 12)
    assert last.kind == "erased"
    assert last.facts == {
        "erasure": {"id": request.id, "count": 5, "first": 2, "last": 10, "keys": [key_id(sealed(filled, 2)).hex()]},
        "basis": "art. 17", "by": "root",
    }  # fmt: skip
    why = told(filled, 4).erasure
    assert why is not None
    assert (why.leaf, why.at) == (12, 9000)
    found = filled.requests().find(request.id)
    assert (found.state, found.said) == ("done", {})


def test_proofs_and_bundles_from_before_an_erasure_still_verify(filled: Record, tmp_path: Path) -> None:
    before = filled.reader()
    key, proof = before.verifier.vkey, before.proof(4)
    before.close()
    filled.asked("erase", ALICE)
    filled.erase()
    after = filled.reader()
    export(after, tmp_path / "after.zip", Asked(everything=True, since=proof.note), keys={}, policies={})
    after.close()
    report = check(tmp_path / "after.zip", key=key, kept=proof.note.encode())
    assert report.verdict is Verdict.erased
    assert report.erasures == [
        {"leaf": 12, "at": 9000, "here": 5, "scope": {"count": 5, "first": 2, "last": 10, "before": 0, "keys": 1}}
    ]


def test_a_hold_blocks_erasure_until_it_is_lifted_and_both_are_on_record(filled: Record) -> None:
    hold = filled.asked("hold", ALICE)
    request = filled.asked("erase", ALICE)
    filled.erase()
    found = filled.requests().find(request.id)
    assert (found.state, found.result) == ("refused", {"why": "a legal hold stands"})
    assert erased(filled) == []
    assert [each.whom for each in filled.requests().holds()] == [ALICE]
    filled.asked("lift", ALICE, number=hold.number)
    filled.erase()
    assert filled.requests().holds() == ()
    assert [told(filled, index).kind for index in (12, 13)] == ["legal_hold"] * 2
    filled.asked("erase", ALICE)
    filled.erase()
    assert erased(filled) == [2, 4, 6, 8, 10, 12, 13]
    assert filled.verified() == 15


def test_retention_deletes_what_is_older_and_keeps_what_is_held(filled: Record) -> None:
    filled.asked("hold", ALICE)
    filled.asked("retain", before=1006)
    filled.erase()
    assert erased(filled) == [0, 1, 3, 5, 11]
    reader = filled.reader()
    [erasure] = reader.verify().erasures
    reader.close()
    assert (erasure.before, erasure.count, erasure.first, erasure.last) == (1006, 5, 0, 11)
    assert filled.run("SELECT count(*) FROM onbehalf_keys.erasing") == [(0,)]
    filled.asked("retain", before=9999)  # what says that something was erased, or held, is kept
    filled.erase()
    assert [index for index in (12, 13, 14) if not told(filled, index).erased] == [12, 13, 14]
    assert filled.verified() == 15


def test_the_database_refuses_what_is_held_whoever_asks(filled: Record) -> None:
    filled.asked("hold", ALICE)
    id_ = key_id(sealed(filled, 2))
    request = filled.asked("erase", ALICE)
    with psycopg.connect(filled.eraser, autocommit=True) as eraser:
        with pytest.raises(psycopg.Error) as refused:
            eraser.execute("SELECT onbehalf_keys.destroy(%s, %s, '')", (bytes.fromhex(request.id), [id_]))
        assert refused.value.sqlstate == "OB005"
        with pytest.raises(psycopg.Error) as refused:
            eraser.execute("SELECT onbehalf_keys.erase_payloads('x', 0, 500, '{2}')")
        assert refused.value.sqlstate == "OB005"
        with pytest.raises(psycopg.Error, match="another command is at this retention"):
            eraser.execute("SELECT onbehalf_keys.erase_payloads('x', 500, 1000, '{}')")
    assert erased(filled) == []


def test_a_destroyed_key_cannot_be_put_back_by_who_may_add_keys(filled: Record) -> None:
    people = sealing_of(filled.keys).store
    rows = people.rows("SELECT id, label, wrapped FROM key")
    filled.asked("erase", ALICE)
    filled.erase()
    people.keep(rows)
    assert erased(filled) == [2, 4, 6, 8, 10]
    assert len(people.rows("SELECT 1 FROM key WHERE length(wrapped) > 0")) == len(rows) - 1


def test_what_was_destroyed_stands_in_no_table_once_it_was_scrubbed(filled: Record) -> None:
    filled.asked("erase", ALICE)
    filled.erase()
    [(dead,)] = filled.run("SELECT count(*) FROM onbehalf_keys.key WHERE length(wrapped) = 0 AND label IS NULL")
    [(pages,)] = filled.run("SELECT pg_relation_size('onbehalf_keys.key') / 8192")
    filled.run("CREATE EXTENSION pageinspect")
    items = "SELECT count(*) FROM heap_page_items(get_raw_page('onbehalf_keys.key', 0)) WHERE lp_len > 0"
    [(rows,)] = filled.run("SELECT count(*) FROM onbehalf_keys.key")
    assert (dead, pages) == (1, 1)
    assert filled.run(items) == [(rows,)]


@pytest.mark.parametrize("reading", ["SELECT 1", "SELECT count(*) FROM onbehalf_keys.key"])
def test_who_reads_for_long_delays_that_it_is_on_record_and_no_call(
    filled: Record, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    monkeypatch.setattr("onbehalf.doors.ledger_postgres_subjects._SCRUB_SECONDS", 0.5)
    request = filled.asked("erase", ALICE)
    ledger = filled.replica()
    with psycopg.connect(filled.owner) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute(reading.encode())
        with pytest.raises(LedgerUnavailable, match="are being read"):
            filled.erase()
        written(ledger, entry(ALICE, 20), entry(BOB, 21))
        assert filled.requests().find(request.id).state == "destroyed"
    filled.erase()
    assert erased(filled) == [2, 4, 6, 8, 10]
    ledger.close()
    assert filled.verified() == 15


def test_a_key_that_came_back_with_an_older_copy_stops_a_gateway_and_is_destroyed_again(filled: Record) -> None:
    copies = filled.run("SELECT id, label, wrapped FROM onbehalf_keys.key")
    filled.asked("erase", ALICE)
    filled.erase()
    with psycopg.connect(filled.owner, autocommit=True) as owner:
        owner.execute("DELETE FROM onbehalf_keys.key")
        owner.execute("DELETE FROM onbehalf_keys.request")
        for each in copies:
            owner.execute("INSERT INTO onbehalf_keys.key VALUES (%s, %s, %s)", each)
    store = PostgresStore(filled.dsn)
    assert [each.leaf for each in resurrected(store, sealing_of(filled.shared()))] == [12]
    assert not told(filled, 4).erased
    filled.erase()
    assert [*resurrected(store, sealing_of(filled.shared()))] == []
    store.close()
    wait_for(lambda: erased(filled) == [2, 4, 6, 8, 10], "forgetting what was opened with")
    assert filled.verified() == 13


# Several replicas.


def test_two_replicas_that_meet_somebody_at_once_lose_nothing_and_both_keys_are_erased(record: Record) -> None:
    both = threading.Barrier(2)  # each has looked, and found no key, before either keeps one
    replicas = []
    for name in ("one", "two"):
        keys = record.shared()
        people = sealing_of(keys).store
        keep = people.keep
        people.keep = lambda new, keep=keep: (both.wait(30), keep(new))  # type: ignore[method-assign, misc]
        replicas.append(record.replica(name, keys=keys))
    threads = [threading.Thread(target=written, args=(each, entry(ALICE, n))) for n, each in enumerate(replicas)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({key_id(sealed(record, index)) for index in (0, 1)}) == 2
    record.asked("erase", ALICE)
    record.erase()
    assert erased(record) == [0, 1]
    for each in replicas:
        each.close()
    assert record.verified() == 3


def test_a_replica_seals_anew_what_it_sealed_with_a_key_that_was_destroyed_meanwhile(record: Record) -> None:
    """The key is destroyed after the replica took it for good, and before the batch reaches the database."""
    armed: list[str] = []

    def destroy(step: str) -> None:
        if step == "ready" and armed:
            armed.pop()
            record.asked("erase", ALICE)
            record.erase()

    ledger = record.replica(failpoint=destroy)
    written(ledger, entry(ALICE, 1))
    armed.append("now")
    [index] = written(ledger, entry(ALICE, 2))
    assert told(record, index).facts["arguments"] == {"canary": f"canary-of-{ALICE}-2"}
    assert key_id(sealed(record, 0)) != key_id(sealed(record, index))
    assert erased(record) == [0]
    ledger.close()
    assert record.verified() == 3


def test_no_key_is_destroyed_between_the_look_at_it_and_the_commit(filled: Record) -> None:
    """Whoever appends holds the head from before the database looks at keys until it commits."""
    request = filled.asked("erase", ALICE)
    id_ = key_id(sealed(filled, 2))
    calls = (
        ("dying(%s)", ([sealing_of(filled.keys).wrapping.label(ALICE)],)),
        ("destroy(%s, %s, '')", (bytes.fromhex(request.id), [id_])),
        ("destroy_again(%s, 'erase', %s, '')", (bytes.fromhex(request.id), [id_])),
    )
    with psycopg.connect(filled.owner) as appending, psycopg.connect(filled.eraser, autocommit=True) as eraser:
        appending.execute("SELECT * FROM onbehalf_log.head FOR UPDATE")
        eraser.execute("SET lock_timeout = '50ms'")
        for call, values in calls:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                eraser.execute(f"SELECT onbehalf_keys.{call}".encode(), values)
    assert erased(filled) == []


def test_the_database_refuses_a_payload_whose_key_is_not_there_even_from_a_replica_that_does_not_look(
    record: Record,
) -> None:
    """A build that makes no key durable puts nothing on record."""
    keys = record.shared()
    ledger = record.replica(keys=keys, patience=SHORT)
    people = sealing_of(keys)
    people.settle = lambda: None  # type: ignore[method-assign]  # the broken build
    with pytest.raises(Exception, match="could not be written in time"):
        written(ledger, entry(ALICE, 1))
    assert record.run("SELECT size FROM onbehalf_log.head") == [(0,)]
    del people.settle
    wait_for(lambda: record.run("SELECT size FROM onbehalf_log.head") == [(1,)], "the record, once it is mended")
    ledger.close()
    assert record.verified() == 1


def test_under_load_on_two_replicas_everything_opens_that_no_erasure_names(record: Record) -> None:
    stop, answered = threading.Event(), list[tuple[int, int]]()

    def call(ledger: PostgresLedger, first: int) -> None:
        number = first
        while not stop.is_set():
            batch = [entry(ALICE, number), entry(BOB, number + 1)]
            answered.extend(zip(written(ledger, *batch), (number, number + 1), strict=True))
            number += 2

    replicas = [record.replica(name) for name in ("one", "two")]
    threads = [threading.Thread(target=call, args=(each, 10_000 * n)) for n, each in enumerate(replicas)]
    for thread in threads:
        thread.start()
    for round_ in range(6):
        goal = len(answered) + 20
        wait_for(lambda goal=goal: len(answered) >= goal, "calls", 60)  # type: ignore[misc]  # bound at once
        record.asked("erase", (ALICE, BOB)[round_ % 2])
        record.erase()
    goal = len(answered) + 20
    wait_for(lambda: len(answered) >= goal, "calls after the last erasure", 60)
    stop.set()
    for thread in threads:
        thread.join(60)
    for each in replicas:
        each.close()
    reader = record.reader()
    report = reader.verify()
    assert report.ok, report.findings[:3]
    assert report.kinds["erased"] == len(report.erasures) == 6
    assert report.erased == sum(each.count for each in report.erasures)
    keys = {
        index: key_id(bytes(found)).hex() for index, found in record.run("SELECT idx, sealed FROM onbehalf_log.payload")
    }
    destroyed = {each for erasure in report.erasures for each in erasure.keys}
    last = {whom: max(each.leaf for each in report.erasures[n::2]) for n, whom in enumerate((ALICE, BOB))}
    for index, number in answered:
        whom = (ALICE, BOB)[number % 2]
        found = reader.record(index)
        if index > last[whom]:
            assert found.facts["arguments"] == {"canary": f"canary-of-{whom}-{number}"}
        assert found.erased == (keys[index] in destroyed)
    reader.close()


def test_another_process_stops_opening_with_a_key_that_was_destroyed(filled: Record) -> None:
    follower = filled.reader()
    assert not follower.record(4).erased
    filled.asked("erase", ALICE)
    filled.erase()
    wait_for(lambda: follower.record(4).erased, "forgetting")
    follower.close()
