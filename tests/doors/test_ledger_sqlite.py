"""The ledger in SQLite: durable answers, one writer, and every kind of damage found and located."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from onbehalf.doors import ledger_sqlite
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable, RecordMissing
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.channel import channel_of
from onbehalf.explain.leaf import read
from onbehalf.model import AuditEntry, Json, Receipt, UnixTime

ORIGIN = "gateway.example/log"


def entry(number: int, kind: str = "start", **facts: object) -> AuditEntry:
    call = f"call_{number:032x}" if kind != "start" else ""
    return AuditEntry(kind=kind, call=call, at=UnixTime(1000 + number), facts={"number": number, **facts})  # type: ignore[dict-item]  # plain JSON


def outcome(number: int, receipt: Receipt) -> AuditEntry:
    return entry(number, "outcome", intent={"index": receipt.index, "leaf": receipt.leaf}, outcome={"status": "done"})


def opened(path: Path, failpoint: Callable[[str], None] = lambda _: None) -> SqliteLedger:
    keys = open_ledger_keys(path / "keys", origin=ORIGIN)
    return SqliteLedger.open(path / "log.db", keys=keys, origin=ORIGIN, now=lambda: UnixTime(5000), failpoint=failpoint)


def reader(path: Path) -> LedgerReader:
    return LedgerReader(path / "log.db", keys=read_ledger_keys(path / "keys", origin=ORIGIN))


def filled(path: Path, count: int = 20) -> None:
    ledger = opened(path)

    async def fill() -> None:
        await asyncio.gather(*(ledger.append(entry(number)) for number in range(count)))

    asyncio.run(fill())
    ledger.close()


def damaged(path: Path, *statements: str) -> None:
    with sqlite3.connect(path / "log.db") as connection:
        connection.create_function("flip", 1, lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:])
        connection.execute("DROP INDEX leaf_call")  # it would refuse an entry that is no JSON, as a hex editor does not
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_answers_name_the_place_and_the_leaf_on_record(tmp_path: Path) -> None:
    ledger = opened(tmp_path)

    async def walk() -> list[Receipt]:
        return list(await asyncio.gather(*(ledger.append(entry(number)) for number in range(50))))

    receipts = asyncio.run(walk())
    assert [receipt.index for receipt in receipts] == list(range(50))
    with_reader = reader(tmp_path)
    for receipt in receipts:
        record = with_reader.record(receipt.index)
        assert (record.leaf, record.facts) == (receipt.leaf, {"number": receipt.index})
    report = with_reader.verify()
    assert report.ok
    assert report.size == 50
    ledger.close()


def test_entries_that_follow_are_committed_by_close(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(100):
        ledger.follow(entry(number))
    ledger.close()
    assert reader(tmp_path).verify().size == 100
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.follow(entry(1))


def test_batches_of_any_size_are_written_whole_and_by_few_statements(tmp_path: Path) -> None:
    sizes = [*range(1, 18), 63, 64, 65, 200]
    ledger = opened(tmp_path)

    async def fill() -> None:
        for size in sizes:
            await asyncio.gather(*(ledger.append(entry(number)) for number in range(size)))

    asyncio.run(fill())
    ledger.close()
    report = reader(tmp_path).verify()
    assert (report.ok, report.size) == (True, sum(sizes))
    # SQLite keeps a statement with the values it had last: one for each size of a batch held some 20 MB
    assert len({ledger_sqlite._entering(ledger_sqlite._at_least(size)) for size in range(1, 1025)}) == 11


def test_an_answer_does_not_wait_for_the_leaf_of_what_follows_it(tmp_path: Path) -> None:
    seen: list[str] = []
    ledger = opened(tmp_path, failpoint=seen.append)

    async def answer() -> None:
        ledger.follow(entry(1))
        assert seen == []  # here an answer leaves
        await asyncio.sleep(0)
        assert seen == ["queued"]

    asyncio.run(answer())
    ledger.close()
    assert reader(tmp_path).verify().size == 1


def test_what_follows_stands_before_what_was_handed_in_later(tmp_path: Path) -> None:
    ledger = opened(tmp_path)

    async def write() -> Receipt:
        ledger.follow(entry(1))
        return await ledger.append(entry(2))

    assert asyncio.run(write()).index == 1
    ledger.close()


def test_a_leaf_that_cannot_be_made_closes_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opened(tmp_path)

    def no_entropy(_: int) -> bytes:
        raise OSError("no entropy")

    async def write() -> None:
        with monkeypatch.context() as broken:
            broken.setattr(os, "urandom", no_entropy)
            ledger.follow(entry(1))
            await asyncio.sleep(0)
        assert "no entropy" in ledger.closed
        with pytest.raises(LedgerUnavailable):
            await ledger.append(entry(2))

    asyncio.run(write())
    ledger.close()
    assert reader(tmp_path).verify().size == 0


def test_cancelled_caller_does_not_break_the_others(tmp_path: Path) -> None:
    ledger = opened(tmp_path)

    async def walk() -> None:
        tasks = [asyncio.create_task(ledger.append(entry(number))) for number in range(30)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [receipt.index for receipt in done[1::2] if isinstance(receipt, Receipt)] == list(range(1, 30, 2))
        assert (await ledger.append(entry(99))).index == 30

    asyncio.run(walk())
    ledger.close()
    assert reader(tmp_path).verify().ok


def test_where_many_wait_who_is_cancelled_before_an_entry_was_taken_leaves_none(tmp_path: Path) -> None:
    ledger = opened(tmp_path)

    async def walk() -> None:
        ledger._crowded = True  # as after a batch that several waited for
        facts: dict[str, Json] = {"note": "as handed in"}
        kept = asyncio.create_task(ledger.append(AuditEntry(kind="start", call="", at=UnixTime(1), facts=facts)))
        gone = asyncio.create_task(ledger.append(entry(31, "intent")))
        await asyncio.sleep(0)
        assert ledger.taken == 0  # both let others come as far
        facts["note"] = "changed"
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert (await kept).index == 0

    asyncio.run(walk())
    ledger.close()
    assert [each.facts for each in map(reader(tmp_path).record, range(reader(tmp_path).verify().size))] == [
        {"note": "as handed in"}
    ]


def test_facts_changed_after_they_were_handed_in_do_not_change_the_record(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    facts = {"number": 1}
    ledger.follow(AuditEntry(kind="start", call="", at=UnixTime(1), facts=facts))
    facts["number"] = 2
    ledger.close()
    assert reader(tmp_path).record(0).facts == {"number": 1}


def test_entry_without_canonical_form_is_refused_and_the_next_one_taken(tmp_path: Path) -> None:
    ledger = opened(tmp_path)

    async def walk() -> None:
        with pytest.raises(LedgerUnavailable, match="cannot be recorded"):
            await ledger.append(entry(1, bad=float("nan")))
        assert (await ledger.append(entry(2))).index == 0

    asyncio.run(walk())
    ledger.close()


def test_full_queue_refuses_at_once(tmp_path: Path) -> None:
    import threading

    go = threading.Event()
    ledger = opened(tmp_path, failpoint=lambda name: (go.wait(20), None)[1] if name == "before_commit" else None)

    def flood() -> None:
        for number in range(4096 + 1024 + 2):
            ledger.follow(entry(number))

    with pytest.raises(LedgerUnavailable, match="wait to be written"):
        flood()
    go.set()
    ledger.close()
    assert reader(tmp_path).verify().ok


def test_write_error_refuses_the_waiting_and_all_later_entries(tmp_path: Path) -> None:
    def full(name: str) -> None:
        if name == "before_commit":
            raise sqlite3.OperationalError("database or disk is full")

    ledger = opened(tmp_path, failpoint=full)

    async def walk() -> None:
        results = await asyncio.gather(*(ledger.append(entry(number)) for number in range(9)), return_exceptions=True)
        assert all(isinstance(result, LedgerUnavailable) for result in results)
        with pytest.raises(LedgerUnavailable, match="disk is full"):
            await ledger.append(entry(10))
        with pytest.raises(LedgerUnavailable, match="disk is full"):
            ledger.follow(entry(10))

    asyncio.run(walk())
    ledger.close()
    report = reader(tmp_path).verify()
    assert report.ok
    assert report.size == 0


def test_second_writer_is_refused(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with pytest.raises(LedgerUnavailable, match="another process writes"):
        opened(tmp_path)
    ledger.close()
    opened(tmp_path).close()


def test_intents_without_outcome_become_unknown_at_the_next_start(tmp_path: Path) -> None:
    ledger = opened(tmp_path)

    async def walk() -> None:
        first, second = await ledger.append(entry(1, "intent")), await ledger.append(entry(2, "intent"))
        assert second.index == 1
        await ledger.append(outcome(1, first))

    asyncio.run(walk())
    assert [each.index for each in reader(tmp_path).open_intents()] == [1]
    ledger.close()
    ledger = opened(tmp_path)
    assert [(each.index, each.call) for each in ledger.recovered] == [(1, f"call_{2:032x}")]
    ledger.close()
    with_reader = reader(tmp_path)
    assert [record.kind for record in with_reader.records(f"call_{2:032x}")] == ["intent", "unknown"]
    assert with_reader.open_intents() == ()
    assert [[each.index for each in some] for some in with_reader.unsettled()] == [[], [1]]
    assert with_reader.verify().ok
    ledger = opened(tmp_path)
    assert ledger.recovered == ()
    ledger.close()


def test_calls_are_found_by_prefix_and_strangers_are_not(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in (1, 2, 0xFF):
        ledger.follow(entry(number, "denial"))
    ledger.close()
    with_reader = reader(tmp_path)
    assert with_reader.find("call_") == tuple(f"call_{number:032x}" for number in (1, 2, 0xFF))
    assert with_reader.find(f"call_{0xFF:032x}"[:-1] + "f") == (f"call_{0xFF:032x}",)
    assert [record.facts["number"] for record in with_reader.latest(2)] == [2, 0xFF]
    with pytest.raises(RecordMissing):
        with_reader.records("call_x")


def test_proof_of_one_leaf_verifies_with_the_public_key_alone(tmp_path: Path) -> None:
    filled(tmp_path, 21)
    vkey = (tmp_path / "keys" / "log.pub").read_text().strip()
    proof = LedgerReader(tmp_path / "log.db", vkey=vkey).proof(13)
    head = checkpoint.read(proof.note, checkpoint.NoteVerifier(vkey.split("\n")[0]), origin=ORIGIN)
    leaf = tree.leaf_hash(proof.entry)
    assert tree.verify_inclusion(leaf=leaf, index=13, size=head.size, path=proof.path, root=head.root)
    assert proof.text.startswith("c2sp.org/tlog-proof@v1\nindex 13\n")
    assert LedgerReader(tmp_path / "log.db", vkey=vkey).record(13).erased


SWAPPED = {(4, "payload_changed"), (9, "payload_changed")}
SWAP = (
    "CREATE TEMP TABLE kept AS SELECT * FROM {0} WHERE idx IN (4, 9)", "DELETE FROM {0} WHERE idx IN (4, 9)",
    "INSERT INTO {0} SELECT 13 - idx, {1} FROM kept", "DROP TABLE kept",
)  # fmt: skip


@pytest.mark.parametrize(
    ("statements", "codes", "refused"),
    [
        (("UPDATE leaf SET entry = flip(entry) WHERE idx = 7",), {(7, "leaf_changed")}, True),
        (("UPDATE leaf SET hash = zeroblob(32) WHERE idx = 7",), {(7, "leaf_changed")}, True),
        (("UPDATE payload SET sealed = flip(sealed) WHERE idx = 7",), {(7, "payload_changed")}, False),
        (("UPDATE head SET root = zeroblob(32)",), {(-1, "head_changed")}, True),
        (("UPDATE head SET size = 19",), {(-1, "head_changed")}, True),
        (("UPDATE head SET note = replace(note, 'x/log', 'x/log')||'x'",), {(-1, "head_changed")}, True),
        (("DELETE FROM head",), {(-1, "head_missing")}, True),
        (("DELETE FROM leaf WHERE idx >= 15", "DELETE FROM payload WHERE idx >= 15"), {(15, "tail_missing")}, True),
        (("DELETE FROM leaf WHERE idx = 7",), {(7, "leaf_missing"), (7, "payload_without_leaf")}, True),
        (tuple(each.format("leaf", "hash, entry") for each in SWAP), SWAPPED, True),
        (tuple(each.format("payload", "sealed") for each in SWAP), SWAPPED, False),
        (("DELETE FROM leaf", "DELETE FROM payload"), {(0, "tail_missing")}, True),
        (("INSERT INTO leaf SELECT 20, hash, entry FROM leaf WHERE idx = 19",), {(20, "tail_unsigned")}, True),
    ],
    ids=["leaf", "hash", "payload", "head_root", "head_size", "note", "no_head", "tail", "middle", "swapped",
         "swapped_payloads", "emptied", "added"],
)  # fmt: skip
def test_damage_is_found_and_located(
    tmp_path: Path, statements: tuple[str, ...], codes: set[tuple[int, str]], refused: bool
) -> None:
    filled(tmp_path)
    damaged(tmp_path, *statements)
    report = reader(tmp_path).verify()
    assert not report.ok
    assert codes <= {(finding.index, finding.code) for finding in report.findings}
    if refused:
        with pytest.raises(LedgerCorrupt):
            opened(tmp_path)


def test_rows_swapped_with_their_payloads_are_located(tmp_path: Path) -> None:
    filled(tmp_path)
    damaged(tmp_path, *(each.format("leaf", "hash, entry") for each in SWAP),
            *(each.format("payload", "sealed") for each in SWAP))  # fmt: skip
    found = {(finding.index, finding.code) for finding in reader(tmp_path).verify().findings}
    assert {(4, "payload_changed"), (9, "payload_changed"), (-1, "root_mismatch")} <= found


def test_payloads_that_are_gone_off_the_record_are_found_and_the_log_itself_still_verifies(tmp_path: Path) -> None:
    filled(tmp_path)
    damaged(tmp_path, "DELETE FROM payload WHERE idx IN (3, 4)")
    report = reader(tmp_path).verify()
    assert (report.erased, [(each.index, each.code) for each in report.findings]) == (2, [(3, "erased_unrecorded")])
    assert reader(tmp_path).record(3).erased
    vkey = (tmp_path / "keys" / "log.pub").read_text().strip()
    assert LedgerReader(tmp_path / "log.db", vkey=vkey).verify().ok


def test_file_of_noise_is_a_finding_and_not_an_exception(tmp_path: Path) -> None:
    filled(tmp_path, 400)
    size = (tmp_path / "log.db").stat().st_size
    with (tmp_path / "log.db").open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(size // 4))
    assert not reader(tmp_path).verify().ok
    with pytest.raises(LedgerCorrupt):
        opened(tmp_path)


def test_another_log_key_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "keys" / "log.key").unlink()
    with pytest.raises(LedgerCorrupt, match="signature"):
        opened(tmp_path)


def test_key_files_are_private_and_refused_otherwise(tmp_path: Path) -> None:
    open_ledger_keys(tmp_path, origin=ORIGIN)
    for name in ("log-ml-dsa.key", "log.key", "payload.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        (tmp_path / name).chmod(0o640)
        with pytest.raises(ConfigInvalid, match="0600"):
            open_ledger_keys(tmp_path, origin=ORIGIN)
        (tmp_path / name).chmod(0o600)
    names = ["log-ml-dsa.key", "log.key", "log.pub", "payload.key"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    (tmp_path / "payload.key").write_text("short\n")
    with pytest.raises(ConfigInvalid, match="32 bytes"):
        open_ledger_keys(tmp_path, origin=ORIGIN)


def test_an_intent_whose_caller_was_cancelled_before_it_was_durable_is_closed_as_not_sent(tmp_path: Path) -> None:
    held, release = threading.Event(), threading.Event()

    def hold(step: str) -> None:
        if step == "before_commit":
            held.set()
            release.wait(10)

    ledger = opened(tmp_path, failpoint=hold)

    async def cancelled() -> None:
        task = asyncio.create_task(ledger.append(entry(1, "intent")))
        await asyncio.to_thread(held.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    asyncio.run(cancelled())
    ledger.close()
    records = reader(tmp_path).records(f"call_{1:032x}")
    assert [record.kind for record in records] == ["intent", "outcome"]
    assert records[1].facts["outcome"] == {
        "status": "failed",
        "code": "not_sent",
        "message": "the client went away, or time ran out, before anything was sent",
        "unknown": False,
    }
    assert reader(tmp_path).open_intents() == ()


def sending(number: int, audience: str = "https://orders.example") -> AuditEntry:
    return AuditEntry(kind="intent", call=f"call_{number}", at=UnixTime(1000), facts={"n": number}, audience=audience)


def places(path: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(path / "log.db") as connection:
        leaves = [read(row[0]) for row in connection.execute("SELECT entry FROM leaf ORDER BY idx")]
    connection.close()
    return [(leaf.ch, leaf.n) for leaf in leaves if leaf.kind == "intent"]


def test_numbers_of_a_channel_go_on_where_they_were_at_the_last_end(tmp_path: Path) -> None:
    channel, other = channel_of(ORIGIN, "https://orders.example"), channel_of(ORIGIN, "https://other.example")
    for round_ in range(2):
        ledger = opened(tmp_path)

        async def walk(ledger: SqliteLedger = ledger) -> None:
            async def one(number: int) -> None:
                await ledger.append(sending(number))

            await asyncio.gather(*map(one, range(20)))
            await ledger.append(sending(99, "https://other.example"))

        asyncio.run(walk())
        assert ledger.sendings("https://orders.example") == 20 * (round_ + 1)
        ledger.close()
    found = places(tmp_path)
    assert [number for name, number in found if name == channel] == [*range(1, 41)]
    assert [number for name, number in found if name == other] == [1, 2]
    assert len(found) == 42


def test_a_log_whose_numbers_have_a_hole_is_not_opened(tmp_path: Path) -> None:
    """Leaves under a head that was signed with the log's own key, so that nothing but the numbers is wrong."""
    ledger = opened(tmp_path)
    asyncio.run(ledger.append(sending(1)))
    ledger._numbers.gave(channel_of(ORIGIN, "https://orders.example"), 5)
    asyncio.run(ledger.append(sending(2)))
    ledger.close()
    assert [each.code for each in reader(tmp_path).verify().findings] == ["number_wrong"]
    with pytest.raises(LedgerCorrupt, match="has number 6 of its channel, not 2"):
        opened(tmp_path)


def test_a_log_from_before_there_were_numbers_is_read_and_goes_on_with_the_first(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    asyncio.run(ledger.append(entry(1, "intent")))
    ledger.close()
    ledger = opened(tmp_path)
    receipt = asyncio.run(ledger.append(sending(2)))
    ledger.close()
    assert receipt.number == 1
    assert reader(tmp_path).verify().ok
