"""What the check of a whole log finds, and where: in a log that is made here row by row, each wrong in one way."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest

from onbehalf.doors.ledger_reader import SCHEMA
from onbehalf.doors.ledger_scan import OpenIntent, Scan, blob, scan
from onbehalf.doors.ledger_store import SqliteView
from onbehalf.errors import LedgerCorrupt
from onbehalf.explain import tree
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, write
from onbehalf.explain.erasure import Erasure, erased_entry
from onbehalf.explain.handover import Handover
from onbehalf.explain.leaf import Made, make, spell
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, Json, UnixTime

ORIGIN = "gateway.example/log"
SIGNER = NoteSigner(ORIGIN, b"s" * 32)
CHANNEL, OTHER = "a" * 16, "b" * 16
KEY = b"k" * 16


class Plain:
    """Seals nothing: a payload is as it was written, is under a person's key that is gone, or was changed."""

    def __init__(self, *, under_way: bool = False) -> None:
        self._under_way = under_way

    def under_way(self) -> bool:
        return self._under_way

    def open(self, sealed: bytes, *, index: int, leaf: bytes) -> bytes | None:
        if sealed == b"changed":
            raise LedgerCorrupt("it was changed")
        return None if sealed == GONE else sealed


GONE = b"\2" + KEY + b"rest"


def made(kind: str, call: str = "", *, at: int = 7, place: tuple[str, int] = ("", 0), **facts: Json) -> Made:
    return made_of(AuditEntry(kind=kind, call=call, at=UnixTime(at), facts=facts), place)


def made_of(entry: AuditEntry, place: tuple[str, int] = ("", 0)) -> Made:
    return make(spell(entry), id_="0" * 32, salt=b"s" * 32, place=place)


def about(index: int) -> Json:
    return {"index": index}


class Log:
    """A log of these records. Each leaf and payload may be changed before it is read."""

    def __init__(self, *records: Made) -> None:
        self.base = sqlite3.connect(":memory:", isolation_level=None)
        self.base.executescript(SCHEMA)
        self.hashes = [tree.leaf_hash(each.leaf) for each in records]
        rows = [(at, hash_, each.leaf) for at, (hash_, each) in enumerate(zip(self.hashes, records, strict=True))]
        self.base.executemany("INSERT INTO leaf VALUES (?, ?, ?)", rows)
        self.base.executemany("INSERT INTO payload VALUES (?, ?)", [(at, r.payload) for at, r in enumerate(records)])
        self.sign(len(records))

    def sign(self, size: int, root: bytes = b"", columns: tuple[int, bytes] | None = None) -> str:
        root = root or tree.root(self.hashes[:size])
        note = write(Checkpoint(origin=ORIGIN, size=size, root=root), SIGNER)
        row = (1, *(columns or (size, root)), note)
        self.base.execute("INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?)", row)
        return note

    def do(self, *statements: str) -> Log:
        for each in ("DROP INDEX leaf_call", *statements):  # it would refuse an entry that is no JSON
            self.base.execute(each)
        return self

    def scanned(self, *, keys: bool = True, under_way: bool = False, progress: Any = None) -> Scan:
        sealer: Any = Plain(under_way=under_way)
        with_keys = LedgerKeys(signer=SIGNER, sealer=sealer) if keys else None
        result, self.note = scan(SqliteView(self.base), SIGNER.verifier, keys=with_keys, progress=progress)
        return result

    def found(self, **named: Any) -> list[tuple[int, str]]:
        return [(each.index, each.code) for each in self.scanned(**named).findings]


RECORDS = [
    made("start", key_set={}), made("intent", "c1", at=8, place=(CHANNEL, 1)),
    made("intent", "c2", at=9, place=(CHANNEL, 2)), made("outcome", "c1", intent=about(1)), made("start", key_set={}),
    made("intent", "c3", place=(OTHER, 1)), made("unknown", "c3", intent=about(5)), made("intent", "c4"),
]  # fmt: skip


