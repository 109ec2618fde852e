"""The log's own keys changed: on record, signed by both, followed from either; and broken off at each step."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from onbehalf.doors.ledger_handover import finish, hand_over
from onbehalf.doors.ledger_handover_sqlite import SqliteChangeable
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import checkpoint
from onbehalf.explain.checkpoint import NoteSigner, NoteVerifier
from onbehalf.explain.cosignature import ML_DSA_44, cosigned, cosigner
from onbehalf.explain.handover import Handover
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, UnixTime
from verifier.bundle_house import ORIGIN, recorded

STEPS = ("made", "committed", "published", "took log-ml-dsa.key", "took log.key")


def keys(place: Path) -> LedgerKeys:
    return read_ledger_keys(place / "keys", origin=ORIGIN)


def changed(place: Path, failpoint: Callable[[str], None] = lambda _: None) -> Handover:
    return hand_over(
        SqliteChangeable(place / "log.db"), place / "keys", origin=ORIGIN, by="ops", at=UnixTime(7000),
        failpoint=failpoint,
    )  # fmt: skip


def killed(place: Path, step: str) -> None:
    """A process that changes the keys and is killed at this step."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            changed(place, lambda here: os.kill(os.getpid(), signal.SIGKILL) if here == step else None)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def more(place: Path) -> None:
    """One entry by a gateway that starts now."""
    finish(SqliteChangeable(place / "log.db"), place / "keys", origin=ORIGIN)
    made = open_ledger_keys(place / "keys", origin=ORIGIN)
    ledger = SqliteLedger.open(place / "log.db", keys=made, origin=ORIGIN, now=lambda: UnixTime(8000))
    asyncio.run(ledger.append(AuditEntry(kind="start", call="", at=UnixTime(8000), facts={})))
    ledger.close()


def found(place: Path, vkey: str) -> list[str]:
    reader = LedgerReader(place / "log.db", vkey=vkey)
    try:
        return [each.code for each in reader.verify().findings]
    finally:
        reader.close()


