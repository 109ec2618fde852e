"""A ledger, read once from its beginning: each leaf and payload, the tree over them, the signed head over that.

Must not say what a reader does with what is found (ledger_reader.py), or write.

Trust: as ledger_reader.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from onbehalf.doors.ledger_followed import handovers
from onbehalf.doors.ledger_store import View
from onbehalf.errors import LedgerCorrupt
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.checkpoint import NoteVerifier
from onbehalf.explain.erasure import Covered, scope_of
from onbehalf.explain.handover import FACT, KIND, Handover, follow
from onbehalf.explain.leaf import open_payload, read
from onbehalf.explain.seal import LedgerKeys, key_id
from onbehalf.model import UnixTime

__all__ = ["Finding", "OpenIntent", "Scan", "blob", "scan"]

_MAX_FINDINGS = 1000
_ROWS_A_STEP = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIntent:
    """An intent without outcome: whether it was done is not known from the record."""

    index: int
    leaf: bytes
    call: str
    at: UnixTime


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that does not hold, and the index where; -1 where it is about the whole log."""

    index: int
    code: str
    text: str


@dataclass(slots=True)
class Scan:
    """All leaves, read once: the tree over them, the intents still open or of unknown end, and what is wrong.

    `numbers` are the last of each channel (explain/channel.py)."""

    frontier: tree.Frontier = field(default_factory=tree.Frontier)
    open: dict[int, OpenIntent] = field(default_factory=dict)
    unknown: list[OpenIntent] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    keyed: int = -1
    """The newest leaf that says which keys are in force; -1 for none."""
    numbers: dict[str, int] = field(default_factory=dict)
    erased: int = 0
    covered: Covered = field(default_factory=Covered)
    handovers: dict[int, Handover] = field(default_factory=dict)
    """Changes of the log's key, by their leaves, whose leaf is yet to come."""

    def found(self, index: int, code: str, text: str) -> None:
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(index=index, code=code, text=text))


def scan(
    view: View, verifier: NoteVerifier, *, keys: LedgerKeys | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Scan, str]:  # fmt: skip
    """Read the whole log and its head within one view; also payloads where `keys` are given."""
    result = Scan()
    verifier = _followed(result, view, verifier)
    sealed = "p.sealed" if keys else "p.idx"
    rows = view.walk(
        f"SELECT l.idx, l.hash, l.entry, {sealed} FROM leaf l LEFT JOIN payload p USING (idx) ORDER BY l.idx"  # noqa: S608
    )
    expected = 0
    while batch := rows.fetchmany(_ROWS_A_STEP):
        for index, hash_, entry, payload in batch:
            if index != expected:
                result.found(expected, "leaf_missing", f"leaf {expected} is missing, the next one is {index}")
                expected = index
            _scan_leaf(result, index, hash_, blob(entry))
            if payload is None:
                result.erased += 1
                result.covered.missing(index, "")
            elif keys is not None:
                _scan_payload(result, keys, index, (blob(entry), blob(payload)))
            expected += 1
        if progress is not None:
            progress(expected)
    if keys is not None:
        for index, text in result.covered.uncovered():
            more = " (an erasure is under way: look again when it is on record)" if keys.sealer.under_way() else ""
            result.found(index, "erased_unrecorded", f"{text}{more}")
    for index in result.handovers:
        result.found(index, "handover_wrong", f"a key change is kept of leaf {index}, which says none")
    note = _scan_head(result, view, verifier)
    strays = (
        "SELECT idx FROM payload p WHERE NOT EXISTS (SELECT 1 FROM leaf l WHERE l.idx = p.idx) ORDER BY idx LIMIT 10"
    )
    for (index,) in view.execute(strays):
        result.found(index, "payload_without_leaf", f"payload {index} belongs to no leaf")
    return result, note


def _followed(result: Scan, view: View, key: NoteVerifier) -> NoteVerifier:
    """The key in force, given any of the log's. Where its changes do not hold, that is a finding."""
    try:
        changes = handovers(view)
        result.handovers = {each.index: each for each in changes}
        return follow(key, changes)
    except LedgerCorrupt as error:
        result.found(-1, "handover_wrong", error.message)
        return key


