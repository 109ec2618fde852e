"""Changes of the log's key in a bundle: followed from any key of the log, and not believed without both signatures."""

from __future__ import annotations

import asyncio
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.doors.ledger_handover import hand_over
from onbehalf.doors.ledger_handover_sqlite import SqliteChangeable
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_keys import read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_signing import HeadSigning
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, write
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.policy import read_policy
from onbehalf.verifier.report import Report, Verdict
from verifier.bundle_house import ORIGIN, packed, recorded


@dataclass(frozen=True, slots=True)
class Changed:
    """A log of 18 leaves whose keys were changed at leaves 14 and 16; heads that were kept, by their size."""

    place: Path
    keys: list[LedgerKeys]
    notes: dict[int, str]

    def bundle(self, name: str, **asked: Any) -> Path:
        now = self.keys[-1]
        reader = LedgerReader(self.place / "log.db", keys=now)
        heads = LedgerHeads(self.place / "log.db", self.place / "heads.db", verifier=now.signer.verifier)
        assert now.heads is not None
        sign = HeadSigning(heads, now.heads, clock=lambda: UnixTime(9000)).line
        out = self.place / name
        asked = {"start": ("index", 1), **asked}
        export(reader, out, Asked(**asked), keys={}, policies={}, sign=sign)
        heads.close()
        reader.close()
        return out


def _newest(place: Path, keys: LedgerKeys) -> str:
    reader = LedgerReader(place / "log.db", keys=keys)
    try:
        return reader.verify().note
    finally:
        reader.close()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Changed:
    place = tmp_path_factory.mktemp("log")
    recorded(place).close()
    keys = [read_ledger_keys(place / "keys", origin=ORIGIN)]
    notes = {14: _newest(place, keys[-1])}
    for at in (7000, 8000):
        made = hand_over(SqliteChangeable(place / "log.db"), place / "keys", origin=ORIGIN, by="ops", at=UnixTime(at))
        notes[made.size] = made.note
        keys.append(read_ledger_keys(place / "keys", origin=ORIGIN))
        ledger = SqliteLedger.open(place / "log.db", keys=keys[-1], origin=ORIGIN, now=lambda: UnixTime(9000))
        asyncio.run(ledger.append(AuditEntry(kind="start", call="", at=UnixTime(at), facts={})))
        ledger.close()
        notes[made.size + 1] = _newest(place, keys[-1])
    return Changed(place, keys, notes)


def codes(report: Report) -> list[str]:
    return [each.code for each in report.findings]


def test_each_key_of_the_log_leads_to_all_others_and_the_report_says_which_heads_are_whose(log: Changed) -> None:
    path = log.bundle("a.zip")
    for each in log.keys:
        for vkeys in (each.vkeys[0], "\n".join(each.vkeys)):
            report = check(path, key=vkeys)
            assert (report.verdict, report.findings) == (Verdict.verified, [])
            assert report.key == each.vkeys[0]
            assert [(span.vkey, span.first, span.last) for span in report.keys] == [
                (log.keys[0].vkeys[0], 0, 14), (log.keys[1].vkeys[0], 15, 16), (log.keys[2].vkeys[0], 17, None),
            ]  # fmt: skip
            assert f"heads of 0 to 14 leaves by {log.keys[0].vkeys[0]}" in report.as_text()
        assert check(path, key="\n".join(each.vkeys)).own_signature is True
    stranger = NoteSigner(ORIGIN, b"s" * 32).verifier.vkey
    report = check(path, key=stranger)
    assert report.verdict == Verdict.invalid
    assert {"key_other", "head_invalid"} <= set(codes(report))


@pytest.mark.parametrize("size", [14, 15, 16, 17, 18])
def test_a_head_that_was_kept_is_checked_by_the_key_of_its_time(log: Changed, size: int) -> None:
    for start in (1, 17):
        path = log.bundle("k.zip", since=log.notes[size], start=("index", start))
        for each in log.keys:
            report = check(path, key=each.vkeys[0], kept=log.notes[size].encode())
            assert (report.verdict, report.findings) == (Verdict.verified, []), (start, each)


def test_a_key_that_was_stolen_and_used_after_its_time_is_noticed(log: Changed) -> None:
    path = log.bundle("s.zip")
    stolen = write(Checkpoint(origin=ORIGIN, size=16, root=b"r" * 32), log.keys[0].signer)
    report = check(path, key=log.keys[2].vkeys[0], kept=stolen.encode())
    assert codes(report) == ["head_former", "head_diverged"]
    assert report.verdict == Verdict.diverged


