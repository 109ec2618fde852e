"""The ledger in PostgreSQL: one log of several replicas, and no answer that is not on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from psycopg.conninfo import conninfo_to_dict

from doors.ledger_postgres_house import ORIGIN, Record, Wire, appended, entry, outcome, wait_for
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_postgres import Patience, PostgresLedger
from onbehalf.doors.ledger_postgres_sequencer import Entry
from onbehalf.doors.ledger_postgres_session import Lost
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.channel import channel_of
from onbehalf.model import Receipt


@pytest.fixture
def record(tmp_path: Path, database: str) -> Record:
    return Record(tmp_path, database)


def require_acked(record: Record, acked: dict[int, Receipt]) -> None:
    """Each answer names the place and leaf of its own entry, and no entry is there twice."""
    reader = record.reader()
    found = [each for each in reader.latest(10_000) if "number" in each.facts]
    reader.close()
    numbers = [each.facts["number"] for each in found]
    assert len(numbers) == len(set(numbers))
    by_number = {each.facts["number"]: each for each in found}
    for number, receipt in acked.items():
        assert (by_number[number].index, by_number[number].leaf) == (receipt.index, receipt.leaf)


def shown(ledger: PostgresLedger) -> int:
    """How many leaves the head has that answers carry."""
    return checkpoint.read(ledger.head, ledger.keys.signer.verifier, origin=ORIGIN).size


def test_the_head_that_answers_carry_covers_what_was_answered_and_was_signed_by_the_log(record: Record) -> None:
    one, other = record.replica("one"), record.replica("other")
    assert (one.head, other.head) == ("", "")
    for number, ledger in enumerate((one, other, other, one)):
        [receipt] = appended(ledger, number)
        assert shown(ledger) == receipt.index + 1
        assert record.run("SELECT note FROM onbehalf_log.head") == [(ledger.head,)]
    for ledger in (one, other):
        ledger.close()


def test_answers_name_the_place_and_the_leaf_on_record(record: Record) -> None:
    ledger = record.replica()
    receipts = appended(ledger, *range(50))
    assert sorted(receipt.index for receipt in receipts) == list(range(50))
    require_acked(record, dict(enumerate(receipts)))
    ledger.close()
    assert record.verified() == 50


def test_entries_that_follow_are_committed_by_close(record: Record) -> None:
    ledger = record.replica()
    for number in range(100):
        ledger.follow(entry(number))
    ledger.close()
    assert record.verified() == 100
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.follow(entry(1))


def test_several_replicas_write_one_log(record: Record) -> None:
    ledgers = [record.replica(name) for name in "abcd"]
    acked: dict[int, Receipt] = {}

    def work(first: int, ledger: PostgresLedger) -> None:
        for step in range(5):
            numbers = range(first + step * 10, first + step * 10 + 10)
            acked.update(zip(numbers, appended(ledger, *numbers), strict=True))

    threads = [threading.Thread(target=work, args=(at * 1000, each)) for at, each in enumerate(ledgers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for ledger in ledgers:
        ledger.close()
    assert len(acked) == 200
    require_acked(record, acked)
    assert record.verified() == 200


def test_numbers_of_a_channel_are_dense_over_all_replicas_and_each_is_given_once(record: Record) -> None:
    ledgers = [record.replica(name) for name in "abc"]
    audiences = ("https://a.example", "https://b.example")
    given: list[Receipt] = []

    async def send(ledger: PostgresLedger, first: int) -> list[Receipt]:
        intents = [replace(entry(first + each, "intent"), audience=audiences[each % 2]) for each in range(20)]
        return list(await asyncio.gather(*map(ledger.append, intents)))

    threads = [
        threading.Thread(target=lambda at, each: given.extend(asyncio.run(send(each, at * 100))), args=(at, each))
        for at, each in enumerate(ledgers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for audience in audiences:
        channel = channel_of(ORIGIN, audience)
        assert sorted(each.number for each in given if each.channel == channel) == [*range(1, 31)]
        appended(ledgers[0], 1000 + len(audience))  # so that it has seen all
        assert ledgers[0].sendings(audience) == 30
    ledgers[0].close()
    [receipt] = asyncio.run(send(record.replica("d"), 5000))[:1]
    assert receipt.number == 31, "one that starts goes on where the log is"
    for ledger in ledgers[1:]:
        ledger.close()
    record.verified()


def test_a_caller_who_leaves_before_the_commit_gets_an_outcome_that_nothing_was_sent(record: Record) -> None:
    go, at_it = threading.Event(), threading.Event()

    def hold(step: str) -> None:
        if step == "locked":
            at_it.set()
            go.wait(20)

    ledger = record.replica(failpoint=hold)

    async def leave() -> None:
        task = asyncio.create_task(ledger.append(entry(1, "intent")))
        await asyncio.to_thread(at_it.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()

    asyncio.run(leave())
    ledger.close()
    require_not_sent(record, 1)


def require_not_sent(record: Record, number: int) -> None:
    reader = record.reader()
    intent, ending = reader.records(f"call_{number:032x}")
    reader.close()
    assert (intent.kind, ending.kind) == ("intent", "outcome")
    assert ending.facts["outcome"]["code"] == "not_sent"  # type: ignore[index,call-overload]
    record.verified()


def test_a_caller_is_refused_while_the_database_is_away_and_nothing_of_it_is_done(record: Record) -> None:
    wire = Wire(record.dsn)
    ledger = record.replica(dsn=wire.dsn, patience=Patience(record=0.5, again=0.05, look=0.1))
    appended(ledger, 1)
    wire.open = False
    wire.cut()
    with pytest.raises(LedgerUnavailable):
        appended(ledger, 2, kind="intent")
    wait_for(lambda: ledger.unready, "that it says so")
    with pytest.raises(LedgerUnavailable):
        appended(ledger, 3, kind="intent")  # at once
    ledger.follow(entry(4))  # an outcome is kept until it can be written
    assert ledger.closed == ""
    wire.open = True
    wait_for(lambda: not ledger.unready, "the database again")
    appended(ledger, 5)
    ledger.close()
    wire.close()
    require_not_sent(record, 2)
    reader = record.reader()
    assert [each.facts["number"] for each in reader.latest(10) if each.kind == "denial"] == [1, 4, 5]
    reader.close()


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_without_answer_is_looked_for_and_done_exactly_once(record: Record, arrives: bool) -> None:
    wire = Wire(record.dsn)
    cuts = [3, 6, 9]
    seen = 0

    def cut(step: str) -> None:
        nonlocal seen
        if step == "signed":
            seen += 1
            if seen in cuts and arrives:
                wire.deaf = True  # what is sent arrives, and no answer comes back
                threading.Timer(0.3, restore).start()
            elif seen in cuts:
                wire.cut()

    def restore() -> None:
        wire.cut()
        wire.deaf = False

    ledger = record.replica(dsn=wire.dsn, failpoint=cut)
    acked = {}
    for number in range(10):
        [acked[number]] = appended(ledger, number)
        assert shown(ledger) == number + 1
    ledger.close()
    wire.close()
    assert seen >= 10
    require_acked(record, acked)
    assert record.verified() == 10


@pytest.mark.parametrize("step", ["queued", "locked", "signed", "committed", "woken"])
def test_a_session_that_is_ended_at_any_step_loses_and_doubles_nothing(record: Record, step: str) -> None:
    seen = 0

    def end(name: str) -> None:
        nonlocal seen
        seen += name == step
        if name == step and seen % 3 == 0:
            record.run(f"SELECT pg_terminate_backend({ledger._sequencer._session.backend[0]}, 5000)")  # type: ignore[union-attr]

    ledger = record.replica(failpoint=end)
    acked = {}
    for number in range(9):
        [acked[number]] = appended(ledger, number)
    ledger.close()
    assert seen >= 9
    require_acked(record, acked)
    assert record.verified() == 9


def test_a_commit_that_did_not_wait_for_its_standby_is_no_record(record: Record) -> None:
    """A server whose wait for a standby is ended commits all the same, and only warns."""
    record.run(f"ALTER ROLE {conninfo_to_dict(record.dsn)['user']} SET synchronous_commit = on")
    ledger = record.replica(patience=Patience(record=1.5, again=0.05, look=60))
    appended(ledger, 1)
    pid = ledger._sequencer._session.backend[0]  # type: ignore[union-attr]
    record.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    record.run("SELECT pg_reload_conf()")
    try:
        waiting = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep'"

        def end() -> None:
            wait_for(lambda: record.run(waiting), "the wait for the standby")
            record.run(f"SELECT pg_cancel_backend({pid})")

        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(LedgerUnavailable):
            appended(ledger, 2, kind="intent")
        thread.join(60)
        assert shown(ledger) == 1, "no client is shown a head that a failover could take back"
    finally:
        record.run("ALTER SYSTEM RESET synchronous_standby_names")
        record.run("SELECT pg_reload_conf()")
    wait_for(lambda: not ledger.unready, "the database again")
    appended(ledger, 3)
    ledger.close()
    require_not_sent(record, 2)


def test_what_a_gone_replica_left_open_is_unknown_and_what_a_live_one_has_open_is_not(record: Record) -> None:
    live, other = record.replica("live"), record.replica("other")
    gone = record.replica("gone", patience=Patience(look=60))  # it does not come again by itself
    [open_] = appended(live, 1, kind="intent")
    [left] = appended(gone, 2, kind="intent")
    [ended] = appended(gone, 3, kind="intent")
    appended_outcome(gone, outcome(3, ended))
    gone._sequencer.drop()
    gone_is_unknown = "SELECT 1 FROM onbehalf_log.replica WHERE gone IS NOT NULL"
    wait_for(lambda: record.run(gone_is_unknown), "that it is taken for gone")
    reader = record.reader()
    wait_for(lambda: [each.index for each in reader.unsettled()[1]] == [left.index], "the unknown record")
    assert [each.index for each in reader.unsettled()[0]] == [open_.index]
    with pytest.raises(LedgerUnavailable):  # what comes back later may write nothing more
        appended(gone, 4)
    assert "gone" in gone.closed
    appended_outcome(live, outcome(1, open_))
    for each in (live, other, gone):
        each.close()
    assert [each.index for each in reader.unsettled()[1]] == [left.index]
    reader.close()
    record.verified()


def appended_outcome(ledger: PostgresLedger, told: object) -> None:
    asyncio.run(ledger.append(told))  # type: ignore[arg-type]


def test_a_replica_that_was_taken_for_gone_says_so_without_being_asked(record: Record) -> None:
    ledger = record.replica()
    appended(ledger, 1)
    record.run("UPDATE onbehalf_log.replica SET gone = now()")
    wait_for(lambda: "gone" in ledger.closed, "that it is closed")
    ledger.close()


def test_an_entry_that_no_batch_could_hold_is_refused_alone(record: Record) -> None:
    ledger = record.replica()
    with pytest.raises(LedgerUnavailable, match="zero byte"):
        ledger.follow(replace(entry(1), call="call_\0"))
    appended(ledger, 2)
    ledger.close()
    assert record.verified() == 1


def test_a_replica_that_starts_again_says_at_once_what_it_left_open(record: Record) -> None:
    other = record.replica("other", patience=Patience(gone=600))  # which would be as quick under load
    [open_] = appended(other, 1, kind="intent")
    first = record.replica("a", patience=Patience(look=60))
    [left] = appended(first, 2, kind="intent")
    first._replica.close()  # as when its process is killed
    first._sequencer.drop()
    again = record.replica("a", patience=Patience(gone=600))
    assert [each.index for each in again.recovered] == [left.index]
    again.close()
    appended_outcome(other, outcome(1, open_))
    other.close()
    reader = record.reader()
    assert [each.index for each in reader.unsettled()[1]] == [left.index]
    reader.close()
    record.verified()


def test_one_folder_is_one_replica(record: Record) -> None:
    ledger = record.replica("a")
    with pytest.raises(LedgerUnavailable, match="another process"):
        record.replica("a")
    ledger.close()
    record.replica("a").close()


def test_a_replica_that_closes_leaves_nothing_open(record: Record) -> None:
    ledger = record.replica()
    [left] = appended(ledger, 1, kind="intent")
    ledger.close()
    reader = record.reader()
    assert [each.index for each in reader.unsettled()[1]] == [left.index]
    reader.close()
    assert record.run("SELECT 1 FROM onbehalf_log.replica WHERE gone IS NULL") == []


def put_back(record: Record) -> None:
    """The log as it was before its newest leaf, with the head that was signed then."""
    leaves = [row[0] for row in record.run("SELECT hash FROM onbehalf_log.leaf ORDER BY idx")][:-1]
    head = checkpoint.Checkpoint(origin=ORIGIN, size=len(leaves), root=tree.root(leaves))
    note = checkpoint.write(head, record.keys.signer)
    record.run(f"DELETE FROM onbehalf_log.leaf WHERE idx >= {head.size}")
    record.run(f"DELETE FROM onbehalf_log.payload WHERE idx >= {head.size}")
    record.run(f"UPDATE onbehalf_log.head SET size = {head.size}, root = '\\x{head.root.hex()}', note = '{note}'")


def rewritten(record: Record) -> None:
    """Another leaf in place of the newest one, under a head that the log's key signed."""
    put_back(record)
    other = record.replica("other")
    appended(other, 77)
    other.close()


