"""`explain` and `audit` on a record of a few calls, whole and damaged."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, said
from onbehalf.app import building
from onbehalf.errors import OnbehalfError
from onbehalf.model import AuditEntry, Json, Presented, ToolRequest, UnixTime

HOSTILE = "\x1b[31mred\x9b2J\u202e[bold]\nAllowed on everything."


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """Alice lists notes and writes, Bob is denied, somebody strange is refused, then a call with odd characters."""
    with company(tmp_path_factory.mktemp("record") / "it") as made:

        async def calls() -> None:
            async with building(made.config) as app:

                async def call(subject: str, tool: str, agent: str = "tests/1", **arguments: Json) -> None:
                    request = ToolRequest(tool=tool, arguments=arguments, protocol="2026-07-28", agent=agent)
                    token = made.token(subject)
                    await app.gateway.call(Presented(token=token), request)

                await call("alice-at-login", "notes_list")
                await call("alice-at-login", "desk_write", word="x")
                await call("bob-at-login", "desk_write", word="x")
                await call("nobody-at-login", "desk_read")
                await call("alice-at-login", "desk_read", HOSTILE, word=HOSTILE)
                with pytest.raises(OnbehalfError):
                    await call("alice-at-login", HOSTILE)

        asyncio.run(calls())
        yield made


def broken_off(made: Company) -> str:
    """A call that was under way when the gateway stopped; its id."""

    async def leave() -> str:
        async with building(made.config) as app:
            await app.ledger.append(_intent("call_" + "f" * 32))
        return "call_" + "f" * 32

    return asyncio.run(leave())


def _intent(call: str) -> AuditEntry:
    return AuditEntry(kind="intent", call=call, at=UnixTime(1_800_000_000), facts={"tool": {"name": "desk_write"}})


@pytest.fixture
def copied(recorded: Company, tmp_path: Path) -> Company:
    """A copy of the record that may be damaged."""
    return recorded.copied(tmp_path / "copy")


def listed(made: Company) -> list[dict[str, Any]]:
    told = said("audit", "list", "-c", made.config, "--json", "-n", "1000")
    assert told.code == 0
    records: list[dict[str, Any]] = json.loads(told.out)["records"]
    return records


def shown(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


# --- explain ---


def test_a_call_is_told_by_its_id_by_its_beginning_and_as_the_last(recorded: Company) -> None:
    first = next(row["call"] for row in listed(recorded) if row["kind"] == "intent")
    whole = said("explain", first, "-c", recorded.config)
    assert whole.code == 0
    assert "Alice Example (acme/alice) of tenant acme" in whole.out
    assert "2 rows came back, 1 were released (acme/1), 1 were withheld" in whole.out
    for said_as in (first.removeprefix("call_"), first[:-1], first.removeprefix("call_")[:-2]):
        assert said("explain", said_as, "-c", recorded.config).out == whole.out
    assert said("explain", "last", "-c", recorded.config).out != whole.out


def test_json_of_a_call_is_one_document_with_the_same_sentences(recorded: Company) -> None:
    call = [row["call"] for row in listed(recorded) if row["call"]][-1]
    story = json.loads(said("explain", "last", "-c", recorded.config, "--json").out)
    assert (story["call"], story["ending"]) == (call, "denied")
    assert all(set(line) == {"role", "text", "index"} for line in story["lines"])


def test_a_denied_call_says_why_and_what_to_do(recorded: Company) -> None:
    denied = next(row["call"] for row in listed(recorded) if row["person"] == "acme/bob")
    told = said("explain", denied, "-c", recorded.config).out
    assert "Denied" in told
    assert "Ask for the group staff" in told


@pytest.mark.parametrize("call", ["call_0000", "0" * 32, "x'; DROP", "%", "", "\udcff", "a" * 100_000, "last "])
def test_a_call_that_is_not_there_is_2_and_says_what_to_do(recorded: Company, call: str) -> None:
    told = said("explain", call, "-c", recorded.config)
    assert (told.code, told.out) == (2, "")
    assert "what to do" in told.err
    assert "internal" not in told.err


def test_a_beginning_that_several_calls_share_is_not_guessed(recorded: Company) -> None:
    calls = sorted({row["call"] for row in listed(recorded) if row["call"]})
    told = said("explain", calls[0][:7], "-c", recorded.config)
    assert (told.code, told.out) == (2, "")
    assert "not one call but several" in told.err
    assert calls[0] in told.err


# --- what clients and upstreams wrote ---


@pytest.mark.parametrize(
    "command", [["explain"], ["audit", "list", "-n", "50"], ["audit", "verify"], ["audit", "open"]]
)
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_control_characters_on_record_reach_no_terminal(recorded: Company, command: list[str], more: list[str]) -> None:
    calls = [row["call"] for row in listed(recorded) if row["kind"] in ("intent", "denial")][-2:]
    for call in calls if command == ["explain"] else [""]:
        told = said(*command, *([call] if call else []), "-c", recorded.config, *more)
        assert told.code == 0
        assert shown(told.out)
        assert not [line for line in told.out.splitlines() if line.startswith("Allowed on everything")]
        if command == ["explain"]:
            assert "[bold]" in told.out, "what looks like markup is printed as it is"


# --- audit ---


def test_a_whole_record_verifies_and_its_checkpoint_is_printed(recorded: Company) -> None:
    told = said("audit", "verify", "-c", recorded.config)
    assert told.code == 0
    count = len(listed(recorded))
    assert f"The record verifies: {count} records" in told.out
    assert f"{count} payloads opened, 0 erased, 0 calls without outcome" in told.out
    report = json.loads(said("audit", "verify", "-c", recorded.config, "--json").out)
    assert (report["ok"], report["size"], report["findings"], report["open"]) == (True, count, [], [])
    assert report["checkpoint"] in told.out + "\n"


def test_an_auditor_needs_the_file_and_the_public_key_alone(recorded: Company, tmp_path: Path) -> None:
    shutil.copy(recorded.ledger, tmp_path / "copy.db")
    vkey = (recorded.directory / "data" / "keys" / "log.pub").read_text().strip()
    told = said("audit", "verify", "--ledger", tmp_path / "copy.db", "--vkey", vkey)
    assert told.code == 0
    assert "payloads were not opened" in told.out
    other = vkey.replace(vkey[-6:], "AAAAAA")
    assert said("audit", "verify", "--ledger", tmp_path / "copy.db", "--vkey", other).code in (1, 2)
    for bad in (["--vkey", "nonsense"], ["--vkey", ""], []):
        told = said("audit", "verify", "--ledger", tmp_path / "copy.db", *bad)
        assert (told.code, told.out) == (2, ""), told


def test_the_proof_of_a_record_names_its_index_and_a_record_that_is_not_there_is_2(recorded: Company) -> None:
    told = said("audit", "proof", "1", "-c", recorded.config)
    assert told.code == 0
    assert told.out.startswith("c2sp.org/tlog-proof@v1\nindex 1\n")
    for index in ("999", "99999999999999999999999"):
        told = said("audit", "proof", index, "-c", recorded.config)
        assert (told.code, told.out) == (2, ""), told
        assert "internal" not in told.err


def test_a_list_is_as_long_as_asked_for_oldest_first(recorded: Company) -> None:
    rows = listed(recorded)
    assert [row["index"] for row in rows] == [*range(len(rows))]
    newest = json.loads(said("audit", "list", "-c", recorded.config, "--json", "-n", "2").out)["records"]
    assert newest == rows[-2:]


def test_a_call_broken_off_is_listed_as_open_and_after_the_next_start_as_unknown(copied: Company) -> None:
    assert "Every call on record has an outcome" in said("audit", "open", "-c", copied.config).out
    call = broken_off(copied)
    index = next(row["index"] for row in listed(copied) if row["call"] == call)
    told = said("audit", "open", "-c", copied.config, "--json")
    assert json.loads(told.out)["open"] == [{"call": call, "index": index, "state": "open"}]

    async def restart() -> None:
        async with building(copied.config):
            pass

    asyncio.run(restart())
    told = said("audit", "open", "-c", copied.config, "--json")
    assert json.loads(told.out)["open"] == [{"call": call, "index": index, "state": "unknown"}]
    assert f"unknown  {call}  record {index}" in said("audit", "open", "-c", copied.config).out
    assert "It is not known whether this was done" in said("explain", call, "-c", copied.config).out


def leaf_changed(base: sqlite3.Connection) -> None:
    base.execute(
        """UPDATE leaf SET entry = CAST(replace(CAST(entry AS TEXT), '"at":1', '"at":2') AS BLOB) WHERE idx = 3"""
    )


def leaf_gone(base: sqlite3.Connection) -> None:
    base.execute("DELETE FROM leaf WHERE idx = 3")


def tail_gone(base: sqlite3.Connection) -> None:
    base.execute("DELETE FROM leaf WHERE idx = (SELECT max(idx) FROM leaf)")


def head_changed(base: sqlite3.Connection) -> None:
    base.execute("UPDATE head SET note = replace(note, '/ledger', '/[bold]x')")


def payload_changed(base: sqlite3.Connection) -> None:
    base.execute("UPDATE payload SET sealed = zeroblob(length(sealed)) WHERE idx = 3")


DAMAGES = [leaf_changed, leaf_gone, tail_gone, head_changed, payload_changed]
WHERE = {
    "leaf_changed": "record 3", "leaf_gone": "record 3", "tail_gone": "cut at", "head_changed": "signed head",
    "payload_changed": "payload 3",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_1_and_says_where(copied: Company, damage: Callable[[sqlite3.Connection], None]) -> None:
    call = next(row["call"] for row in listed(copied) if row["index"] == 3)
    with closing(sqlite3.connect(copied.ledger)) as base:
        damage(base)
        base.commit()
    verified = said("audit", "verify", "-c", copied.config)
    assert (verified.code, verified.err) == (1, "")
    assert "does not verify" in verified.out
    assert WHERE[damage.__name__] in verified.out
    report = json.loads(said("audit", "verify", "-c", copied.config, "--json").out)
    assert not report["ok"]
    assert report["findings"]
    for command in (["audit", "open"], ["audit", "proof", "3"]):
        told = said(*command, "-c", copied.config)
        if damage is payload_changed:
            assert told.code == 0, "leaves and head are whole, and payloads are not asked for"
        else:
            assert (told.code, told.out) == (1, ""), (command, told)
            assert "what to do" in told.err
    if damage in (payload_changed, leaf_changed):
        for command in (["explain", call], ["audit", "list"]):
            told = said(*command, "-c", copied.config)
            assert (told.code, told.out) == (1, ""), (command, told)
            assert "3" in told.err


def test_noise_in_the_file_is_1_for_every_command(copied: Company) -> None:
    data = bytearray(copied.ledger.read_bytes())
    data[4096 : len(data) - 4096] = b"\xa5" * (len(data) - 8192)
    copied.ledger.write_bytes(bytes(data))
    for beside in copied.ledger.parent.glob("ledger.db-*"):
        beside.unlink()
    for command in (
        ["audit", "verify"],
        ["audit", "open"],
        ["audit", "list"],
        ["audit", "proof", "1"],
        ["explain", "last"],
    ):
        told = said(*command, "-c", copied.config)
        assert told.code in (1, 2), (command, told)
        assert "internal" not in told.err, (command, told)


def test_without_a_record_yet_every_command_is_2_and_says_what_is_missing(copied: Company) -> None:
    shutil.rmtree(copied.directory / "data")
    for command in (
        ["audit", "verify"],
        ["audit", "open"],
        ["audit", "list"],
        ["audit", "proof", "1"],
        ["explain", "last"],
    ):
        told = said(*command, "-c", copied.config)
        assert (told.code, told.out) == (2, ""), command
        assert str(copied.directory / "data") in told.err
    assert not (copied.directory / "data").exists()