def opened(index: int, call: str, at: int) -> OpenIntent:
    return OpenIntent(index=index, leaf=tree.leaf_hash(RECORDS[index].leaf), call=call, at=UnixTime(at))


def test_a_sound_log_is_told_as_it_stands() -> None:
    log = Log(*RECORDS)
    for keys in (True, False):
        result = log.scanned(keys=keys)
        assert (result.findings, result.erased, result.keyed) == ([], 0, 4)
        assert result.kinds == {"start": 2, "intent": 4, "outcome": 1, "unknown": 1}
        assert result.numbers == {CHANNEL: 2, OTHER: 1}
        assert result.open == {2: opened(2, "c2", 9), 7: opened(7, "c4", 7)}
        assert result.unknown == [opened(5, "c3", 7)]
        assert (result.frontier.size, result.frontier.root()) == (8, tree.root(log.hashes))
    assert log.note == log.sign(8)
    empty = Log()
    assert (empty.found(), empty.scanned().keyed) == ([], -1)


def test_progress_is_told_every_512_leaves() -> None:
    told: list[int] = []
    assert Log(*[RECORDS[0]] * 1100).found(progress=told.append) == []
    assert told == [512, 1024, 1100]


def test_a_leaf_that_is_missing_is_found_at_its_place_once() -> None:
    log = Log(*RECORDS).do("DELETE FROM leaf WHERE idx IN (1, 4)", "DELETE FROM payload WHERE idx IN (1, 4)")
    result = log.scanned()
    assert [(each.index, each.code, each.text) for each in result.findings] == [
        (1, "leaf_missing", "leaf 1 is missing, the next one is 2"),
        (2, "number_wrong", "intent 2 has number 2 of its channel, not 1"),
        (3, "outcome_unpaired", "outcome 3 is about 1, which is no open intent"),
        (4, "leaf_missing", "leaf 4 is missing, the next one is 5"),
        (-1, "root_mismatch", "the leaves do not have the root that was signed"),
    ]  # fmt: skip  # and no tail is said to be missing, where something else is


def test_a_leaf_that_was_changed_or_is_none_is_found_at_its_place() -> None:
    other = made("intent", "c9", at=8, place=(CHANNEL, 1)).leaf
    log = Log(*RECORDS)
    log.base.execute("UPDATE leaf SET entry = ? WHERE idx = 1", (other,))
    assert log.found(keys=False) == [(1, "leaf_changed"), (3, "outcome_unpaired"), (-1, "root_mismatch")]
    log = Log(*RECORDS[:1]).do("UPDATE leaf SET entry = x'7b7d'")
    assert log.found(keys=False) == [(0, "leaf_changed"), (0, "leaf_malformed"), (-1, "root_mismatch")]
    assert log.scanned(keys=False).findings[1].text.startswith("leaf 0 is not a leaf")
    for value in (None, 5, "text", 1.5):
        assert blob(value) == b""
    assert blob(b"x") == b"x"


def test_a_number_that_does_not_go_on_is_found_and_the_next_goes_on_from_it() -> None:
    numbered = [made("intent", f"c{n}", place=(CHANNEL, n)) for n in (1, 3, 4)]
    (found,) = Log(*numbered).scanned().findings
    assert (found.index, found.code, found.text) == (
        1, "number_wrong", "intent 1 has number 3 of its channel, not 2",
    )  # fmt: skip
    assert Log(made("intent", "c", place=(CHANNEL, 2))).found() == [(0, "number_wrong")]


