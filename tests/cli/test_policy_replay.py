"""`policy replay` and `explain` on a record of real calls: what other policies would make of them, and themselves."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from company import POLICIES, SCHEMA, Company, company, said
from onbehalf.app import building
from onbehalf.doors.clock_system import now
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.model import AuditEntry, Json, Presented, ToolRequest, UnixTime
from onbehalf.places import load_settings, log_origin
from validate.policy_house import bundle_at


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """Alice lists notes and writes, Bob is denied twice; then the policies are changed, and Bob lists notes."""
    with company(tmp_path_factory.mktemp("replayed") / "it") as made:

        async def calls() -> None:
            async with building(made.config) as app:

                async def call(subject: str, tool: str, **arguments: Json) -> None:
                    request = ToolRequest(tool=tool, arguments=arguments, protocol="2026-07-28", agent="tests/1")
                    await app.gateway.call(Presented(token=made.token(subject)), request)

                await call("alice-at-login", "notes_list")
                await call("alice-at-login", "desk_write", word="x")
                await call("bob-at-login", "desk_write", word="x")
                await call("bob-at-login", "desk_write", word="y")
                made.edit(
                    '"acme/staff", action,', '"acme/staff", action == Action::"readDesk",', name="policies/own.cedar"
                )
                made.edit("principal in Group", "principal is User in Group", name="policies/own.cedar")
                await app.reload()
                assert not app.problems
                await call("alice-at-login", "desk_write", word="x")

        asyncio.run(calls())
        yield made


@pytest.fixture
def copied(recorded: Company, tmp_path: Path) -> Company:
    return recorded.copied(tmp_path / "copy")


def bundle(place: Path, policies: str = POLICIES) -> Path:
    return bundle_at(place / "new", policies, SCHEMA)


def replayed(made: Company, new: Path, *more: str) -> tuple[int, dict[str, Any]]:
    told = said("policy", "replay", "-c", made.config, "--bundle", new, "--json", *more)
    assert told.code in (0, 1, 3), told.err
    return told.code, json.loads(told.out)


def test_who_gains_and_who_loses_is_told_by_person_and_tool(recorded: Company, tmp_path: Path) -> None:
    new = bundle(tmp_path, POLICIES.replace('principal in Group::"acme/staff"', 'principal == User::"acme/bob"'))
    code, told = replayed(recorded, new)
    assert code == 3
    assert {(each["change"], each["who"], each["tool"], each["was"], each["now"], each["decisions"])
            for each in told["changes"]} == {
        ("gains", "acme/bob", "desk_write", "deny (not_permitted)", "allow", 2),
        ("loses", "acme/alice", "desk_write", "allow", "deny (not_permitted)", 1),
        ("loses", "acme/alice", "notes_list", "allow", "deny (not_permitted)", 1),
    }  # fmt: skip
    assert told["control"] == {"same": 5, "differs": 0, "policies_not_kept": 0, "differing": []}
    assert (told["decisions"], told["same"], told["exit"]) == (5, 1, 3)
    shown = said("policy", "replay", "-c", recorded.config, "--bundle", new)
    assert shown.code == 3
    assert "gains       acme/bob  desk_write: deny (not_permitted), then allow; 2 decisions, such as call_" in shown.out
    assert "which rows policies let through is not shown" in shown.out


def test_each_decision_is_held_against_the_policies_of_its_own_time(recorded: Company, tmp_path: Path) -> None:
    code, told = replayed(recorded, bundle(tmp_path))
    [change] = told["changes"]
    assert (code, change["change"], change["who"], change["decisions"]) == (3, "gains", "acme/alice", 1)
    assert told["control"]["same"] == 5


def test_only_what_was_decided_since_then_is_made_again(recorded: Company, tmp_path: Path) -> None:
    new = bundle(tmp_path)
    assert replayed(recorded, new, "--since", "1970-01-01")[1]["decisions"] == 5
    for far in ("1h", "999999w", "0001-01-01"):
        assert said("policy", "replay", "-c", recorded.config, "--bundle", new, "--since", far).code == 3
        assert replayed(recorded, new, "--since", far)[1]["decisions"] == 5
    code, told = replayed(recorded, new, "--since", "2999-01-01")
    assert (code, told["decisions"], told["changes"]) == (0, 0, [])
    shown = said("policy", "replay", "-c", recorded.config, "--bundle", new, "--since", "2999-01-01")
    assert (shown.code, "Nothing changes" in shown.out) == (0, True)


def test_obligations_that_change_are_told(recorded: Company, tmp_path: Path) -> None:
    new = bundle(tmp_path, POLICIES.replace('@id("staff")', '@id("staff") @approve("manager") @max_rows("5")', 1))
    code, told = replayed(recorded, new)
    assert code == 3
    ways = {(each["change"], each["tool"], each["was"], each["now"]) for each in told["changes"]}
    assert ("loses", "notes_list", "allow", "ask") in ways
    assert ("loses", "desk_write", "allow", "deny (obligation_unmet)") in ways
    new = bundle(tmp_path, POLICIES.replace('@id("staff")', '@id("staff") @scope("notes.read")', 1))
    _, told = replayed(recorded, new)
    changed = [each for each in told["changes"] if each["change"] == "obligations"]
    assert {each["tool"] for each in changed} == {"notes_list", "desk_write"}
    assert changed[0]["obligations"] == {"was": [], "now": ['{"policy":"staff","scope":["notes.read"]}']}
    text = said("policy", "replay", "-c", recorded.config, "--bundle", new).out
    assert 'now {"policy":"staff","scope":["notes.read"]}' in text


def test_calls_of_an_action_that_no_tool_has_any_more_are_told_apart(copied: Company, tmp_path: Path) -> None:
    copied.edit("desk_write: {action: writeDesk,", "desk_write: {action: readDesk,")
    _, told = replayed(copied, bundle(tmp_path, POLICIES.replace("acme/staff", "acme/nobody")))
    assert told["not_replayed"] == {"no_such_action": 4}
    assert {each["tool"] for each in told["changes"]} == {"notes_list"}


def test_a_broken_bundle_is_refused_with_what_is_wrong(recorded: Company, tmp_path: Path) -> None:
    told = said("policy", "replay", "-c", recorded.config, "--bundle", bundle(tmp_path, "permit(principal"))
    assert told.code == 2
    assert "a.cedar" in told.err
    assert said("policy", "replay", "-c", recorded.config, "--bundle", tmp_path / "none").code == 2
    told = said("policy", "replay", "-c", recorded.config, "--bundle", bundle(tmp_path), "--since", "often")
    assert told.code == 2
    assert "7d" in told.err


def test_bundles_that_are_not_kept_leave_no_control(copied: Company, tmp_path: Path) -> None:
    shutil.rmtree(copied.directory / "data" / "policies")
    shutil.rmtree(copied.directory / "policies")
    code, told = replayed(copied, bundle(tmp_path))
    assert (code, told["control"]["same"], told["control"]["policies_not_kept"]) == (3, 0, 5)
    assert [each["who"] for each in told["changes"]] == ["acme/alice"]
    assert "its policies are not kept here" in said("explain", "last", "-c", copied.config).out


def test_a_kept_bundle_that_was_changed_is_none(copied: Company, tmp_path: Path) -> None:
    for each in (copied.directory / "data" / "policies").iterdir():
        each.write_bytes(each.read_bytes().replace(b"staff", b"stuff"))
    _, told = replayed(copied, bundle(tmp_path))
    assert told["control"]["policies_not_kept"] == 4  # one bundle still stands where it was read from


def test_an_erased_payload_is_not_made_again(copied: Company, tmp_path: Path) -> None:
    with closing(sqlite3.connect(copied.ledger)) as base:
        base.execute("DELETE FROM payload WHERE idx = 1")
        base.commit()
    _, told = replayed(copied, bundle(tmp_path))
    assert told["not_replayed"] == {"erased": 1}


def lie(made: Company) -> None:
    """Put a decision on record that its policies did not make, as a gateway could that is not ours."""
    origin = log_origin(load_settings(made.config))
    keys = made.directory / "data" / "keys"
    reader = LedgerReader(made.ledger, keys=read_ledger_keys(keys, origin=origin))
    denial = next(each for each in reader.since(UnixTime(0)) if each.kind == "denial")
    reader.close()
    decision = denial.facts["decision"]
    assert isinstance(decision, dict)
    facts = {**denial.facts, "decision": {**decision, "effect": "allow", "code": "", "policies": ["staff"]}}
    ledger = SqliteLedger.open(made.ledger, keys=open_ledger_keys(keys, origin=origin), origin=origin, now=now)
    entry = AuditEntry(kind="intent", call="call_" + "f" * 32, at=denial.at, facts=facts)
    asyncio.run(_appended(ledger, entry))
    ledger.close()


async def _appended(ledger: SqliteLedger, entry: AuditEntry) -> None:
    await ledger.append(entry)


def test_a_decision_that_its_own_policies_do_not_make_is_1_and_named(copied: Company, tmp_path: Path) -> None:
    lie(copied)
    code, told = replayed(copied, bundle(tmp_path))
    assert (code, told["control"]["differs"]) == (1, 1)
    assert told["control"]["differing"][0]["call"] == "call_" + "f" * 32
    assert "on record is allow, and now comes out deny (not_permitted)" in told["control"]["differing"][0]["text"]
    shown = said("policy", "replay", "-c", copied.config, "--bundle", bundle(tmp_path))
    assert "differs  record" in shown.out
    assert "NOT THE SAME" in said("explain", "call_" + "f" * 32, "-c", copied.config).out


def test_explain_says_of_each_decision_that_it_comes_out_the_same(recorded: Company) -> None:
    calls = {each["call"] for each in json.loads(said("audit", "list", "-c", recorded.config, "--json").out)["records"]}
    for call in calls - {""}:
        told = json.loads(said("explain", call, "-c", recorded.config, "--json").out)
        [line] = [each["text"] for each in told["lines"] if each["role"] == "replayed"]
        assert line == "Decided again from the record, it comes out the same."


def test_a_call_is_told_from_the_record_without_policies_people_or_upstreams(copied: Company) -> None:
    before = said("explain", "last", "-c", copied.config).out
    shutil.rmtree(copied.directory / "policies")
    for gone in (
        copied.directory / "people.yaml",
        copied.directory / "notes.db",
        copied.directory / "data/directory.db",
    ):
        gone.unlink()
    told = said("explain", "last", "-c", copied.config)
    assert (told.code, told.out) == (0, before)
    assert "comes out the same" in told.out


def test_evidence_brings_every_bundle_that_its_decisions_name(recorded: Company, tmp_path: Path) -> None:
    assert said("audit", "export", "-c", recorded.config, "--open", "all", tmp_path / "x.zip").code == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as packed:
        named = {name for name in packed.namelist() if name.startswith("policies/")}
        opened = [orjson.loads(line) for line in packed.read("opened.jsonl").splitlines()]
    decisions = [orjson.loads(each["json"]) for each in opened if each["fact"] == "decision"]
    assert named == {f"policies/{each['policy'].removeprefix('sha256:')}.json" for each in decisions}
    assert len(named) == 2
