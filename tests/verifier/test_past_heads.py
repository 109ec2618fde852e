"""Heads of the past in a bundle: which ones are taken along, and what a policy's quorum says by them."""

from __future__ import annotations

import asyncio
import base64
import json
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.doors.ledger_evidence_heads import MOST, past_heads
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_signing import HeadSigning
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.explain.checkpoint import Checkpoint, write
from onbehalf.model import AuditEntry, Json, UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.policy import read_policy
from onbehalf.verifier.report import Past, Report, Verdict
from onbehalf.verifier.witnessed import Witnessed
from onbehalf.witness.serve import Witness
from verifier.bundle_house import KEY, ORIGIN, intent, outcome, packed
from witness_house import policy_text

DAY = 86_400
FIRST = 20_000 * DAY


@dataclass(frozen=True, slots=True)
class Seen:
    """A log of 5 witnessed calls, one a day, whose leaves are 1 to 10. Two witnesses cosigned the heads of the first
    four, the second one an hour later; of the third only one did."""

    place: Path
    vkey: str
    witnesses: tuple[Witness, Witness]

    def bundle(self, name: str = "b.zip", **asked: Any) -> Path:
        reader = LedgerReader(self.place / "log.db", keys=open_ledger_keys(self.place / "keys", origin=ORIGIN))
        heads = LedgerHeads(self.place / "log.db", self.place / "heads.db", verifier=reader.verifier)
        asked = {"everything": True, **asked}
        keys: dict[str, Json] = {"receipts": {"desk": {"keys": [KEY.public]}}}
        export(reader, self.place / name, Asked(**asked), keys=keys, policies={}, heads=heads)
        heads.close()
        reader.close()
        return self.place / name

    def policy(self, quorum: str) -> str:
        named = [(name, each.vkey, "") for name, each in zip("ab", self.witnesses, strict=True)]
        return f"log {self.vkey}\n" + policy_text(*named, quorum=quorum)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("past")
    keys = open_ledger_keys(place / "keys", origin=ORIGIN)
    assert keys.heads is not None
    vkey, clock = keys.signer.verifier.vkey, [FIRST]
    with ExitStack() as stack:
        two = [
            Witness(place / name, name=f"{name}.example/1", logs=[vkey], clock=lambda late=late: clock[0] + late)  # type: ignore[misc]
            for name, late in (("a", 0), ("b", 3600))
        ]
        for each in two:
            stack.callback(each.close)
        ledger = SqliteLedger.open(place / "log.db", keys=keys, origin=ORIGIN, now=lambda: UnixTime(5000))
        heads = LedgerHeads(place / "log.db", place / "heads.db", verifier=keys.signer.verifier)
        stack.callback(heads.close)
        signing = HeadSigning(heads, keys.heads, clock=lambda: UnixTime(FIRST))

        async def fill() -> None:
            await ledger.append(AuditEntry(kind="start", call="", at=UnixTime(999), facts={}))
            for number in range(5):
                receipt = await ledger.append(intent(number))
                clock[0] = FIRST + number * DAY
                if number < 4:
                    _cosign(heads, two[:1] if number == 2 else two)
                told = outcome(number, receipt)
                fact = {"size": receipt.index + 1, "by": {"a": clock[0]}}
                await ledger.append(replace(told, facts={**told.facts, "witnessed": fact}))
                signing.newest()  # the log's own line is no cosignature

        asyncio.run(fill())
        ledger.close()
        yield Seen(place, vkey, (two[0], two[1]))


def _cosign(heads: LedgerHeads, witnesses: list[Witness]) -> None:
    head = heads.newest()
    for name, each in zip("ab", witnesses, strict=False):
        old = 0 if (first := each.add_checkpoint(_request(0, [], head.note))).status == 200 else int(first.body)
        answer = first if not old else each.add_checkpoint(_request(old, heads.proof(old, head.size), head.note))
        assert answer.status == 200, answer.body
        heads.keep(head, {name: (int(each._clock()), answer.body)})


def _request(old: int, steps: list[bytes], note: str) -> bytes:
    hashes = "".join(f"{base64.b64encode(step).decode()}\n" for step in steps)
    return f"old {old}\n{hashes}\n{note}".encode()


def judged(seen: Seen, path: Path, quorum: str = "2") -> Report:
    return check(path, policy=read_policy(seen.policy(quorum).encode()))


def sizes(path: Path) -> list[int]:
    with zipfile.ZipFile(path) as opened:
        if "heads.jsonl" not in opened.namelist():
            return []
        return [int(json.loads(line)["note"].split("\n")[1]) for line in opened.read("heads.jsonl").splitlines()]


