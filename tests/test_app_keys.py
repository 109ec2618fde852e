"""Which keys are in force is on record: with each start, and with each change, whenever that was made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from company import Company, company, said
from onbehalf.app import building
from onbehalf.backend.receipt import receipt_key
from onbehalf.cli.explain import opened
from onbehalf.explain.key_set import CallKey, changed, key_set
from onbehalf.model import AuditEntry, Receipt, UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.report import Verdict
from verifier.bundle_house import KEY, bundled_from, intent, outcome, recorded


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        yield made


def started(around: Company) -> None:
    async def walk() -> None:
        async with building(around.config):
            pass

    asyncio.run(walk())


def records(around: Company) -> list[tuple[str, dict[str, Any]]]:
    reader = opened(around.config)
    try:
        found = [(record.kind, dict(record.facts)) for record in reader.latest(100)]
    finally:
        reader.close()
    return [each for each in found if each[0] != "stop"]


def test_each_start_has_an_epoch_and_the_public_keys_and_only_a_change_is_a_record_of_its_own(
    around: Company, tmp_path: Path
) -> None:
    started(around)
    started(around)
    (_, first), (_, second) = records(around)
    assert [kind for kind, _ in records(around)] == ["start", "start"]
    assert first["epoch"] != second["epoch"]
    assert first["key_set"] == second["key_set"]
    assert len(first["key_set"]["log"]) == 2
    states = [(each["state"], "since" in each) for each in first["key_set"]["calls"]]
    assert states == [("next", True), ("current", True)]
    said("keys", "rotate", "--lost", "-c", around.config)
    (tmp_path / "receipts.json").write_text(json.dumps({"keys": [KEY.public]}))
    around.edit("    kind: mcp\n", f"    kind: mcp\n    receipt_keys: {tmp_path / 'receipts.json'}\n")
    started(around)
    kinds = [kind for kind, _ in records(around)]
    assert kinds == ["start", "start", "key_change", "start"]
    change, last = (facts for _, facts in records(around)[2:])
    assert change["before"] == first["key_set"]
    assert change["key_set"] == last["key_set"]
    assert change["key_set"]["receipts"] == {"desk": {KEY.public["kid"]: KEY.public["x"]}}
    assert {each["kid"] for each in change["key_set"]["calls"]}.isdisjoint(
        each["kid"] for each in first["key_set"]["calls"]
    )
    text = json.dumps(change) + json.dumps(last)
    for name in ("log.key", "log-ml-dsa.key", "payload.key"):
        assert (around.directory / "data" / "keys" / name).read_text().strip() not in text


def test_a_lost_second_key_of_the_log_shows_as_a_change(around: Company) -> None:
    started(around)
    (around.directory / "data" / "keys" / "log-ml-dsa.key").unlink()
    started(around)
    change = records(around)[1][1]
    assert change["before"]["log"][0] == change["key_set"]["log"][0]
    assert change["before"]["log"][1] != change["key_set"]["log"][1]


def test_the_records_keys_are_rotated_by_command_and_an_auditor_goes_on_with_those_they_know(
    around: Company, tmp_path: Path
) -> None:
    around.edit("gateway:\n", "gateway:\n  public_log: hashes\n")
    public = around.directory / "data" / "keys" / "log.pub"
    assert "no record" in said("keys", "rotate-log", "-c", around.config).err
    started(around)
    old = public.read_text().strip()
    told = said("keys", "rotate-log", "-c", around.config)
    new = public.read_text().strip()
    assert (told.code, new in told.out, set(old.split()).isdisjoint(new.split())) == (0, True, True)
    with around.serving():
        refused = said("keys", "rotate-log", "-c", around.config)
        assert (refused.code, "another process writes the ledger" in refused.err) == (2, True)
        (line,) = httpx2.get(f"{around.gateway}/log/handovers").text.splitlines()
    kinds = [(kind, "log_key" in facts) for kind, facts in records(around)]
    assert kinds == [("start", False), ("key_change", True), ("key_change", False), ("start", False)]
    made, noticed = (facts for kind, facts in records(around) if kind == "key_change")
    assert made["log_key"] == json.loads(json.loads(line)["json"]) == {"before": old.split(), "after": new.split()}
    assert noticed["before"]["log"] != noticed["key_set"]["log"]
    assert said("audit", "verify", "-c", around.config).code == 0
    assert said("audit", "export", tmp_path / "b.zip", "-c", around.config).code == 0
    assert said("audit", "export-log", tmp_path / "log", "-c", around.config).code == 0
    assert (tmp_path / "log" / "handovers").read_text() == line + "\n"
    for key in (old, new):
        assert check(tmp_path / "b.zip", key=key).verdict == Verdict.verified


def test_a_key_set_holds_what_is_known_and_the_same_is_no_change() -> None:
    former = CallKey(kid="c", state="former", until=9)
    made = key_set(log=("a+1+b",), calls=(CallKey(kid="k", state="current", since=5), former), receipts={})
    assert made["calls"] == [
        {"kid": "k", "state": "current", "since": 5},
        {"kid": "c", "state": "former", "until": 9},
    ]
    assert changed(json.loads(json.dumps(made)), made, at=UnixTime(1)) is None
    assert changed(None, made, at=UnixTime(1)) is not None


def bundle(place: Path, *sets: dict[str, Any], **asked: Any) -> Any:
    """Calls with receipts, before each of which a start or change says which keys are in force."""

    async def more(ledger: Any) -> None:
        for number, receipts in enumerate(sets, start=50):
            facts = {"key_set": {"log": [], "calls": [], "receipts": receipts}}
            kind = "start" if number == 50 else "key_change"
            await ledger.append(AuditEntry(kind=kind, call="", at=UnixTime(1000 + number), facts=facts))
            receipt: Receipt = await ledger.append(intent(number))
            await ledger.append(outcome(number, receipt))

    made = bundled_from(recorded(place, then=more), place / "b.zip", start=("index", 0), end=None, **asked)
    return check(made.path, key=made.vkey)


GOOD = {"desk": {KEY.public["kid"]: KEY.public["x"]}}
OTHER = {"desk": {KEY.public["kid"]: receipt_key(b"o" * 32).public["x"]}}


def test_a_receipt_by_a_key_that_was_on_record_holds_and_by_another_does_not(tmp_path: Path) -> None:
    assert bundle(tmp_path / "a", GOOD, GOOD).verdict == Verdict.verified
    for name, sets in (("b", (GOOD, {})), ("c", (OTHER,)), ("d", (GOOD, OTHER)), ("e", ({"desk": {}},))):
        report = bundle(tmp_path / name, *sets)
        assert [each.code for each in report.findings] == ["opened_invalid"], name
        assert "none of those on record" in report.findings[0].text


def test_what_is_not_opened_of_the_keys_is_not_guessed(tmp_path: Path) -> None:
    facts = frozenset({"backend_receipt"})
    report = bundle(tmp_path, GOOD, OTHER, everything=False, open=facts)
    assert (report.verdict, report.findings) == (Verdict.verified, [])