def unsigned(record: Record) -> None:
    """One leaf more, put there by who has no key."""
    record.run(
        "INSERT INTO onbehalf_log.leaf SELECT idx + 1, gen_random_uuid(), hash, entry, call, at, replica"
        " FROM onbehalf_log.leaf ORDER BY idx DESC LIMIT 1"
    )
    leaves = [row[0] for row in record.run("SELECT hash FROM onbehalf_log.leaf ORDER BY idx")]
    root = tree.root(leaves).hex()
    record.run(f"UPDATE onbehalf_log.head SET size = {len(leaves)}, root = '\\x{root}'")


@pytest.mark.parametrize("damage", [put_back, rewritten, unsigned])
def test_a_log_that_did_not_only_grow_ends_a_replica_before_it_signs_again(
    record: Record, damage: Callable[[Record], None]
) -> None:
    ledger = record.replica()
    appended(ledger, 1)
    appended(ledger, 2)
    damage(record)
    before = record.run("SELECT note FROM onbehalf_log.head")
    with pytest.raises(LedgerUnavailable):
        appended(ledger, 3)
    assert ledger.closed
    ledger.close()
    assert record.run("SELECT note FROM onbehalf_log.head") == before


def test_a_damaged_log_does_not_start(record: Record) -> None:
    ledger = record.replica()
    appended(ledger, 1, 2, 3)
    ledger.close()
    record.run("DELETE FROM onbehalf_log.leaf WHERE idx = 1")
    with pytest.raises(LedgerCorrupt, match="leaf 1 is missing"):
        record.replica()


