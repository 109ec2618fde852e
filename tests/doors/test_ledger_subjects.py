"""The keys of people: durable before what they open, found again, forgotten once destroyed, never lost unseen."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from doors.erase_house import (
    ALICE,
    ORIGIN,
    asked,
    ended,
    entry,
    erase,
    filled,
    opened,
    reader,
    record,
    sealing,
    written,
)
from onbehalf.doors.ledger_erase import span_of
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_requests import keys_of
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_store import SqliteStore
from onbehalf.errors import LedgerUnavailable
from onbehalf.explain.seal import key_id
from onbehalf.model import AuditEntry, UnixTime


def test_a_lost_key_store_is_no_erasure_and_is_found(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "ledger-keys.db").unlink()
    report = reader(tmp_path).verify()
    assert {(each.index, each.code) for each in report.findings} == {(at, "payload_changed") for at in range(1, 11)}
    assert "put back its last backup" not in report.findings[0].text
    assert "is not in" in report.findings[0].text


def test_keys_destroyed_off_the_record_are_found(tmp_path: Path) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger-keys.db")) as connection, connection:
        label = sealing(tmp_path).wrapping.label(ALICE)
        connection.execute("UPDATE key SET wrapped = x'' WHERE label = ?", (label,))
    assert ended(tmp_path) == "erased_unrecorded"


def test_a_changed_key_store_is_refused_and_the_call_with_it(tmp_path: Path) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger-keys.db")) as connection, connection:
        connection.execute("UPDATE key SET wrapped = zeroblob(60)")

    async def write() -> None:
        with opened(tmp_path) as (ledger, _):
            with pytest.raises(Exception, match="in the key store was changed"):
                await ledger.append(entry(ALICE, 30))
            await ledger.append(entry("", 31))

    asyncio.run(write())


def test_a_key_that_cannot_be_kept_refuses_the_record_it_would_open(tmp_path: Path) -> None:
    filled(tmp_path)

    async def write() -> None:
        with opened(tmp_path) as (ledger, _):
            with closing(sqlite3.connect(tmp_path / "ledger-keys.db")) as connection:
                connection.execute("DROP INDEX key_label")
                connection.execute("ALTER TABLE key RENAME TO lost")
                connection.commit()
            with pytest.raises(LedgerUnavailable):
                await ledger.append(entry("acme/carol", 30))

    asyncio.run(write())
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute("SELECT size FROM head").fetchone() == (12,)


def test_payloads_that_were_sealed_before_people_had_keys_stay_readable(tmp_path: Path) -> None:
    written(tmp_path, [AuditEntry(kind="denial", call="call_1", at=UnixTime(1), facts={"person": {"id": ALICE}})])
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute("SELECT substr(sealed, 1, 1) FROM payload").fetchone() == (b"\x01",)
    assert not (tmp_path / "ledger-keys.db").exists()
    assert record(tmp_path, 0).facts == {"person": {"id": ALICE}}


def test_another_process_stops_opening_with_a_key_that_was_destroyed(tmp_path: Path) -> None:
    filled(tmp_path)
    follower = reader(tmp_path)
    assert not follower.record(4).erased
    asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    keys = follower.keys
    assert keys is not None
    assert isinstance(keys.sealer, type(sealing(tmp_path)))
    keys.sealer._looked = 0.0  # as if a quarter of a second had passed
    assert follower.record(4).erased


def test_the_keys_of_many_more_people_than_are_remembered_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onbehalf.doors.ledger_sealing._REMEMBERED", 3)
    written(tmp_path, [entry(f"acme/p{number % 9}", number) for number in range(27)])
    labels = [sealing(tmp_path).wrapping.label(f"acme/p{number}") for number in range(9)]
    assert all(keys_of(sealing(tmp_path).store, [each]) for each in labels)
    assert ended(tmp_path) == ""
    written(tmp_path, [entry("acme/p0", 40)])
    found = keys_of(sealing(tmp_path).store, labels[:1])
    assert span_of(SqliteStore(tmp_path / "log.db"), sorted(found)).count == 4


def test_a_key_is_on_disk_before_anything_that_it_opens(tmp_path: Path) -> None:
    keys, seen = open_ledger_keys(tmp_path / "keys", origin=ORIGIN), list[int]()
    label = sealing(tmp_path).wrapping.label(ALICE)

    def look(step: str) -> None:
        if step == "before_commit":
            seen.append(len(keys_of(sealing(tmp_path).store, [label])))

    ledger = SqliteLedger.open(
        tmp_path / "log.db", keys=keys, origin=ORIGIN, now=lambda: UnixTime(1), failpoint=look
    )  # fmt: skip
    asyncio.run(ledger.append(entry(ALICE, 1)))
    ledger.close()
    assert seen == [1]


def test_the_key_store_is_its_owners_alone_and_is_made_whole_by_many_at_once(tmp_path: Path) -> None:
    open_ledger_keys(tmp_path / "keys", origin=ORIGIN)
    stores = [sealing(tmp_path).store for _ in range(8)]
    with ThreadPoolExecutor(8) as many:
        work = [many.submit(each.keep, [(bytes([n]) * 16, b"label", b"wrapped")]) for n, each in enumerate(stores)]
        for each in work:
            each.result()
    assert len(keys_of(stores[0], [b"label"])) == 8
    assert {oct(each.stat().st_mode & 0o777) for each in tmp_path.glob("*ledger-keys.db*")} == {"0o600"}
    assert not list(tmp_path.glob(".ledger-keys.db*"))


def test_an_erasure_that_is_cancelled_on_its_way_gives_no_old_key_to_anybody(tmp_path: Path) -> None:
    filled(tmp_path)
    of = sealing(tmp_path)
    label = of.wrapping.label(ALICE)
    old = keys_of(of.store, [label])
    with pytest.raises(asyncio.CancelledError), of.renewed([label]) as fresh:
        raise asyncio.CancelledError
    sealed = of.seal(b"{}", about=ALICE, nonce=b"n" * 12, index=1, leaf=b"l" * 32)
    assert key_id(sealed) in fresh
    assert key_id(sealed) not in old