def test_the_quorum_says_what_existed_when_and_that_calls_were_witnessed(seen: Seen) -> None:
    path = seen.bundle()
    assert sizes(path) == [2, 4, 6, 8]
    report = judged(seen, path)
    assert report.findings == []
    late = [FIRST + day * DAY + 3600 for day in range(4)]
    assert report.past == [Past(2, late[0]), Past(4, late[1]), Past(6, None), Past(8, late[3])]
    assert (report.witnessed, report.unshown) == (5, [5, 9])
    assert "leaves before 8 at 2024-10-07 01:00:00 UTC, by the quorum" in report.as_text()
    assert "5 calls before they were sent, say their outcomes: NOT SHOWN for intents 5, 9" in report.as_text()
    assert report.verdict == Verdict.unpinned  # nobody cosigned the newest head
    report = judged(seen, path, "any")
    assert report.past[2] == Past(6, FIRST + 2 * DAY)
    assert report.past[0] == Past(2, FIRST)
    assert report.unshown == [9]
    report = check(path, key=seen.vkey)
    assert (report.verdict, [each.at for each in report.past]) == (Verdict.verified, [None] * 4)
    assert "give --policy to see it shown" in report.as_text()


def test_a_range_has_the_heads_of_its_calls_of_its_days_and_the_first_one_over_it(seen: Seen) -> None:
    path = seen.bundle("r.zip", start=("index", 2), end=("index", 5))
    assert sizes(path) == [2, 4, 6]
    report = judged(seen, path)
    assert report.findings == []
    assert [each.size for each in report.past] == [2, 4, 6]
    assert (report.witnessed, report.unshown) == (2, [])
    later = seen.bundle("l.zip", start=("index", 4), end=("index", 5))  # the outcome of an intent before it
    assert sizes(later) == [4, 6]
    assert judged(seen, later).unshown == []
    closed = seen.bundle("n.zip", start=("index", 5), end=("index", 8), everything=False)
    assert sizes(closed) == [6, 8]
    closed = seen.bundle("c.zip", everything=False)
    assert sizes(closed) == [2, 4, 6, 8]  # one a day
    assert judged(seen, closed).witnessed == 0


def spoiled(seen: Seen, change: Any, *, start: int = 0, end: int | None = None) -> Path:
    path = seen.bundle("base.zip", start=("index", start), end=None if end is None else ("index", end))
    with zipfile.ZipFile(path) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    lines = [json.loads(line) for line in files["heads.jsonl"].splitlines()]
    change(lines)
    files["heads.jsonl"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return packed(seen.place / "spoiled.zip", files, honest=True)


def _cosignature(lines: list[dict[str, Any]]) -> None:
    note = lines[0]["note"]
    lines[0]["note"] = note[:-300] + ("A" if note[-300] != "A" else "B") + note[-299:]


def _fork(seen: Seen) -> Any:
    signer = open_ledger_keys(seen.place / "keys", origin=ORIGIN).signer

    def change(lines: list[dict[str, Any]]) -> None:
        lines[0]["note"] = write(Checkpoint(origin=ORIGIN, size=2, root=b"f" * 32), signer)

    return change


def test_a_head_that_does_not_hold_says_nothing_and_is_found(seen: Seen) -> None:
    for change, code in (
        (_cosignature, "cosignature_invalid"),
        (lambda lines: lines[0].update(note=lines[0]["note"].replace("\n2\n", "\n3\n", 1)), "past_head_invalid"),
        (lambda lines: lines.reverse(), "past_head_invalid"),
        (lambda lines: lines[0].update(proof="x"), "past_head_invalid"),
        (lambda lines: lines[0].update(proof=["x"]), "past_head_invalid"),
        (lambda lines: lines[0].update(more=1), "past_head_invalid"),
        (lambda lines: lines.append({"note": 1, "proof": []}), "past_head_invalid"),
    ):
        report = judged(seen, spoiled(seen, change))
        assert {each.code for each in report.findings} == {code}
        assert report.verdict == Verdict.invalid
    report = judged(seen, spoiled(seen, _fork(seen)))
    assert report.verdict == Verdict.diverged
    assert 1 in report.unshown
    past_it = spoiled(seen, lambda lines: lines[-1].update(proof=[]), end=3)
    assert [each.code for each in judged(seen, past_it).findings] == ["head_unproven"]


def test_a_head_without_its_intent_is_no_witness_of_it(seen: Seen) -> None:
    claims = Witnessed()
    assert claims.take(5, {"size": 6}) == ""
    for said in ({"size": 5}, {"size": -1}, {"size": True}, {"size": "6"}, {}, [], None):
        assert claims.take(5, said) != ""
    assert claims.count == 1


class _Many:
    def cosigned(self, first: int, last: int) -> list[tuple[int, int]]:
        return [(size, size * DAY) for size in range(first, last + 1)]

    def noted(self, size: int) -> str:
        return str(size)


def test_a_bundle_has_no_more_heads_than_it_may(seen: Seen) -> None:
    chosen = [int(each) for each in past_heads(_Many(), {*range(5, 15)}, span=(0, 9000), size=9001)]
    assert len(chosen) == MOST
    assert chosen == sorted(chosen)
    assert {*range(5, 15), 9000} <= set(chosen)  # what is asked about, and the latest days