def test_keys_of_another_log_do_not_start(record: Record, tmp_path: Path) -> None:
    with pytest.raises(LedgerCorrupt, match="expected one signature"):
        record.replica(keys=open_ledger_keys(tmp_path / "others", origin=ORIGIN))


def test_two_that_believe_they_hold_the_lock_cannot_both_append(record: Record) -> None:
    """The lock on the head orders replicas; what keeps one from writing over another is not the lock."""
    one = record.replica("one", patience=Patience(look=60))
    other = record.replica("other", patience=Patience(look=60))
    lying = one._sequencer
    session, head, _ = lying._locked()
    session.leave()  # the lock is gone, and `one` goes on as if it had it
    appended(other, 1)
    batch = [Entry(spelled=_spelled(2))]
    with pytest.raises(Lost, match="the log ends at 1"):
        lying._enter(session, head, batch, epoch=head.epoch)
    lying.drop()
    lying.write(batch)
    assert batch[0].index == 1
    one.close()
    other.close()
    assert record.verified() == 2


def _spelled(number: int) -> object:
    from onbehalf.explain.leaf import spell

    return spell(entry(number))


def test_a_replica_that_was_away_takes_over_what_others_wrote_in_steps(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onbehalf.doors.ledger_postgres_session._STEP", 7)
    one, other = record.replica("one"), record.replica("other")
    appended(one, *range(50))
    [receipt] = appended(other, 100)
    assert receipt.index == 50
    one.close()
    other.close()
    assert record.verified() == 51