@pytest.mark.parametrize("kind", ["outcome", "unknown"])
def test_an_answer_is_of_one_open_intent_of_its_call(kind: str) -> None:
    log = Log(
        made("intent", "c1"), made(kind, "c2", intent=about(0)), made(kind, "c1", intent=about(0)), made(kind, "c1"),
        made("denial", "c1", intent=about(0)),
    )  # fmt: skip
    result = log.scanned()
    assert [(each.index, each.code, each.text) for each in result.findings] == [
        (1, "outcome_unpaired", f"{kind} 1 names another call than its intent 0"),
        (2, "outcome_unpaired", f"{kind} 2 is about 0, which is no open intent"),
        (3, "outcome_unpaired", f"{kind} 3 is about -1, which is no open intent"),
    ]  # fmt: skip
    assert (result.open, result.unknown) == ({}, [])


def test_what_cannot_be_opened_is_counted_and_is_on_record_as_erased_or_found() -> None:
    log = Log(*RECORDS).do("DELETE FROM payload WHERE idx IN (3, 4)")
    assert (log.found(keys=False), log.scanned(keys=False).erased) == ([], 2)
    assert (log.found(), log.scanned().erased) == ([(3, "erased_unrecorded")], 2)
    text = "payloads 3 to 4 are gone, and no `erased` leaf says so"
    more = " (an erasure is under way: look again when it is on record)"
    assert [each.text for each in log.scanned().findings] == [text]
    assert [each.text for each in log.scanned(under_way=True).findings] == [text + more]
    log.base.execute("UPDATE payload SET sealed = ? WHERE idx = 5", (GONE,))
    assert (log.found(), log.scanned().erased) == ([(5, "erased_unrecorded"), (3, "erased_unrecorded")], 3)


def test_what_is_gone_is_covered_by_leaves_that_say_so() -> None:
    by_key = Erasure(id="e", leaf=-1, at=UnixTime(9), keys=frozenset({KEY.hex()}), count=1, first=0, last=0)
    by_time = Erasure(id="f", leaf=-1, at=UnixTime(9), before=5, count=1, first=1, last=1)
    told = [made_of(erased_entry(each, basis="b", by="ops")) for each in (by_key, by_time)]
    log = Log(*RECORDS[:2], *told).do("DELETE FROM payload WHERE idx = 1")
    log.base.execute("UPDATE payload SET sealed = ? WHERE idx = 0", (GONE,))
    result = log.scanned()
    assert (result.findings, result.erased) == ([], 2)
    assert [each.leaf for each in result.covered.erasures] == [2, 3]
    assert [each.at for each in result.covered.erasures] == [9, 9]
    other = made("denial", "c", erasure={"id": "e", "count": 1, "first": 0, "last": 0, "keys": [KEY.hex()]})
    log = Log(RECORDS[0], other, made("erased", erasure="none"))
    log.base.execute("UPDATE payload SET sealed = ? WHERE idx = 0", (GONE,))
    assert log.found() == [(0, "erased_unrecorded")]


def test_a_payload_that_was_changed_or_is_of_another_leaf_is_found() -> None:
    log = Log(*RECORDS[:3])
    log.base.execute("UPDATE payload SET sealed = ? WHERE idx = 0", (b"changed",))
    log.base.execute("UPDATE payload SET sealed = ? WHERE idx = 1", (made("start", x=1).payload,))
    result = log.scanned()
    assert [(each.index, each.code) for each in result.findings] == [(0, "payload_changed"), (1, "payload_changed")]
    assert result.findings[0].text == "payload 0: it was changed"
    assert (log.found(keys=False), result.erased) == ([], 0)


def test_a_change_of_the_logs_key_of_which_nothing_is_kept_is_found() -> None:
    keys: Json = {"before": ["x"], "after": ["y"]}
    log = Log(made("key_change", log_key=keys), made("key_change", before="x"), made("denial", log_key=keys))
    assert log.found() == [(0, "handover_missing")]
    log.do("CREATE TABLE handover(idx INTEGER PRIMARY KEY, told TEXT)", "INSERT INTO handover VALUES (0, '{')")
    assert log.found() == [(-1, "handover_wrong"), (0, "handover_missing")]


