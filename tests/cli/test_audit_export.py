"""`audit export` and `audit export-log` on a record of real calls, and what the verifier says of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from company import Company, company, said
from onbehalf.app import building
from onbehalf.cli.explain import opened
from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.model import AuditEntry, UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.command import main


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """Alice lists notes and writes, Bob is denied; all under one gateway."""
    with company(tmp_path_factory.mktemp("record") / "it") as made:
        made.asked(
            ("alice-at-login", "notes_list", {}),
            ("alice-at-login", "desk_write", {"word": "x é 1e3"}),
            ("bob-at-login", "desk_write", {"word": "x"}),
        )
        yield made


def verified(*arguments: str | Path) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue()


def exported(made: Company, out: Path, *arguments: str | Path) -> Path:
    told = said("audit", "export", "-c", made.config, *arguments, out)
    assert told.code == 0, told.err + told.out
    return out


def vkey(made: Company) -> str:
    return (made.directory / "data" / "keys" / "log.pub").read_text().strip()


def test_a_whole_record_is_exported_and_holds_offline(recorded: Company, tmp_path: Path) -> None:
    made = recorded.copied(tmp_path / "copy")
    out = exported(made, tmp_path / "all.zip", "--open", "all")
    code, text = verified(out, "--key", vkey(recorded), "--json")
    report = json.loads(text)
    assert (code, report["verdict"], report["findings"]) == (0, "verified", [])
    assert report["summary"]["kinds"] == {
        "start": 1, "intent": 2, "outcome": 2, "denial": 1, "stop": 1, "admin_read": 1,
    }  # fmt: skip
    assert report["opened_facts"] > 20
    assert [*report["policies"].values()] == [True]
    opened = zipfile.ZipFile(out).read("opened.jsonl").decode()
    assert "alice" in opened
    code, text = verified(out)
    assert code == 4
    assert "TAKEN FROM THE BUNDLE" in text


def test_the_same_question_to_the_same_record_gives_the_same_bytes(recorded: Company, tmp_path: Path) -> None:
    reader = opened(recorded.config)
    try:
        for name in ("a.zip", "b.zip"):
            export(reader, tmp_path / name, Asked(open=frozenset({"tool"})), keys={}, policies={})
    finally:
        reader.close()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_bundle_shows_that_it_was_made_by_whom_and_what_for(recorded: Company, tmp_path: Path) -> None:
    made = recorded.copied(tmp_path / "copy")
    out = exported(made, tmp_path / "own.zip", "--open", "read,claimed_by", "--purpose", "audit of November")
    assert verified(out, "--key", vkey(recorded))[0] == 0
    lines = [json.loads(line) for line in zipfile.ZipFile(out).read("opened.jsonl").splitlines()]
    own = {each["fact"]: json.loads(each["json"]) for each in lines if each["fact"] in ("read", "claimed_by")}
    assert own["read"] == {
        "command": "audit export", "from": 0, "purpose": "audit of November",
        "filters": {"from": "0", "open": "read,claimed_by"},
    }  # fmt: skip
    assert own["claimed_by"]["uid"] == os.getuid()


def test_a_bundle_is_not_written_where_its_making_cannot_be_put_on_record(recorded: Company, tmp_path: Path) -> None:
    made = recorded.copied(tmp_path / "copy")
    spool = made.directory / "data" / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.write_text("no folder", encoding="utf-8")
    told = said("audit", "export", "-c", made.config, tmp_path / "none.zip")
    assert (told.code, told.out) == (2, "")
    assert "cannot be put on record" in told.err
    assert not (tmp_path / "none.zip").exists()


def test_a_bundle_of_a_damaged_record_is_still_tried_and_its_making_waits(recorded: Company, tmp_path: Path) -> None:
    made = recorded.copied(tmp_path / "copy")
    with closing(sqlite3.connect(made.directory / "data" / "ledger.db")) as base, base:
        base.execute("UPDATE leaf SET entry = X'7B7D' WHERE idx = 3")
    told = said("audit", "export", "-c", made.config, tmp_path / "damaged.zip")
    assert told.code == 1
    assert "not on record yet" in told.err
    assert len(os.listdir(made.directory / "data" / "spool")) == 1


def test_nothing_is_opened_unless_it_is_asked_for(recorded: Company, tmp_path: Path) -> None:
    out = exported(recorded, tmp_path / "closed.zip")
    with zipfile.ZipFile(out) as packed:
        lines = [json.loads(line) for line in packed.read("opened.jsonl").splitlines()]
        assert [each["fact"] for each in lines] == ["every", "sent"], "more than how much was sent is opened"
        assert not any(b"alice" in packed.read(name) for name in packed.namelist())
    assert verified(out, "--key", vkey(recorded))[0] == 0
    out = exported(recorded, tmp_path / "some.zip", "--open", "decision,outcome", "--tool", "desk_write")
    opened = [json.loads(line) for line in zipfile.ZipFile(out).read("opened.jsonl").splitlines()]
    opened = [each for each in opened if each["index"] != 6]  # the end, which says how much was sent
    assert {each["fact"] for each in opened} == {"decision", "outcome"}
    assert len(opened) == 3  # a write that was allowed, and one that was not
    out = exported(recorded, tmp_path / "bob.zip", "--open", "all", "--person", "bob")
    assert b"alice" not in zipfile.ZipFile(out).read("opened.jsonl")
    assert verified(out, "--key", vkey(recorded))[0] == 0


@pytest.mark.parametrize("span", [(0, 6), (1, 3), (2, 2), (5, 6), (6, 6), (3, 5)])
def test_each_range_is_proven_under_the_newest_head(recorded: Company, tmp_path: Path, span: tuple[int, int]) -> None:
    out = exported(recorded, tmp_path / "part.zip", "--from", str(span[0]), "--to", str(span[1]), "--open", "all")
    code, text = verified(out, "--key", vkey(recorded), "--json")
    report = json.loads(text)
    assert report["findings"] == []
    assert report["range"] == {"from": span[0], "to": span[1]}
    assert code in (0, 6)


def test_a_range_of_times_takes_what_was_then(recorded: Company, tmp_path: Path) -> None:
    recorded = recorded.copied(tmp_path / "copy")
    size = records(recorded)
    out = exported(recorded, tmp_path / "past.zip", "--from", "2001-01-01", "--to", "2001-02-01T00:00:00Z")
    assert json.loads(verified(out, "--json")[1])["range"] == {"from": 0, "to": 0}
    out = exported(recorded, tmp_path / "now.zip", "--from", "2001-01-01")
    assert json.loads(verified(out, "--json")[1])["range"] == {"from": 0, "to": size + 2}, "with both bundles' making"


def records(made: Company) -> int:
    with closing(sqlite3.connect(made.directory / "data" / "ledger.db")) as base:
        return int(base.execute("SELECT size FROM head").fetchone()[0])


def grown(made: Company, kind: str = "intent") -> None:
    async def grow() -> None:
        async with building(made.config) as app:
            await app.ledger.append(
                AuditEntry(
                    kind=kind, call="call_" + "f" * 32, at=UnixTime(1_800_000_000), facts={"tool": {"name": "x"}}
                )
            )

    asyncio.run(grow())


def test_a_checkpoint_that_was_kept_shows_what_was_taken_back(recorded: Company, tmp_path: Path) -> None:
    first = exported(recorded, tmp_path / "first.zip")
    with zipfile.ZipFile(first) as packed:
        (tmp_path / "kept").write_bytes(packed.read("checkpoint"))
    one, other = recorded.copied(tmp_path / "one"), recorded.copied(tmp_path / "other")
    grown(one)
    key = ("--key", vkey(one))
    later = exported(one, tmp_path / "later.zip", "--from", "7", "--since", tmp_path / "kept")
    code, text = verified(later, *key, "--kept", tmp_path / "kept")
    assert code == 6  # the intent without outcome
    assert "start/checkpoint: a beginning of the newest" in text
    assert "the checkpoint you kept: a beginning" in text
    with zipfile.ZipFile(later) as packed:
        (tmp_path / "kept-later").write_bytes(packed.read("checkpoint"))
    # the operator goes back to an older copy, and on from there
    grown(other, "denial")
    grown(other, "denial")
    forked = exported(other, tmp_path / "forked.zip")
    code, text = verified(forked, *key, "--kept", tmp_path / "kept-later")
    assert code == 3, text
    assert "head_diverged" in text
    assert verified(forked, *key, "--kept", tmp_path / "kept")[0] == 0
    old = verified(first, *key, "--kept", tmp_path / "kept-later")
    assert (old[0], "head_newer" in old[1]) == (1, True)
    told = said("audit", "export", "-c", recorded.config, "--since", tmp_path / "kept-later", tmp_path / "x.zip")
    assert told.code == 1
    assert "put back to an older state" in told.err


def test_what_was_erased_is_said(recorded: Company, tmp_path: Path) -> None:
    made = recorded.copied(tmp_path / "it")
    with closing(sqlite3.connect(made.directory / "data" / "ledger.db")) as connection:
        connection.execute("DELETE FROM payload WHERE idx = 2")
        connection.commit()
    out = exported(made, tmp_path / "erased.zip", "--open", "all")
    code, text = verified(out, "--key", vkey(made), "--json")
    assert (code, json.loads(text)["erased"]) == (5, 1)


def test_a_damaged_record_is_not_exported_as_if_it_were_whole(recorded: Company, tmp_path: Path) -> None:
    made = recorded.copied(tmp_path / "it")
    with closing(sqlite3.connect(made.directory / "data" / "ledger.db")) as connection:
        entry = connection.execute("SELECT entry FROM leaf WHERE idx = 2").fetchone()[0]
        connection.execute("UPDATE leaf SET entry = ? WHERE idx = 2", (entry.replace(b'"v":1', b'"v":1 '),))
        connection.commit()
    told = said("audit", "export", "-c", made.config, tmp_path / "x.zip")
    assert told.code == 1
    assert "does not verify" in told.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from", "yesterday"), ("--from", "5", "--to", "3"), ("--to", "99"), ("--open", "Tool"), ("--tool", "x"),
        ("--since", "/nowhere"), ("-c", "/nowhere"), ("--control", "x"), ("--sample", "10001"), ("--seed", "word"),
        ("--sample", "2", "--tool", "x", "--open", "all"), ("--sample", "2", "--seed", "a\nb"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_said(recorded: Company, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    told = said("audit", "export", "-c", recorded.config, *arguments, tmp_path / "x.zip")
    assert told.code == 2
    assert "what to do" in told.err
    assert not list(tmp_path.iterdir())


def test_the_log_is_written_as_static_files(recorded: Company, tmp_path: Path) -> None:
    told, size = said("audit", "export-log", "-c", recorded.config, tmp_path / "log"), records(recorded)
    assert told.code == 0
    assert f"{size} records" in told.out
    assert (tmp_path / "log" / "tile" / "entries" / "000.p" / str(size)).exists()


def test_a_control_gets_a_sample_that_the_verifier_chooses_anew(recorded: Company, tmp_path: Path) -> None:
    chosen = ("--control", "nist-ac-3", "--sample", "2", "--seed", "our word")
    out = exported(recorded, tmp_path / "control.zip", *chosen)
    with zipfile.ZipFile(out) as packed:
        told, asked = packed.read("CONTROL.txt").decode(), json.loads(packed.read("manifest.json"))["asked"]
        opened = {json.loads(line)["index"] for line in packed.read("opened.jsonl").splitlines()}
    assert told.startswith("NIST SP 800-53, AC-3: Access enforcement")
    assert asked == {"control": "nist-ac-3", "from": "0", "open": "all", "sample": "2", "seed": "our word"}
    assert 2 <= len(opened) <= 4
    report = check(out, key=vkey(recorded))
    assert report.findings == []
    assert report.sampled is not None
    assert report.sampled[0] == 2


def test_controls_are_named_for_people_and_machines() -> None:
    for_people, for_machines = said("audit", "controls"), said("audit", "controls", "--json")
    assert (for_people.code, for_machines.code) == (0, 0)
    named = json.loads(for_machines.out)
    assert all(name in for_people.out for name in named)
    assert all(each["shows"] and each["not_shown"] and each["kinds"] for each in named.values())