def _scan_handover(result: Scan, index: int, entry: bytes) -> None:
    kept = result.handovers.pop(index, None)
    if kept is None:
        text = f"leaf {index} changes the log's key, and what both keys signed is not kept"
        result.found(index, "handover_missing", text)
    elif kept.leaf.encode() != entry:
        result.found(index, "handover_wrong", f"leaf {index} is another than the one that both keys signed")


def blob(value: object) -> bytes:
    """A column's bytes. In a damaged file it may be NULL or a number, whatever the table says: that is no leaf."""
    return value if isinstance(value, bytes) else b""


def _scan_leaf(result: Scan, index: int, hash_: bytes, entry: bytes) -> None:
    actual = tree.leaf_hash(entry)
    result.frontier.append(actual)
    if actual != hash_:
        result.found(index, "leaf_changed", f"leaf {index} does not have the hash it was stored with")
    try:
        leaf = read(entry)
    except LedgerCorrupt as error:
        result.found(index, "leaf_malformed", f"leaf {index} is {error.message}")
        return
    result.kinds[leaf.kind] = result.kinds.get(leaf.kind, 0) + 1
    if "key_set" in leaf.facts:
        result.keyed = index
    if leaf.kind == KIND and FACT in leaf.facts:
        _scan_handover(result, index, entry)
    if leaf.ch:
        expected = result.numbers.get(leaf.ch, 0) + 1
        if leaf.n != expected:
            result.found(index, "number_wrong", f"intent {index} has number {leaf.n} of its channel, not {expected}")
        result.numbers[leaf.ch] = leaf.n
    if leaf.kind == "intent":
        result.open[index] = OpenIntent(index=index, leaf=actual, call=leaf.call, at=UnixTime(leaf.at))
    elif leaf.kind in ("outcome", "unknown"):
        opened = result.open.pop(leaf.of, None)
        if opened is None:
            result.found(index, "outcome_unpaired", f"{leaf.kind} {index} is about {leaf.of}, which is no open intent")
        elif opened.call != leaf.call:
            result.found(index, "outcome_unpaired", f"{leaf.kind} {index} names another call than its intent {leaf.of}")
        elif leaf.kind == "unknown":
            result.unknown.append(opened)


def _scan_payload(result: Scan, keys: LedgerKeys, index: int, row: tuple[bytes, bytes]) -> None:
    entry, sealed = row
    try:
        leaf, payload = read(entry), keys.sealer.open(sealed, index=index, leaf=tree.leaf_hash(entry))
        if payload is None:
            result.erased += 1
            result.covered.missing(index, key_id(sealed).hex())
            return
        facts = open_payload(leaf, payload)
        if leaf.kind == "erased" and (erasure := scope_of(facts, leaf=index, at=UnixTime(leaf.at))) is not None:
            result.covered.erasures.append(erasure)
    except LedgerCorrupt as error:
        result.found(index, "payload_changed", f"payload {index}: {error.message}")


def _scan_head(result: Scan, view: View, verifier: NoteVerifier) -> str:
    head = view.execute("SELECT size, root, note FROM head").fetchone()
    if head is None:
        result.found(-1, "head_missing", "the log has no signed head")
        return ""
    size, root, note = head
    try:
        signed = checkpoint.read(str(note), verifier, origin=verifier.name)
    except LedgerCorrupt as error:
        result.found(-1, "head_changed", f"the signed head: {error.message}")
        return str(note)
    if (signed.size, signed.root) != (size, root):
        result.found(-1, "head_changed", "the head's columns say another size or root than its signed note")
    count = result.frontier.size
    if count < signed.size and not result.findings:
        result.found(count, "tail_missing", f"{signed.size} leaves were signed for, {count} are here: cut at {count}")
    elif count > signed.size:
        result.found(signed.size, "tail_unsigned", f"{signed.size} leaves were signed for, {count} are here")
    elif result.frontier.root() != signed.root:
        result.found(-1, "root_mismatch", "the leaves do not have the root that was signed")
    return str(note)