def test_a_policy_may_list_any_key_of_the_log(log: Changed) -> None:
    path = log.bundle("p.zip")
    for each in (log.keys[0], log.keys[2]):
        policy = read_policy(f"log {each.vkeys[0]}\nquorum none\n".encode())
        report = check(path, policy=policy)
        assert (report.verdict, report.findings) == (Verdict.verified, [])
    other = NoteSigner(ORIGIN, b"s" * 32).verifier.vkey
    report = check(path, policy=read_policy(f"log {other}\nquorum none\n".encode()), key=log.keys[0].vkeys[0])
    assert codes(report) == ["log_unlisted"]


def spoiled(log: Changed, change: Any) -> Path:
    """A bundle whose first change of keys is spoiled, with hashes that fit."""
    path = log.bundle("base.zip")
    with zipfile.ZipFile(path) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    lines = [json.loads(line) for line in files["handovers.jsonl"].splitlines()]
    change(lines)
    files["handovers.jsonl"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return packed(log.place / "spoiled.zip", files, honest=True)


def _resigned(lines: list[dict[str, Any]], keep: int, signer: NoteSigner) -> None:
    """Only the `keep`-th signature of the head, and one by somebody else."""
    text, _, signatures = lines[0]["note"].rpartition("\n\n")
    kept = signatures.splitlines(keepends=True)[keep]
    theirs = signer.sign(text + "\n").rpartition("\n\n")[2]
    lines[0]["note"] = f"{text}\n\n{kept}{theirs}"


THIEF = NoteSigner(ORIGIN, b"t" * 32)


def _to_thief(lines: list[dict[str, Any]]) -> None:
    said = json.loads(lines[0]["json"])
    said["after"][0] = THIEF.verifier.vkey
    lines[0]["json"] = json.dumps(said, separators=(",", ":"))
    _resigned(lines, 0, THIEF)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: _resigned(lines, 1, THIEF),  # the old key did not sign
        lambda lines: _resigned(lines, 0, THIEF),  # the new one did not
        _to_thief,  # a signature beside one that the log gave, and a leaf that says otherwise
        lambda lines: lines[0].update(index=13),
        lambda lines: lines[0].update(salt="0" * 64),
        lambda lines: lines[0].update(path=[]),
        lambda lines: lines[0].update(leaf=lines[1]["leaf"]),
        lambda lines: lines.reverse(),
        lambda lines: lines.append(lines[1]),
        lambda lines: lines[0].update(more=1),
        lambda lines: lines[0].update(index=True),
        lambda lines: lines[0].update(json="[]"),
        lambda lines: lines[0].update(json="{"),
        lambda lines: lines[0].update(proof=["x"]),
    ],
)  # fmt: skip
def test_a_change_that_both_keys_did_not_sign_leads_nowhere(log: Changed, change: Any) -> None:
    path = spoiled(log, change)
    old, new = (check(path, key=each.vkeys[0]) for each in (log.keys[0], log.keys[2]))
    assert {"handover_invalid", "key_other", "head_invalid"} <= set(codes(old))
    assert codes(new) == ["handover_invalid"]
    assert old.verdict == new.verdict == Verdict.invalid


def test_a_change_of_another_history_is_not_believed(log: Changed) -> None:
    path = spoiled(log, lambda lines: lines[0].update(proof=lines[1]["proof"]))
    assert codes(check(path, key=log.keys[0].vkeys[0])) == ["handover_unproven"]


def test_a_change_without_the_second_keys_is_not_followed_from_two(log: Changed) -> None:
    def change(lines: list[dict[str, Any]]) -> None:
        lines[0]["note"] = "".join(lines[0]["note"].splitlines(keepends=True)[:-2])

    path = spoiled(log, change)
    assert check(path, key=log.keys[0].vkeys[0]).verdict == Verdict.verified
    report = check(path, key="\n".join(log.keys[0].vkeys))
    assert "handover_invalid" in codes(report)


def test_without_its_changes_a_bundle_is_under_the_newest_key_alone(log: Changed) -> None:
    path = spoiled(log, lambda lines: lines.clear())
    assert check(path, key=log.keys[2].vkeys[0]).verdict == Verdict.verified
    assert {"key_other", "head_invalid"} <= set(codes(check(path, key=log.keys[0].vkeys[0])))
