"""`audit reconcile` with a real gateway and a real backend in their own processes, and with each kind of cheating."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from act.granted import granted
from company import Company, Said, said, wait_for
from onbehalf.app import building
from onbehalf.cli.explain import opened
from onbehalf.doors.clock_system import now
from onbehalf.doors.signer_file import FileSigner
from onbehalf.model import AuditEntry, Grant, Receipt, UnixTime, digest
from onbehalf.verifier.command import main
from replacing import replace
from ticket_company import Tickets, ticketed

REFUSED = 'forbid (principal, action == Action::"writeDesk", resource) unless { principal in Group::"acme/staff" };'


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tickets]:
    """Some calls through a served gateway; then it ended. The backend still runs."""
    with ticketed(tmp_path_factory.mktemp("lived") / "it") as made:
        with made.around.serving():
            for ticket in ("T-1", "T-2"):
                told = made.around.call("desk_write", ticket_id=ticket, comment="é")
                assert not told.get("isError"), told
            made.around.call("desk_read")
            made.around.call("desk_write", token=made.around.token("bob-at-login"), ticket_id="T-1")
            made.around.call("notes_list")
        yield made


@pytest.fixture
def copied(lived: Tickets, tmp_path: Path) -> Tickets:
    """Copies of everything on disk, to be cheated with."""
    return copy_of(lived, tmp_path / "copy")


def copy_of(lived: Tickets, place: Path) -> Tickets:
    shutil.copytree(lived.around.directory, place)
    around = Company(
        directory=place, issuer=lived.around.issuer, desk=lived.around.desk, gateway=lived.around.gateway,
        admin=lived.around.admin,
    )  # fmt: skip
    return replace(lived, around=around, calls=place / "tickets" / "ticket-calls.db")


def reconcile(made: Tickets, *arguments: str | Path, source: str | Path = "") -> Said:
    given = ["--backend", f"desk={source or made.calls}"]
    return said("audit", "reconcile", "-c", made.around.config, *given, *arguments)


def told(made: Tickets, *arguments: str | Path, source: str | Path = "") -> tuple[int, dict[str, Any]]:
    ended = reconcile(made, *arguments, "--json", source=source)
    assert ended.code in (0, 1), ended
    return ended.code, json.loads(ended.out)


def findings(report: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(each["class"], each["bad"]) for each in report["findings"]]


def cheat(made: Tickets, statement: str) -> None:
    with closing(sqlite3.connect(made.calls)) as base, base:
        assert base.execute(statement).rowcount > 0


def stolen(made: Tickets, *, call: str = "call_" + "0" * 32, index: int = 9999, number: int = 50) -> Grant:
    """What somebody with the gateway's own signing key can make."""
    made_up = granted({"ticket_id": "T-1", "comment": "behind its back"}, tool="update_ticket", now=now(), index=index)
    allow = replace(made_up.allow, call=replace(made_up.allow.call, id=call))  # type: ignore[arg-type]  # any text
    channel = made.rows()[0]["channel"]
    receipt = Receipt(index=index, leaf=digest(b"none"), channel=channel, number=number)
    return replace(made_up, allow=allow, receipt=receipt, audience=made.audience)


def behind_its_back(lived: Tickets, grant: Grant) -> None:
    """A call to the backend, past the gateway."""
    token = FileSigner(lived.around.directory / "data" / "keys", issuer=lived.around.gateway).sign(grant).compact
    arguments = {"ticket_id": "T-1", "comment": "behind its back"}
    body = {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "update_ticket", "arguments": arguments},
    }  # fmt: skip
    headers = {
        "Txn-Token": token,
        "Accept": "application/json, text/event-stream",
        "Mcp-Protocol-Version": "2025-06-18",
    }
    before = len(lived.rows())
    httpx2.post(lived.audience, json=body, headers=headers, timeout=20, trust_env=False)
    assert len(lived.rows()) == before + 1


def test_an_honest_record_and_an_honest_backend_agree_and_the_result_is_on_record(copied: Tickets) -> None:
    code, report = told(copied)
    assert (code, report["ok"], report["findings"]) == (0, True, [])
    desk = report["backends"][copied.audience]
    assert (desk["complete"], desk["grade"], desk["counts"]) == (True, "R2", {"matched": 3, "sendings": 3})
    assert desk["numbers"] == [1, 3]
    notes = report["backends"]["sql:notes"]
    assert (notes["compared"], notes["complete"], notes["grade"]) == (False, False, "R1")
    reader = opened(copied.around.config)
    try:
        record: Any = reader.record(report["record"])
        assert record.kind == "reconciled"
        assert record.facts["backends"] == report["backends"]
        assert reader.verify().ok
    finally:
        reader.close()
    assert os.listdir(copied.around.directory / "data" / "spool") == []


