"""A ledger, for reading: its tables in SQLite, its start-up check, and what people ask of it.

Reads while a gateway writes, each question in one view of whatever store holds it. Must not write.

Trust: what is read is believed only as far as the signed head and the leaf hashes carry it; whoever can replace the
whole file by an older copy is found out only by someone who kept a newer checkpoint.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from onbehalf.doors.ledger_followed import followed
from onbehalf.doors.ledger_kinds import newest
from onbehalf.doors.ledger_scan import Finding, OpenIntent, Scan, blob, scan
from onbehalf.doors.ledger_store import VERIFY as _VERIFY
from onbehalf.doors.ledger_store import LedgerStore, SqliteView, View, store_of
from onbehalf.errors import ConfigInvalid, ExplainError, LedgerCorrupt, RecordMissing
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.checkpoint import NoteVerifier
from onbehalf.explain.cosignature import ML_DSA_44, cosigner
from onbehalf.explain.erasure import Erasure
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
_ROWS_A_STEP = 512


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


def erased_by(sealer: Sealing, index: int, sealed: bytes | None) -> Erasure | None:
    """The erasure because of which a record cannot be opened, where the key store knows it."""
    key = key_id(sealed).hex() if sealed is not None else ""
    return next((each for each in sealer.erasures() if each.covers(index, key)), None)


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
            with contextlib.suppress(LedgerCorrupt):  # `verify` says what of the key's changes does not hold
                self._verifier = followed(view, verifier)

    def close(self) -> None:
        self._store.close()

    @property
    def verifier(self) -> NoteVerifier:
        """The log's public key that is in force, with those before it."""
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
        hash_, sealer = tree.leaf_hash(blob(entry)), self._keys.sealer if self._keys is not None else None
        facts: dict[str, Json] = {}
        payload: bytes | None = None
        erasure: Erasure | None = None
        try:
            leaf: Leaf = read(blob(entry))
            if sealed is not None and sealer is not None:
                payload = sealer.open(blob(sealed), index=index, leaf=hash_)
            if payload is not None:
                facts = open_payload(leaf, payload)
            elif sealer is not None:
                erasure = erased_by(sealer, index, None if sealed is None else blob(sealed))
        except LedgerCorrupt as error:
            raise LedgerCorrupt(f"record {index} is damaged: {error.message}", hint=_VERIFY) from error
        return Record(
            index=index, leaf=Digest(f"sha256:{hash_.hex()}"), kind=leaf.kind, call=leaf.call, at=UnixTime(leaf.at),
            facts=facts, erased=payload is None, of=leaf.of, erasure=erasure,
        )  # fmt: skip

    def snapshot(self) -> AbstractContextManager[View]:
        """One unchanging view of the log, head and leaves alike. Raises LedgerUnavailable, LedgerCorrupt."""
        return self._store.reading()
