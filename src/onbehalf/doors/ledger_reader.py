"""A ledger, for reading: its tables in SQLite, its start-up check, and what people ask of it.

Reads while a gateway writes, each question in one view of whatever store holds it. Must not write.

Trust: what is read is believed only as far as the signed head and the leaf hashes carry it; whoever can replace the
whole file by an older copy is found out only by someone who kept a newer checkpoint.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from onbehalf.doors.ledger_kinds import newest
from onbehalf.doors.ledger_store import VERIFY as _VERIFY
from onbehalf.doors.ledger_store import LedgerStore, SqliteView, View, store_of
from onbehalf.errors import ConfigInvalid, ExplainError, LedgerCorrupt, RecordMissing
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.checkpoint import NoteVerifier
from onbehalf.explain.cosignature import ML_DSA_44, cosigner
from onbehalf.explain.erasure import Covered, Erasure, scope_of
from onbehalf.explain.leaf import Leaf, Record, open_payload, read
from onbehalf.explain.seal import LedgerKeys, Sealing, key_id
from onbehalf.model import Digest, Json, UnixTime

__all__ = [
    "SCHEMA", "Finding", "InclusionProof", "LedgerReader", "OpenIntent", "Scan", "VerifyReport", "erased_by", "scan",
]  # fmt: skip

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS leaf(idx INTEGER PRIMARY KEY, hash BLOB NOT NULL, entry BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS payload(idx INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS head(one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL,
    note TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS leaf_call ON leaf({SqliteView.call});
CREATE VIEW IF NOT EXISTS entering AS
    SELECT idx, hash, entry, sealed, NULL AS root, NULL AS note FROM leaf JOIN payload USING (idx);
CREATE TRIGGER IF NOT EXISTS enter INSTEAD OF INSERT ON entering BEGIN
    INSERT INTO leaf VALUES (NEW.idx, NEW.hash, NEW.entry);
    INSERT INTO payload VALUES (NEW.idx, NEW.sealed);
END;
CREATE TRIGGER IF NOT EXISTS sign INSTEAD OF INSERT ON entering WHEN NEW.note IS NOT NULL BEGIN
    INSERT OR REPLACE INTO head VALUES (1, NEW.idx + 1, NEW.root, NEW.note);
END;
"""  # noqa: S608  # of our own words only
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

    def found(self, index: int, code: str, text: str) -> None:
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(index=index, code=code, text=text))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a check of the whole log found. `ok` is that nothing was found."""

    size: int
    root: bytes
    note: str
    kinds: dict[str, int]
    erased: int
    erasures: tuple[Erasure, ...]
    opened: bool
    open_intents: tuple[OpenIntent, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof:
    """One leaf with its path to a signed head. `text` is it as C2SP tlog-proof."""

    index: int
    entry: bytes
    path: tuple[bytes, ...]
    size: int
    root: bytes
    note: str

    @property
    def text(self) -> str:
        return checkpoint.tlog_proof(self.index, self.path, self.note)


def _verifier(lines: str) -> NoteVerifier:
    """The key that signs every head, of the one or two lines of log.pub. Raises ValueError."""
    first, *others = lines.split() or [""]
    for each in others:  # it signs some heads besides; here it must only be one
        cosigner(each, (ML_DSA_44,))
    return NoteVerifier(first)


def scan(
    view: View, verifier: NoteVerifier, *, keys: LedgerKeys | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Scan, str]:  # fmt: skip
    """Read the whole log and its head within one view; also payloads where `keys` are given."""
    result = Scan()
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
            _scan_leaf(result, index, hash_, _blob(entry))
            if payload is None:
                result.erased += 1
                result.covered.missing(index, "")
            elif keys is not None:
                _scan_payload(result, keys, index, (_blob(entry), _blob(payload)))
            expected += 1
        if progress is not None:
            progress(expected)
    if keys is not None:
        for index, text in result.covered.uncovered():
            more = " (an erasure is under way: look again when it is on record)" if keys.sealer.under_way() else ""
            result.found(index, "erased_unrecorded", f"{text}{more}")
    note = _scan_head(result, view, verifier)
    strays = (
        "SELECT idx FROM payload p WHERE NOT EXISTS (SELECT 1 FROM leaf l WHERE l.idx = p.idx) ORDER BY idx LIMIT 10"
    )
    for (index,) in view.execute(strays):
        result.found(index, "payload_without_leaf", f"payload {index} belongs to no leaf")
    return result, note


def _blob(value: object) -> bytes:
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


def erased_by(sealer: Sealing, index: int, sealed: bytes | None) -> Erasure | None:
    """The erasure because of which a record cannot be opened, where the key store knows it."""
    key = key_id(sealed).hex() if sealed is not None else ""
    return next((each for each in sealer.erasures() if each.covers(index, key)), None)


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


class LedgerReader:
    """A ledger, opened for reading. With `keys` payloads can be opened; with a vkey only the log is checked."""

    def __init__(self, source: Path | LedgerStore, *, keys: LedgerKeys | None = None, vkey: str = "") -> None:
        """Raises ConfigInvalid where neither keys nor a vkey are given, LedgerUnavailable where there is no ledger."""
        try:
            verifier = keys.signer.verifier if keys else _verifier(vkey)
        except ValueError as error:
            raise ConfigInvalid(f"the log's public key: {error}", hint="give the line in log.pub") from error
        self._keys, self._verifier = keys, verifier
        self._store = store_of(source)
        with self._store.reading() as view:
            view.execute("SELECT 1 FROM leaf LIMIT 1")

    def close(self) -> None:
        self._store.close()

    @property
    def verifier(self) -> NoteVerifier:
        """The log's public key."""
        return self._verifier

    @property
    def keys(self) -> LedgerKeys | None:
        """What payloads are opened with, if they can be."""
        return self._keys

    def verify(self, progress: Callable[[int], None] | None = None) -> VerifyReport:
        """Check the whole log. Raises nothing: what does not hold is a finding."""
        result, note = Scan(), ""
        damage: list[Finding] = []
        for step in (self._integrity, self._scanned):
            try:
                result, note = step(result, progress) or (result, note)
            except (ExplainError, sqlite3.Error, TypeError, ValueError) as error:
                damage.append(Finding(index=-1, code="file_damaged", text=f"the file cannot be read: {error}"))
        result.findings[:0] = damage
        return VerifyReport(
            size=result.frontier.size, root=result.frontier.root(), note=note, kinds=result.kinds, erased=result.erased,
            erasures=tuple(result.covered.erasures), opened=self._keys is not None,
            open_intents=tuple(result.open.values()), findings=tuple(result.findings),
        )  # fmt: skip

    def _integrity(self, _: Scan, __: Callable[[int], None] | None) -> None:
        with self.snapshot() as view:
            view.check()

    def _scanned(self, _: Scan, progress: Callable[[int], None] | None) -> tuple[Scan, str]:
        with self.snapshot() as view:
            return scan(view, self._verifier, keys=self._keys, progress=progress)

    def open_intents(self) -> tuple[OpenIntent, ...]:
        """Intents without outcome, oldest first; on a running gateway these are the calls under way."""
        with self.snapshot() as view:
            return tuple(scan(view, self._verifier)[0].open.values())

    def unsettled(self) -> tuple[tuple[OpenIntent, ...], tuple[OpenIntent, ...]]:
        """Intents under way, and those on record as `unknown`, oldest first. Raises LedgerCorrupt for a damaged log."""
        with self.snapshot() as view:
            result, _ = scan(view, self._verifier)
        if result.findings:
            raise LedgerCorrupt(result.findings[0].text, hint=_VERIFY)
        return tuple(result.open.values()), tuple(result.unknown)

    def records(self, call: str) -> tuple[Record, ...]:
        """All records of one call, oldest first. Raises RecordMissing."""
        found = self._select("WHERE @call = ? ORDER BY idx LIMIT 1000", call) if call else ()
        if not found:
            raise RecordMissing(f"no call `{call}` is on record", hint="`onbehalf audit list` shows the latest")
        return found

    def find(self, prefix: str) -> tuple[str, ...]:
        """Call ids that begin with `prefix`, at most 20."""
        if not prefix:
            return ()
        with self.snapshot() as view:
            query = f"SELECT DISTINCT {view.call} FROM leaf WHERE {view.call} >= ? AND {view.call} < ?"  # noqa: S608
            found = view.execute(f"{query} ORDER BY 1 LIMIT 20", (prefix, prefix + "\U0010ffff"))
            return tuple(call for (call,) in found)

    def latest(self, count: int, *, kind: str = "") -> tuple[Record, ...]:
        """The newest records, of one kind alone where it is named, oldest first; at most 10,000."""
        with self.snapshot() as view:
            return tuple(self._record(*row) for row in newest(view, max(0, min(count, 10_000)), kind))

    def since(self, at: UnixTime) -> Iterator[Record]:
        """All records from the first of that time or later on, oldest first, read in steps: none holds up the log."""
        with self.snapshot() as view:
            start = view.execute(f"SELECT min(idx) FROM leaf WHERE {view.at} >= ?", (at,)).fetchone()[0]  # noqa: S608
        while start is not None:
            found = self._select("WHERE idx >= ? ORDER BY idx LIMIT ?", start, _ROWS_A_STEP)
            yield from found
            start = found[-1].index + 1 if found else None

    def record(self, index: int) -> Record:
        """One record by its index. Raises RecordMissing."""
        found = self._select("WHERE idx = ?", index)
        if not found:
            raise RecordMissing(f"no record {index}")
        return found[0]

    def proof(self, index: int) -> InclusionProof:
        """Proof that the leaf at `index` is under the newest signed head. Raises RecordMissing, LedgerCorrupt."""
        with self.snapshot() as view:
            note = view.execute("SELECT note FROM head").fetchone()
            signed = checkpoint.read(note[0] if note else "", self._verifier, origin=self._verifier.name)
            hashes = [row[0] for row in view.walk("SELECT hash FROM leaf ORDER BY idx")]
            entry = view.execute("SELECT entry FROM leaf WHERE idx = ?", (index,)).fetchone()
        if entry is None and index < signed.size:
            raise LedgerCorrupt(f"leaf {index} was signed for and is missing", hint=_VERIFY)
        if entry is None or index >= len(hashes):
            raise RecordMissing(f"no record {index}")
        path, size = tuple(tree.inclusion(index, hashes)), len(hashes)
        leaf = tree.leaf_hash(entry[0])
        proven = tree.verify_inclusion(leaf=leaf, index=index, size=size, path=path, root=signed.root)
        if size != signed.size or not proven:
            raise LedgerCorrupt(f"leaf {index} is not under the signed head", hint="`onbehalf audit verify` says where")
        return InclusionProof(index=index, entry=entry[0], path=path, size=size, root=signed.root, note=note[0])

    def _select(self, where: str, *values: Json) -> tuple[Record, ...]:
        query = f"SELECT idx, entry, (SELECT sealed FROM payload p WHERE p.idx = leaf.idx) FROM leaf {where}"  # noqa: S608
        with self.snapshot() as view:
            return tuple(self._record(*row) for row in view.execute(query.replace("@call", view.call), values))

    def _record(self, index: int, entry: object, sealed: object) -> Record:
        hash_, sealer = tree.leaf_hash(_blob(entry)), self._keys.sealer if self._keys is not None else None
        facts: dict[str, Json] = {}
        payload: bytes | None = None
        erasure: Erasure | None = None
        try:
            leaf: Leaf = read(_blob(entry))
            if sealed is not None and sealer is not None:
                payload = sealer.open(_blob(sealed), index=index, leaf=hash_)
            if payload is not None:
                facts = open_payload(leaf, payload)
            elif sealer is not None:
                erasure = erased_by(sealer, index, None if sealed is None else _blob(sealed))
        except LedgerCorrupt as error:
            raise LedgerCorrupt(f"record {index} is damaged: {error.message}", hint=_VERIFY) from error
        return Record(
            index=index, leaf=Digest(f"sha256:{hash_.hex()}"), kind=leaf.kind, call=leaf.call, at=UnixTime(leaf.at),
            facts=facts, erased=payload is None, of=leaf.of, erasure=erasure,
        )  # fmt: skip

    def snapshot(self) -> AbstractContextManager[View]:
        """One unchanging view of the log, head and leaves alike. Raises LedgerUnavailable, LedgerCorrupt."""
        return self._store.reading()
