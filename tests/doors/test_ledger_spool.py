"""The spool: what another process wants on record is whole, appended once it can be, and never more than it may be."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from company import company, wait_for
from house import Doors
from onbehalf.cli.explain import opened
from onbehalf.doors.ledger_spool import Spool, taking
from onbehalf.errors import LedgerUnavailable
from onbehalf.model import AuditEntry, UnixTime


def entry(**facts: str) -> AuditEntry:
    return AuditEntry(kind="reconciled", call="", at=UnixTime(1000), facts={**facts})


def test_what_was_put_there_is_appended_once_with_its_name_and_is_gone(tmp_path: Path) -> None:
    spool, doors = Spool(tmp_path / "spool"), Doors()
    name = spool.put(entry(span="1"))
    assert spool.holds(name)
    assert asyncio.run(spool.take(doors)) == 1
    assert asyncio.run(spool.take(doors)) == 0
    assert [(each.kind, each.call, each.at, each.facts) for each in doors.entries] == [
        ("reconciled", "", 1000, {"span": "1", "spooled": name})
    ]
    assert not spool.holds(name)
    assert os.listdir(tmp_path / "spool") == []


def test_a_ledger_that_takes_nothing_leaves_it_waiting(tmp_path: Path) -> None:
    spool, doors = Spool(tmp_path / "spool"), Doors(broken={"ledger_full"})
    name = spool.put(entry(span="1"))
    with pytest.raises(LedgerUnavailable):
        asyncio.run(spool.take(doors))
    assert spool.holds(name)
    doors.broken.clear()
    assert asyncio.run(spool.take(doors)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"kind":"intent","at":1,"facts":{}}', '{"kind":"reconciled","at":1}',
        '{"kind":"reconciled","at":-1,"facts":{}}', '{"kind":"reconciled","at":true,"facts":{}}',
        '{"kind":"reconciled","at":1,"facts":[]}', '{"kind":"reconciled","at":1,"facts":{},"call":"call_1"}',
        '{"kind":"reconciled","kind":"reconciled","at":1,"facts":{}}', "x" * (4 * 2**20 + 1),
        '{"kind":"reconciled","at":1,"facts":' + "[" * 100 + "]" * 100 + "}",
    ],
)  # fmt: skip
def test_what_is_no_record_of_the_house_is_set_aside_and_what_comes_after_it_is_taken(
    tmp_path: Path, text: str
) -> None:
    spool, doors = Spool(tmp_path), Doors()
    bad = f"reconciled-{'0' * 32}.json"
    (tmp_path / bad).write_text(text, encoding="utf-8")
    good = spool.put(entry(span="1"))
    assert asyncio.run(spool.take(doors)) == 1
    assert [each.facts["spooled"] for each in doors.entries] == [good]
    assert os.listdir(tmp_path) == [f"{bad}.refused"]


def test_files_that_are_not_whole_yet_or_not_of_the_spool_are_left_alone(tmp_path: Path) -> None:
    doors = Doors()
    for name in (f".reconciled-{'0' * 32}.json", "note.txt", f"reconciled-{'0' * 32}.json.refused"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert asyncio.run(Spool(tmp_path).take(doors)) == 0
    assert len(os.listdir(tmp_path)) == 3
    assert asyncio.run(Spool(tmp_path / "none").take(doors)) == 0


def test_entries_of_calls_or_of_no_bound_cannot_be_put_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(LedgerUnavailable):
        spool.put(AuditEntry(kind="reconciled", call="call_1", at=UnixTime(1), facts={}))
    with pytest.raises(LedgerUnavailable):
        spool.put(entry(long="x" * (4 * 2**20)))
    assert os.listdir(tmp_path) == []


def test_a_spool_that_cannot_be_read_for_a_while_is_read_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, doors = tmp_path / "spool", Doors()
    place.write_text("no folder", encoding="utf-8")

    async def walk() -> None:
        task = asyncio.create_task(taking(Spool(place), doors))
        while "not on record yet" not in caplog.text:
            await asyncio.sleep(0.05)
        place.unlink()
        Spool(place).put(entry(span="1"))
        while not doors.entries:
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(walk(), 30))


def test_a_gateway_that_serves_takes_it(tmp_path: Path) -> None:
    with company(tmp_path / "it") as around, around.serving():
        spool = Spool(around.directory / "data" / "spool")
        name = spool.put(entry(span="1"))
        wait_for(lambda: not spool.holds(name), what="an empty spool")
        reader = opened(around.config)
        try:
            found = [record.facts["spooled"] for record in reader.latest(10) if record.kind == "reconciled"]
        finally:
            reader.close()
        assert found == [name]


def test_what_may_not_be_read_waits_and_keeps_nothing_else_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, doors = Spool(tmp_path), Doors()
    names = sorted(spool.put(entry(span=str(number))) for number in range(3))
    really = Path.open

    def closed(path: Path, *mode: str) -> object:
        if path.name == names[0]:
            raise PermissionError(13, "Permission denied")
        return really(path, *mode)

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(LedgerUnavailable, match="cannot be read: Permission denied"):
        asyncio.run(spool.take(doors))
    assert [each.facts["spooled"] for each in doors.entries] == names[1:]
    assert spool.waiting("reconciled") == 1
    assert spool.waiting("admin_read") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_puts_there_is_its_owners_to_read(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    spool = Spool(tmp_path / "spool")
    name = spool.put(entry(span="1"))
    for path in (tmp_path / "spool", tmp_path / "spool" / name):
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o077) == (12345, 12346, 0)
