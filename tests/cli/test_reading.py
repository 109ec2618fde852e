"""Whoever reads the record by a command is on record for it, before anything is shown; or nothing is shown."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, said
from onbehalf.app import building
from onbehalf.cli.explain import opened
from onbehalf.explain.leaf import Record
from onbehalf.explain.reading import ClaimedReader, Read, admin_read
from onbehalf.model import UnixTime

SINKS = "\nsinks:\n  siem: {kind: file, path: out/records.jsonl, batch: 1, every_seconds: 0.05}\n"
BY = ClaimedReader(user="root", uid=0, host="gateway-1")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """Alice lists notes, Bob is denied."""
    with company(tmp_path_factory.mktemp("read") / "it") as made:
        made.config.write_text(made.config.read_text() + SINKS)
        made.asked(("alice-at-login", "notes_list", {}), ("bob-at-login", "desk_write", {"word": "x"}))
        yield made


@pytest.fixture
def copied(recorded: Company, tmp_path: Path) -> Company:
    return recorded.copied(tmp_path / "copy")


def spool(made: Company) -> Path:
    return made.directory / "data" / "spool"


def waiting(made: Company) -> list[dict[str, Any]]:
    """What is in the spool, as facts, oldest first."""
    found = sorted(spool(made).glob("*.json"), key=lambda each: each.stat().st_mtime_ns) if spool(made).exists() else []
    return [json.loads(each.read_bytes())["facts"] for each in found]


def on_record(made: Company) -> list[Record]:
    reader = opened(made.config)
    try:
        return [*reader.latest(1000, kind="admin_read")]
    finally:
        reader.close()


def commands(made: Company, place: Path) -> dict[str, list[str | Path]]:
    """Each command that shows what is in payloads, or has it leave."""
    policies = ["--bundle", made.directory / "policies"]
    return {
        "explain": ["explain", "last"], "audit list": ["audit", "list"],
        "audit export": ["audit", "export", place / "all.zip", "--open", "all"],
        "audit query": ["audit", "query", "SELECT person FROM records"],
        "audit send": ["audit", "send", "--once"], "policy replay": ["policy", "replay", *policies],
        "audit reconcile": ["audit", "reconcile"],
    }  # fmt: skip


def test_a_gateway_that_serves_has_each_reading_on_record_with_who_what_and_why(
    copied: Company, tmp_path: Path
) -> None:
    every = commands(copied, tmp_path)

    async def read() -> None:
        async with building(copied.config):
            for words in every.values():
                told = await asyncio.to_thread(said, *words, "-c", copied.config, "--purpose", "ticket 4711")
                assert told.code == 0, told
            while len(await asyncio.to_thread(on_record, copied)) < len(every):
                await asyncio.sleep(0.1)

    asyncio.run(asyncio.wait_for(read(), 120))
    records = on_record(copied)
    by_command: dict[Any, Any] = {each.facts["read"]["command"]: each.facts for each in records}  # type: ignore[index,call-overload]  # facts
    assert by_command.keys() == every.keys()
    assert len(records) == len(every), "each reading is there once"
    assert {each.call for each in records} == {""}
    assert {facts["read"]["purpose"] for facts in by_command.values()} == {"ticket 4711"}
    assert {facts["claimed_by"]["uid"] for facts in by_command.values()} == {os.getuid()}
    explained, listed = by_command["explain"]["read"], by_command["audit list"]["read"]
    assert (explained["filters"], explained["records"]) == ({"call": "last"}, 1)
    assert explained["to"] == explained["from"] + 1
    assert explained["call"].startswith("call_")
    assert listed["filters"] == {"count": 20}
    assert listed["records"] == listed["to"] - listed["from"]
    assert by_command["audit query"]["read"]["filters"] == {"sql": "SELECT person FROM records"}
    assert by_command["audit query"]["read"]["records"] >= 5
    assert by_command["audit send"]["read"]["filters"] == {
        "sinks": {"siem": {"from": 0, "payload": False}}, "once": True,
    }  # fmt: skip
    assert by_command["policy replay"]["read"]["filters"]["policy"].startswith("sha256:")
    assert said("audit", "verify", "-c", copied.config).code == 0


@pytest.mark.parametrize("name", ["explain", "audit list", "audit query", "audit send", "policy replay"])
@pytest.mark.parametrize("why", ["no folder", "full"])
def test_nothing_is_shown_where_the_reading_cannot_be_put_on_record(
    copied: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    shutil.rmtree(spool(copied), ignore_errors=True)
    if why == "no folder":
        spool(copied).write_text("a file where the folder goes", encoding="utf-8")
    else:
        monkeypatch.setattr("onbehalf.doors.ledger_spool.os.fsync", _full)
    told = said(*commands(copied, tmp_path)[name], "-c", copied.config)
    assert (told.code, told.out) == (2, "")
    assert "nothing is shown" in told.err
    assert "what to do" in told.err
    assert "alice" not in told.err
    assert not (copied.directory / "out" / "records.jsonl").exists()


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_opens_nothing_needs_no_notice(copied: Company, tmp_path: Path) -> None:
    spool(copied).write_text("no folder", encoding="utf-8")
    for words in (
        ["audit", "verify"], ["audit", "open"], ["audit", "proof", "1"], ["audit", "list", "--closed"],
        ["audit", "export-log", tmp_path / "log"], ["audit", "send", "--status"],
    ):  # fmt: skip
        assert said(*words, "-c", copied.config).code == 0, words


def test_a_closed_list_says_neither_person_nor_tool(copied: Company) -> None:
    told = said("audit", "list", "--closed", "-c", copied.config, "--json")
    records = json.loads(told.out)["records"]
    assert {"intent", "outcome", "denial"} <= {each["kind"] for each in records}
    assert {(each["person"], each["tool"]) for each in records} == {("", "")}
    assert "alice" not in told.out
    assert waiting(copied) == []


def test_the_last_call_stays_the_last_call_whoever_reads(copied: Company) -> None:
    first = said("explain", "last", "-c", copied.config)

    async def taken() -> None:
        async with building(copied.config):
            while waiting(copied):
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(taken(), 60))
    assert len(on_record(copied)) == 1
    assert said("explain", "last", "-c", copied.config).out == first.out


def test_who_read_is_listed_and_what_still_waits_is_counted(copied: Company) -> None:
    assert said("explain", "last", "-c", copied.config, "--purpose", "why").code == 0
    told = said("audit", "list", "--kind", "admin_read", "-c", copied.config, "--json")
    assert json.loads(told.out) == {"records": []}
    assert "1 more wait" in told.err
    assert said("audit", "export", copied.directory / "some.zip", "-c", copied.config).code == 0
    told = said("audit", "list", "--kind", "admin_read", "-c", copied.config, "--json")
    assert "wait" not in told.err
    records = json.loads(told.out)["records"]
    assert {each["read"]["command"] for each in records} == {"explain", "audit list", "audit export"}
    assert {each["read"].get("purpose") for each in records} == {"why", None}
    shown = said("audit", "list", "--kind", "admin_read", "-c", copied.config).out
    assert "on the host:" in shown
    assert "audit export" in shown
    assert {each["kind"] for each in records} == {"admin_read"}
    denied = said("audit", "list", "--kind", "denial", "-c", copied.config, "--json")
    assert [each["kind"] for each in json.loads(denied.out)["records"]] == ["denial"]


def test_sending_for_long_is_one_reading_not_one_a_batch(copied: Company) -> None:
    told = said("audit", "send", "--once", "-c", copied.config, "--json")
    assert json.loads(told.out)["sent"]["siem"] > 1, "several batches of one record"
    assert [each["read"]["command"] for each in waiting(copied)] == ["audit send"]


def test_a_purpose_is_a_line_of_words(copied: Company) -> None:
    for purpose in ("x" * 501, "two\nlines", "\x1b[31m"):
        told = said("explain", "last", "-c", copied.config, "--purpose", purpose)
        assert (told.code, told.out) == (2, "")
        assert "--purpose" in told.err
    assert waiting(copied) == []


def test_parquet_files_elsewhere_are_a_copy_and_not_the_record(copied: Company, tmp_path: Path) -> None:
    made = copied.config.read_text().replace("kind: file, path: out/records.jsonl", "kind: parquet, directory: lake")
    copied.config.write_text(made)
    assert said("audit", "send", "--once", "-c", copied.config).code == 0
    shutil.rmtree(spool(copied))
    lake = copied.directory / "lake"
    told = said("audit", "query", "SELECT count(*) AS n FROM records", "--parquet", lake, "-c", copied.config, "--json")
    assert json.loads(told.out)["rows"][0]["n"] >= 5
    assert waiting(copied) == []


def test_readers_can_be_asked_for_in_sql(copied: Company) -> None:
    assert said("audit", "export", copied.directory / "some.zip", "-c", copied.config).code == 0
    question = "SELECT command, reader FROM records WHERE kind = 'admin_read'"
    rows = json.loads(said("audit", "query", question, "-c", copied.config, "--json").out)["rows"]
    assert [each["command"] for each in rows] == ["audit export"]
    assert rows[0]["reader"]


def test_texts_that_are_long_or_no_unicode_do_not_stop_a_reading_from_being_recorded(copied: Company) -> None:
    entry = admin_read(Read(command="audit query", filters={"sql": "x" * 10_000 + "\udcff"}), BY, now=UnixTime(1))
    told: Any = entry.facts["read"]
    assert len(told["filters"]["sql"]) == 4000
    strange = admin_read(Read(command="explain", filters={"call": "\udcff"}), BY, now=UnixTime(1))
    assert strange.facts["read"] == {"command": "explain", "filters": {"call": "?"}}
    assert strange.facts["claimed_by"] == {"user": "root", "uid": 0, "host": "gateway-1"}


def test_what_sudo_says_is_kept_beside_the_account(copied: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "dana")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert said("explain", "last", "-c", copied.config).code == 0
    (facts,) = waiting(copied)
    assert (facts["claimed_by"]["sudo_user"], facts["claimed_by"]["uid"]) == ("dana", os.getuid())
    assert facts["claimed_by"]["user"] != "somebody-else"