def test_a_change_is_one_leaf_under_a_head_that_all_four_keys_signed(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    old = keys(tmp_path)
    made = changed(tmp_path)
    new = keys(tmp_path)
    assert set(old.vkeys).isdisjoint(new.vkeys)
    for each in (old, new):
        head = checkpoint.read(made.note, each.signer.verifier, origin=ORIGIN)
        assert head.size == made.size == 15
        assert each.heads is not None
        assert cosigned(made.note, cosigner(each.vkeys[1], (ML_DSA_44,)), head) is not None
    reader = LedgerReader(tmp_path / "log.db", keys=new)
    record = reader.latest(1)[0]
    reader.close()
    assert (record.index, record.kind, record.facts["by"]) == (14, "key_change", "ops")
    assert record.facts["log_key"] == {"before": [*old.vkeys], "after": [*new.vkeys]}
    assert (tmp_path / "keys" / "log.pub").read_text().split() == [*new.vkeys]
    assert not [*(tmp_path / "keys").glob("*.next")]


def test_the_log_is_checked_by_either_key_and_goes_on_under_the_new_one_only(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    old = keys(tmp_path)
    changed(tmp_path)
    new = keys(tmp_path)
    more(tmp_path)
    changed(tmp_path)
    third = keys(tmp_path)
    more(tmp_path)
    for each in (old, new, third):
        assert found(tmp_path, each.vkeys[0]) == []
        reader = LedgerReader(tmp_path / "log.db", vkey=each.vkeys[0])
        assert reader.verifier.vkey == third.vkeys[0]
        assert reader.verifier.at(14).vkey == old.vkeys[0]
        assert reader.verifier.at(15).vkey == reader.verifier.at(16).vkey == new.vkeys[0]
        assert reader.verifier.at(17).vkey == third.vkeys[0]
        reader.close()
    stranger = NoteSigner(ORIGIN, b"s" * 32).verifier.vkey
    assert "handover_wrong" in found(tmp_path, stranger)
    with pytest.raises(LedgerCorrupt, match="former key"):
        SqliteLedger.open(tmp_path / "log.db", keys=old, origin=ORIGIN, now=lambda: UnixTime(9000))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("then", ["start", "again"])
def test_a_change_that_was_killed_at_any_step_is_finished_by_the_next_start_or_run(
    tmp_path: Path, step: str, then: str
) -> None:
    recorded(tmp_path).close()
    old = keys(tmp_path)
    killed(tmp_path, step)
    assert found(tmp_path, old.vkeys[0]) == []
    if then == "start":
        more(tmp_path)
    elif step != STEPS[-1]:
        changed(tmp_path)
    after = keys(tmp_path)
    more(tmp_path)
    assert found(tmp_path, old.vkeys[0]) == found(tmp_path, after.vkeys[0]) == []
    assert (tmp_path / "keys" / "log.pub").read_text().split() == [*after.vkeys]
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'handover'").fetchone()
        count = connection.execute("SELECT count(*) FROM handover").fetchone()[0] if table else 0
    unchanged = step == "made" and then == "start"
    assert (count, after.vkeys == old.vkeys) == ((0, True) if unchanged else (1, False))
    if unchanged:  # the keys that were made are those of the next change
        waiting = (tmp_path / "keys" / "log.key.next").read_text()
        changed(tmp_path)
        assert (tmp_path / "keys" / "log.key").read_text() == waiting


def test_a_ledger_that_a_gateway_writes_or_that_is_not_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no record"):
        changed(tmp_path)
    recorded(tmp_path).close()
    held = keys(tmp_path)
    ledger = SqliteLedger.open(tmp_path / "log.db", keys=held, origin=ORIGIN, now=lambda: UnixTime(9000))
    with pytest.raises(LedgerUnavailable, match="another process"):
        changed(tmp_path)
    ledger.close()
    assert keys(tmp_path).vkeys == held.vkeys
    assert not [*(tmp_path / "keys").glob("*.next")]


def test_a_changed_forged_or_missing_change_is_found_and_no_gateway_starts_on_it(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    old = keys(tmp_path)
    made = changed(tmp_path)
    new = keys(tmp_path)
    more(tmp_path)
    thief = NoteSigner(ORIGIN, b"t" * 32)
    text = made.note.split("\n\n", 1)[0] + "\n"
    by_thief = thief.sign(text).rpartition("\n\n")[2]
    lines = made.note.rpartition("\n\n")[2].splitlines(keepends=True)
    unsigned = f"{text}\n{''.join(lines[1:])}"
    beside = f"{text}\n{lines[0]}{by_thief}"
    for note, json in (
        (unsigned, made.json),
        (beside, made.json),
        (beside, made.json.replace(new.vkeys[0], thief.verifier.vkey)),
        (made.note.replace("\n15\n", "\n16\n"), made.json),
    ):
        _put(tmp_path, Handover(**{**made.told(), "note": note, "json": json, "path": made.path}))  # type: ignore[arg-type]
        for each in (old, new):
            assert "handover_wrong" in found(tmp_path, each.vkeys[0])
        with pytest.raises(LedgerCorrupt):
            SqliteLedger.open(tmp_path / "log.db", keys=new, origin=ORIGIN, now=lambda: UnixTime(9000))
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("DELETE FROM handover")
    assert found(tmp_path, new.vkeys[0]) == ["handover_missing"]
    with pytest.raises(LedgerCorrupt, match="not kept"):
        SqliteLedger.open(tmp_path / "log.db", keys=new, origin=ORIGIN, now=lambda: UnixTime(9000))


def _put(place: Path, told: Handover) -> None:
    with closing(sqlite3.connect(place / "log.db")) as connection, connection:
        connection.execute("UPDATE handover SET told = ?", (told.line().rstrip("\n"),))


def test_heads_that_were_cosigned_under_the_former_key_are_still_heads_of_the_log(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    old = keys(tmp_path)
    heads = LedgerHeads(tmp_path / "log.db", tmp_path / "heads.db", verifier=old.signer.verifier)
    former = heads.newest()
    heads.keep(former, {"w": (1, "a line\n")})
    heads.close()
    changed(tmp_path)
    more(tmp_path)
    heads = LedgerHeads(tmp_path / "log.db", tmp_path / "heads.db", verifier=keys(tmp_path).signer.verifier)
    heads.require_continued()
    assert heads.signed(former.note) == former.checkpoint
    later = replace(former.checkpoint, size=15)
    with pytest.raises(LedgerCorrupt):  # the former key signs no such head
        heads.signed(checkpoint.write(later, old.signer))
    assert heads.newest().size == 16
    heads.close()
    assert NoteVerifier(old.vkeys[0]).former == ()
