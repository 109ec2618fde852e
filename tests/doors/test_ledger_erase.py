"""Erasure: one person's payloads are gone for good, everybody else's open, and every proof verifies as before."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doors.erase_house import (
    ALICE,
    BOB,
    ORIGIN,
    asked,
    begun,
    ended,
    entry,
    erase,
    files_with,
    filled,
    key_bytes,
    opened,
    reader,
    record,
    requests,
    sealing,
    written,
)
from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.explain import checkpoint, tree
from onbehalf.verifier.check import check
from onbehalf.verifier.report import Verdict


def erased(path: Path) -> list[int]:
    size = reader(path).verify().size
    return [index for index in range(size) if record(path, index).erased]


def test_erasing_a_person_closes_their_payloads_and_nobody_elses(tmp_path: Path) -> None:
    filled(tmp_path)
    asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    assert erased(tmp_path) == [2, 4, 6, 8, 10]
    assert record(tmp_path, 3).facts["arguments"] == {"canary": f"canary-of-{BOB}-2"}
    assert record(tmp_path, 0).facts == {"version": "1"}
    report = reader(tmp_path).verify()
    assert report.ok
    assert report.erased == 5
    assert [(each.leaf, each.count, each.first, each.last) for each in report.erasures] == [(12, 5, 2, 10)]


def test_the_erased_record_tells_how_many_and_why_and_not_whom(tmp_path: Path) -> None:
    filled(tmp_path)
    [key] = requests(tmp_path).keys([sealing(tmp_path).wrapping.label(ALICE)])
    request = asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    last = record(tmp_path, 12)
    assert last.kind == "erased"
    assert last.facts == {
        "erasure": {"id": request.id, "count": 5, "first": 2, "last": 10, "keys": [key.hex()]},
        "basis": "art. 17", "by": "root",
    }  # fmt: skip
    assert requests(tmp_path).find(request.id).said == {}


def test_a_record_that_was_erased_says_when_and_by_which_leaf(tmp_path: Path) -> None:
    filled(tmp_path)
    asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    why = record(tmp_path, 4).erasure
    assert why is not None
    assert (why.leaf, why.at) == (12, 9000)
    assert record(tmp_path, 3).erasure is None


def test_what_opened_an_erased_payload_stands_in_no_file(tmp_path: Path) -> None:
    filled(tmp_path)
    [label, wrapped] = key_bytes(tmp_path, ALICE)
    assert "ledger-keys.db" in " ".join(files_with(tmp_path, wrapped))
    asked(tmp_path, "erase", ALICE)
    with opened(tmp_path) as (_, erasing):
        asyncio.run(begun(erasing))
        for secret in (wrapped, wrapped[12:-16], label, label.hex().encode(), b"canary-of-acme/alice"):
            assert files_with(tmp_path, secret) == []
    [_, bobs] = key_bytes(tmp_path, BOB)
    assert files_with(tmp_path, bobs) != []


def test_no_name_and_no_payload_is_written_in_clear_at_all(tmp_path: Path) -> None:
    filled(tmp_path)
    asked(tmp_path, "hold", ALICE)
    erase(tmp_path)
    for clear in (b"acme/alice", b"canary", b"case 7"):
        assert files_with(tmp_path, clear) == []


def test_somebody_who_was_erased_and_goes_on_has_a_new_key(tmp_path: Path) -> None:
    filled(tmp_path)
    asked(tmp_path, "erase", ALICE)

    async def walk() -> int:
        with opened(tmp_path) as (ledger, erasing):
            await ledger.append(entry(ALICE, 20))
            await begun(erasing)
            return (await ledger.append(entry(ALICE, 21))).index

    index = asyncio.run(walk())
    assert record(tmp_path, 12).erased
    assert record(tmp_path, index).facts["arguments"] == {"canary": f"canary-of-{ALICE}-21"}
    assert ended(tmp_path) == ""
    asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    assert record(tmp_path, index).erased
    assert [each.count for each in reader(tmp_path).verify().erasures] == [6, 1]


def test_records_made_while_it_is_carried_out_have_the_new_key_and_stay(tmp_path: Path) -> None:
    filled(tmp_path)
    asked(tmp_path, "erase", ALICE)
    made: list[int] = []
    under_way: list[asyncio.Task[None]] = []

    async def walk() -> None:
        def write(step: str) -> None:
            if step in ("renewed", "destroyed", "scrubbed"):
                under_way.append(asyncio.create_task(append(20 + len(under_way))))

        async def append(number: int) -> None:
            made.append((await ledger.append(entry(ALICE, number))).index)

        with opened(tmp_path, write) as (ledger, erasing):
            await begun(erasing)
            await asyncio.gather(*under_way)

    asyncio.run(walk())
    assert len(made) == 3
    assert not any(record(tmp_path, index).erased for index in made)
    assert ended(tmp_path) == ""


def test_proofs_and_bundles_from_before_an_erasure_still_verify(tmp_path: Path) -> None:
    filled(tmp_path)
    before = reader(tmp_path)
    key, proof = before.verifier.vkey, before.proof(4)
    export(before, tmp_path / "before.zip", Asked(everything=True), keys={}, policies={})
    before.close()
    asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    leaf = tree.leaf_hash(proof.entry)
    assert tree.verify_inclusion(leaf=leaf, index=4, size=proof.size, path=proof.path, root=proof.root)
    assert checkpoint.read(proof.note, checkpoint.NoteVerifier(key), origin=ORIGIN).root == proof.root
    assert reader(tmp_path).proof(4).entry == proof.entry
    assert check(tmp_path / "before.zip", key=key).verdict is Verdict.verified
    after = reader(tmp_path)
    export(after, tmp_path / "after.zip", Asked(everything=True, since=proof.note), keys={}, policies={})
    after.close()
    report = check(tmp_path / "after.zip", key=key, kept=proof.note.encode())
    assert report.verdict is Verdict.erased
    assert report.erased == 5
    assert report.erasures == [
        {"leaf": 12, "at": 9000, "here": 5, "scope": {"count": 5, "first": 2, "last": 10, "before": 0, "keys": 1}}
    ]
    assert "by leaf 12, which tells of 5 between 2 and 10 (1 keys)" in report.as_text()


def test_a_hold_blocks_erasure_until_it_is_lifted_and_both_are_on_record(tmp_path: Path) -> None:
    filled(tmp_path)
    hold = asked(tmp_path, "hold", ALICE)
    request = asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    found = requests(tmp_path).find(request.id)
    assert (found.state, found.result) == ("refused", {"why": "a legal hold stands"})
    assert erased(tmp_path) == []
    assert [each.whom for each in requests(tmp_path).holds()] == [ALICE]
    lift = asked(tmp_path, "lift", ALICE, number=hold.number)
    erase(tmp_path)
    assert requests(tmp_path).holds() == ()
    told = [record(tmp_path, index) for index in (12, 13)]
    assert [each.kind for each in told] == ["legal_hold"] * 2
    assert [each.facts["hold"] for each in told] == [
        {"id": hold.id, "action": "added"}, {"id": lift.id, "action": "lifted"}
    ]  # fmt: skip
    asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    assert erased(tmp_path) == [2, 4, 6, 8, 10, 12, 13]
    assert ended(tmp_path) == ""


def test_a_hold_counts_from_the_moment_it_is_asked_for(tmp_path: Path) -> None:
    filled(tmp_path)
    request = asked(tmp_path, "erase", ALICE)
    asked(tmp_path, "hold", ALICE)
    erase(tmp_path)
    assert requests(tmp_path).find(request.id).state == "refused"
    assert erased(tmp_path) == []


def test_nobody_can_be_erased_who_is_not_there(tmp_path: Path) -> None:
    filled(tmp_path)
    request = asked(tmp_path, "erase", "acme/carol")
    erase(tmp_path)
    assert requests(tmp_path).find(request.id).state == "refused"
    assert reader(tmp_path).verify().size == 12


def test_retention_deletes_what_is_older_and_keeps_what_is_held(tmp_path: Path) -> None:
    filled(tmp_path)
    asked(tmp_path, "hold", ALICE)
    asked(tmp_path, "retain", before=1006)
    erase(tmp_path)
    assert erased(tmp_path) == [0, 1, 3, 5, 11]
    report = reader(tmp_path).verify()
    assert report.ok
    assert [(each.before, each.count, each.first, each.last) for each in report.erasures] == [(1006, 5, 0, 11)]
    why = record(tmp_path, 3).erasure
    assert why is not None
    assert why.leaf == 13
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute("SELECT count(*) FROM erasing").fetchone() == (0,)


def test_retention_leaves_no_sealed_byte_of_what_it_deleted(tmp_path: Path) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        sealed = connection.execute("SELECT sealed FROM payload WHERE idx = 3").fetchone()[0]
    asked(tmp_path, "retain", before=1006)
    with opened(tmp_path) as (_, erasing):
        asyncio.run(begun(erasing))
        assert files_with(tmp_path, sealed[40:80]) == []


def test_what_says_that_something_was_erased_is_kept_by_retention(tmp_path: Path) -> None:
    filled(tmp_path)
    asked(tmp_path, "erase", ALICE)
    asked(tmp_path, "hold", BOB)
    asked(tmp_path, "lift", BOB, number=2)
    erase(tmp_path)
    asked(tmp_path, "retain", before=9999)
    erase(tmp_path)
    assert [index for index in range(12, 16) if not record(tmp_path, index).erased] == [12, 13, 14, 15]
    assert ended(tmp_path) == ""


def test_an_older_copy_of_the_key_store_brings_nothing_back(tmp_path: Path) -> None:
    filled(tmp_path)
    shutil.copyfile(tmp_path / "ledger-keys.db", tmp_path / "old.db")
    asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    for name in ("ledger-keys.db-wal", "ledger-keys.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "old.db").rename(tmp_path / "ledger-keys.db")
    assert not record(tmp_path, 4).erased
    [_, wrapped] = key_bytes(tmp_path, ALICE)
    erase(tmp_path)
    assert erased(tmp_path) == [2, 4, 6, 8, 10]
    assert files_with(tmp_path, wrapped) == []
    assert record(tmp_path, 4).erasure is not None
    assert ended(tmp_path) == ""
    assert reader(tmp_path).verify().size == 13


def test_more_payloads_gone_than_retention_tells_of_are_found(tmp_path: Path) -> None:
    filled(tmp_path)
    asked(tmp_path, "hold", ALICE)
    asked(tmp_path, "retain", before=1006)
    erase(tmp_path)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("DELETE FROM payload WHERE idx = 4")
    assert ended(tmp_path) == "erased_unrecorded"


def test_what_cannot_be_erased_now_is_tried_again_and_keeps_nothing_else_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onbehalf.doors.ledger_subjects._SCRUB_SECONDS", 0.1)
    filled(tmp_path)
    first = asked(tmp_path, "retain", before=1006)
    second = asked(tmp_path, "erase", ALICE)
    problems: dict[str, str] = {}

    async def walk() -> None:
        with opened(tmp_path) as (ledger, erasing), closing(sqlite3.connect(tmp_path / "log.db")) as reading:
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM payload").fetchone()
            watching = asyncio.create_task(erasing.watch(problems))
            while requests(tmp_path).find(second.id).state != "done" or not problems:
                await asyncio.sleep(0.05)
            assert "is being read" in problems["erasure"]
            await ledger.append(entry(BOB, 50))  # who reads for long does not keep the gateway from writing
            assert requests(tmp_path).find(first.id).state == "asked"
            assert "an erasure is under way" in reader(tmp_path).verify().findings[0].text
            reading.execute("ROLLBACK")
            while requests(tmp_path).find(first.id).state != "done" or problems:
                await asyncio.sleep(0.05)
            watching.cancel()

    asyncio.run(walk())
    assert ended(tmp_path) == ""


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(["acme/a", "acme/b", "acme/c", ""])),
        st.tuples(st.sampled_from(["erase", "hold", "lift"]), st.sampled_from(["acme/a", "acme/b", "acme/c"])),
        st.tuples(st.just("retain"), st.just("")),
    ),
    min_size=1, max_size=14,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_is_written_held_and_erased_in_whatever_order_exactly_that_is_gone(
    steps: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("history")
    written(path, [entry("acme/a", 0, at=0)])
    whose, gone, holds = {0: "acme/a"}, set[int](), dict[str, list[int]]()
    for number, (step, whom) in enumerate(steps, start=1):
        held = {each for each, numbers in holds.items() if numbers}
        living = {index for index, each in whose.items() if index not in gone}
        if step == "write":
            [index] = written(path, [entry(whom, number, at=number)])
            whose[index] = whom
            continue
        if step == "erase":
            asked(path, "erase", whom)
            gone |= set() if whom in held else {index for index in living if whose[index] == whom}
        elif step == "hold":
            holds.setdefault(whom, []).append(asked(path, "hold", whom).number)
        elif step == "lift" and whom in held:
            asked(path, "lift", whom, number=holds[whom].pop())
        elif step == "retain":
            asked(path, "retain", before=number)
            kept = {index for index in living if whose[index] in held or (held and not whose[index])}
            gone |= living - kept
        erase(path)
    report = reader(path).verify()
    assert report.ok, report.findings
    erased_now = {index for index in whose if record(path, index).erased}
    assert erased_now == gone