def verified(made: Tickets, bundle: Path, *arguments: str) -> dict[str, Any]:
    """What the verifier says of a bundle, with nothing but the log's public key."""
    vkey = (made.around.directory / "data" / "keys" / "log.pub").read_text().strip()
    shown = io.StringIO()
    with redirect_stdout(shown):
        main([str(bundle), "--key", vkey, "--json", *arguments])
    return dict(json.loads(shown.getvalue()))


def test_an_auditor_sees_from_a_bundle_and_the_backends_rows_that_nothing_was_off_the_record(
    copied: Tickets, tmp_path: Path
) -> None:
    assert told(copied)[0] == 0
    bundle, rows = tmp_path / "all.zip", tmp_path / "rows.jsonl"
    assert said("audit", "export", "-c", copied.around.config, "--open", "outcome,result_digest", bundle).code == 0
    rows.write_text("".join(json.dumps(row) + "\n" for row in copied.rows()))
    report = verified(copied, bundle, "--backend", f"{copied.audience}={rows}")
    by_name = {each["backend"]: each for each in report["complete"]}
    assert report["verdict"] == "verified"
    desk = by_name[copied.audience]
    assert (desk["complete"], desk["by"], desk["grade"]) == (True, "records", "R2"), desk
    assert (desk["counts"]["sendings"], desk["counts"]["answers"]) == (3, 3)
    assert not by_name["sql:notes"]["complete"]
    assert {each["backend"]: (each["complete"], each["by"]) for each in verified(copied, bundle)["complete"]} == {
        copied.audience: (True, "reconciliation"), "sql:notes": (False, "")
    }  # fmt: skip
    behind = json.dumps({**copied.rows()[0], "n": 9, "record": 2, "token": "call_x.2", "call": "call_x"}) + "\n"
    rows.write_text(rows.read_text() + behind)
    report = verified(copied, bundle, "--backend", f"{copied.audience}={rows}")
    assert report["exit"] == 7


def test_a_call_executed_without_the_gateway_is_found(lived: Tickets, tmp_path: Path) -> None:
    behind_its_back(lived, stolen(lived))
    cheated = copy_of(lived, tmp_path / "copy")
    cheat(lived, "DELETE FROM onbehalf_calls WHERE n = 50")
    code, report = told(cheated)
    assert (code, findings(report)) == (1, [("executed_without_intent", True)])
    assert not report["backends"][cheated.audience]["complete"]
    text = reconcile(cheated).out
    assert text.startswith("1 things are wrong") or "executed_without_intent" in text.splitlines()[1]


def test_a_token_with_a_made_up_channel_does_not_take_a_call_out_of_sight(lived: Tickets, tmp_path: Path) -> None:
    grant = stolen(lived, index=4, number=1)
    behind_its_back(lived, replace(grant, receipt=replace(grant.receipt, channel="f" * 16)))
    cheated = copy_of(lived, tmp_path / "copy")
    cheat(lived, f"DELETE FROM onbehalf_calls WHERE channel = '{'f' * 16}'")
    now_ = int(time.time())
    for at, found in ((now_ - 10_000, []), (times(cheated)[0], [("executed_without_intent", True)])):
        cheat(cheated, f"UPDATE onbehalf_calls SET at = {at} WHERE channel = '{'f' * 16}'")
        assert findings(told(cheated)[1]) == found


def times(made: Tickets) -> list[int]:
    return [row["at"] for row in made.rows() if row["channel"] != "f" * 16]


def test_a_denied_call_that_was_executed_is_found(lived: Tickets, tmp_path: Path) -> None:
    reader = opened(lived.around.config)
    try:
        denied = next(record.call for record in reader.latest(100) if record.kind == "denial")
    finally:
        reader.close()
    behind_its_back(lived, stolen(lived, call=denied, index=9998, number=51))
    cheated = copy_of(lived, tmp_path / "copy")
    cheat(lived, "DELETE FROM onbehalf_calls WHERE n = 51")
    assert findings(told(cheated)[1]) == [("denied_but_executed", True)]