def kept(index: int, leaf: str) -> str:
    """A change of keys as a ledger keeps it, which nobody signed."""
    return Handover(index=index, json="{}", leaf=leaf, note="", path=(), salt="5" * 64).line()


def test_a_change_of_the_logs_key_that_is_kept_of_another_leaf_is_found_there() -> None:
    change = made("key_change", log_key={"before": ["x"], "after": ["y"]})
    log = Log(change, RECORDS[0], RECORDS[0])
    log.do("CREATE TABLE handover(idx INTEGER PRIMARY KEY, told TEXT)")
    told = [(0, RECORDS[0].leaf.decode()), (2, RECORDS[0].leaf.decode())]
    log.base.executemany("INSERT INTO handover VALUES (?, ?)", [(index, kept(index, leaf)) for index, leaf in told])
    texts = {(each.index, each.code, each.text) for each in log.scanned().findings if each.index >= 0}
    assert texts == {
        (0, "handover_wrong", "leaf 0 is another than the one that both keys signed"),
        (2, "handover_wrong", "a key change is kept of leaf 2, which says none"),
    }
    log.base.execute("DELETE FROM handover WHERE idx = 2")
    log.base.execute("UPDATE handover SET told = ?", (kept(0, change.leaf.decode()),))
    assert [each.index for each in log.scanned().findings] == [-1]  # nobody signed it


def test_each_way_in_which_a_head_is_not_of_these_leaves_is_told_apart() -> None:
    def head(change: Any) -> list[tuple[int, str, str]]:
        log = Log(*RECORDS)
        note = change(log)
        told = [(each.index, each.code, each.text) for each in log.scanned().findings]
        assert log.note == (note or "")
        return told

    root = tree.root([tree.leaf_hash(each.leaf) for each in RECORDS])
    columns = (-1, "head_changed", "the head's columns say another size or root than its signed note")
    assert head(lambda log: log.sign(8)) == []
    assert head(lambda log: log.do("DELETE FROM head") and "") == [(-1, "head_missing", "the log has no signed head")]
    assert head(lambda log: log.sign(8, columns=(7, root))) == [columns]
    assert head(lambda log: log.sign(8, columns=(8, b"x" * 32))) == [columns]
    assert head(lambda log: log.sign(7)) == [(7, "tail_unsigned", "7 leaves were signed for, 8 are here")]
    assert head(lambda log: log.sign(8, b"x" * 32)) == [
        (-1, "root_mismatch", "the leaves do not have the root that was signed")
    ]
    assert head(lambda log: log.sign(10, b"x" * 32)) == [
        (8, "tail_missing", "10 leaves were signed for, 8 are here: cut at 8")
    ]
    mismatch = (-1, "root_mismatch", "the leaves do not have the root that was signed")
    assert head(lambda log: log.sign(10, b"x" * 32, (9, root))) == [columns, mismatch]
    log = Log(*RECORDS)
    note = write(Checkpoint(origin=ORIGIN, size=8, root=root), NoteSigner(ORIGIN, b"t" * 32))
    log.base.execute("UPDATE head SET note = ?", (note,))
    (found,) = log.scanned().findings
    assert (found.index, found.code, found.text[:17], log.note) == (-1, "head_changed", "the signed head: ", note)


def test_payloads_of_no_leaf_are_listed_up_to_ten() -> None:
    log = Log(*RECORDS)
    log.base.executemany("INSERT INTO payload VALUES (?, x'00')", [(each,) for each in range(30, 18, -1)])
    expected: Sequence[tuple[int, str]] = [(each, "payload_without_leaf") for each in range(19, 29)]
    assert log.found() == expected
    assert log.scanned().findings[0].text == "payload 19 belongs to no leaf"


def test_a_thousand_findings_are_kept() -> None:
    result = Scan()
    for each in range(1001):
        result.found(each, "x", "y")
    assert [each.index for each in result.findings] == [*range(1000)]