@pytest.mark.parametrize(
    ("statement", "found", "word"),
    [
        ("DELETE FROM onbehalf_calls WHERE n = 2", "not_executed", "no such call"),
        ("UPDATE onbehalf_calls SET answer = 'sha256:' || hex(zeroblob(32)) WHERE n = 2", "mismatch", "answer"),
        ("UPDATE onbehalf_calls SET arguments = 'sha256:0' WHERE n = 2", "mismatch", "arguments"),
        ("UPDATE onbehalf_calls SET tool = 'drop_ticket' WHERE n = 2", "mismatch", "tool"),
        ("UPDATE onbehalf_calls SET leaf = 'sha256:0' WHERE n = 2", "mismatch", "leaf"),
        ("UPDATE onbehalf_calls SET n = 7 WHERE n = 2", "mismatch", "number"),
    ],
)
def test_a_backend_whose_record_was_changed_is_found(copied: Tickets, statement: str, found: str, word: str) -> None:
    cheat(copied, statement)
    code, report = told(copied)
    assert (code, findings(report)) == (1, [(found, True)])
    assert word in report["findings"][0]["text"]
    assert report["findings"][0]["n"] == 2


def test_exports_say_the_same_as_the_table_and_a_damaged_one_is_no_record(copied: Tickets, tmp_path: Path) -> None:
    rows = copied.rows()
    lines = tmp_path / "calls.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = tmp_path / "calls.csv"
    table.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n")
    for source in (lines, table):
        assert told(copied, source=source)[0] == 0
    lines.write_text(lines.read_text()[:-30])
    for source in (lines, tmp_path / "none.jsonl", tmp_path / "calls.txt", "env:NOT_SET_ANYWHERE"):
        ended = reconcile(copied, source=source)
        assert (ended.code, ended.out) == (2, ""), ended


def sent_nowhere(made: Tickets, at: UnixTime) -> None:
    """An intent on record of which nothing came, as when the gateway is killed before it sends."""

    async def leave() -> None:
        async with building(made.around.config) as app:
            intent = AuditEntry(kind="intent", call="call_" + "f" * 32, at=at, facts={}, audience=made.audience)
            await app.ledger.append(intent)

    asyncio.run(leave())


def test_an_intent_without_effect_is_settled_once_its_token_is_over_and_not_before(copied: Tickets) -> None:
    sent_nowhere(copied, UnixTime(now() - 60))
    code, report = told(copied)
    assert (code, findings(report)) == (0, [("unknown", False)])
    assert "did not do it" in report["findings"][0]["text"]
    sent_nowhere(copied, UnixTime(now() + 600))
    code, report = told(copied)
    assert (code, findings(report)) == (1, [("unknown", True), ("unknown", False)])


def test_an_unknown_call_is_not_settled_without_the_backends_record(copied: Tickets) -> None:
    sent_nowhere(copied, UnixTime(now() - 60))
    ended = said("audit", "reconcile", "-c", copied.around.config, "--json")
    assert ended.code == 1
    assert findings(json.loads(ended.out)) == [("unknown", True)]


def test_a_span_takes_only_what_is_in_it(copied: Tickets) -> None:
    reader = opened(copied.around.config)
    try:
        intents = [record.index for record in reader.latest(100) if record.kind == "intent"]
    finally:
        reader.close()
    code, report = told(copied, "--from", str(intents[1]), "--to", str(intents[2]))
    assert code == 0
    assert report["backends"][copied.audience]["numbers"] == [2, 2]
    assert reconcile(copied, "--from", "99999").code == 2


def test_a_gateway_that_is_killed_while_a_call_is_under_way_agrees_with_its_backend_afterwards(
    tmp_path: Path,
) -> None:
    with ticketed(tmp_path / "it") as made:
        with made.around.serving() as gateway:
            made.around.call("desk_read")
            made.process.send_signal(signal.SIGSTOP)
            caller = threading.Thread(target=_quietly, args=(made.around,))
            caller.start()
            wait_for(lambda: _intents(made.around) == 2, what="the second intent")
            gateway.kill()
            gateway.wait(10)
            made.process.send_signal(signal.SIGCONT)
            caller.join(20)
        with made.around.serving():
            code, report = told(made)
            assert report["record"] is not None, "a gateway that serves did not take the result"
            assert report["backends"][made.audience]["numbers"] == [1, 2]
            (finding,) = report["findings"]
            did = len(made.rows()) == 2
            settled = "the backend did it" if did else "the backend did not do it"
            assert settled in finding["text"] or "under way" in finding["text"], finding
            assert code == (1 if finding["bad"] else 0)


def _quietly(around: Company) -> None:
    with suppress(Exception):  # the gateway goes away under it
        around.call("desk_write", ticket_id="T-1", comment="new")


def _intents(around: Company) -> int:
    reader = opened(around.config)
    try:
        return sum(record.kind == "intent" for record in reader.latest(100))
    finally:
        reader.close()
