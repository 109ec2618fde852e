"""Writes a bundle of evidence from the ledger: one snapshot, streamed, the same bytes for the same record and question.

The file is written aside, synced and renamed: there is a whole bundle or none. Must not decide who may see what: it
opens the facts that it is told to.

Trust: who gets a bundle learns what was opened in it, for ever; leaves and proofs alone say nothing of what facts say.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import orjson

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.doors.ledger_evidence_heads import MOST, CosignedHeads, last_cosigned, past_heads
from onbehalf.doors.ledger_followed import handovers
from onbehalf.doors.ledger_reader import LedgerReader, erased_by
from onbehalf.doors.ledger_store import View
from onbehalf.doors.ledger_witness import Ahead, ask_quorum, ask_witness
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import checkpoint, controls, evidence, sample, tree
from onbehalf.explain.handover import Handover
from onbehalf.explain.leaf import Leaf, opened_facts, read
from onbehalf.explain.quorum import Policy
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import Json

__all__ = ["Asked", "Exported", "Place", "export"]

_ROWS = 512
_ALWAYS = frozenset({"heartbeat", "stop", "reconciled"})
"""Kinds that are opened whatever is asked for: they say how much was sent and compared, and are about nobody."""
_MAX_POLICIES = 900
_EPOCH = (1980, 1, 1, 0, 0, 0)

Place = tuple[str, int]
"""Where a range begins or ends: (`index`, a leaf's index) or (`time`, seconds since 1970)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a bundle is to hold. `start` and `end` are (`index` | `time`, number), the end not included.

    `open` are the names of the facts to open; `tool` and `person` narrow down whose. Leaves and proofs always
    cover the whole range, so that nothing can be left out unseen. With `sample`, so many calls are opened, chosen by
    the head and `seed`; `control` is a name in controls.py. `since` is a checkpoint that somebody kept; `witnesses`
    are addresses of those who are to cosign the head, besides the quorum of `policy`. Where a later head was cosigned
    meanwhile, the newest one that the quorum cosigned will do if it has `covering` leaves; 0 for never.
    """

    start: Place = ("index", 0)
    end: Place | None = None
    open: frozenset[str] = frozenset()
    everything: bool = False
    tool: str = ""
    person: str = ""
    sample: int = 0
    seed: str = ""
    control: str = ""
    since: str = ""
    witnesses: tuple[str, ...] = ()
    policy: Policy | None = None
    covering: int = 0
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    start: int
    end: int
    size: int
    erased: int
    summary: evidence.Summary


def export(
    reader: LedgerReader, out: Path, asked: Asked, *, keys: Mapping[str, Json], policies: Mapping[str, bytes],
    kept: Callable[[str], bytes | None] = lambda _: None, sign: Callable[[checkpoint.Head], str] | None = None,
    heads: CosignedHeads | None = None,
) -> Exported:  # fmt: skip
    """Write the bundle. `keys` are public keys, `policies` bundles by digest, for the auditor to have beside it; `kept`
    gives others, of which those are added that opened decisions name. `sign` gives the log's further signature line
    under the newest head, `heads` those of the past that were cosigned.

    Raises LedgerCorrupt for leaves or payloads that do not hold, LedgerUnavailable where it cannot be written.
    """
    aside = out.with_name(f".{out.name}.new")
    try:
        with reader.snapshot() as view, aside.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
                done = _Export(reader, view, _Files(packed), asked, sign, heads).run(keys, policies, kept)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise LedgerUnavailable(f"`{out}` cannot be written: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)
    return done


class _Files:
    """A zip file whose files have fixed times, and the hash and length of each."""

    def __init__(self, packed: zipfile.ZipFile) -> None:
        self._packed = packed
        self.hashes: dict[str, tuple[str, int]] = {}

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        info = zipfile.ZipInfo(name, date_time=_EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o644 << 16
        info.create_system = 3
        hash_, length = sha256(), 0
        with self._packed.open(info, "w", force_zip64=True) as file:
            for chunk in chunks:
                hash_.update(chunk)
                length += len(chunk)
                file.write(chunk)
        self.hashes[name] = (hash_.hexdigest(), length)


class _Export:
    """One export under way, within one snapshot."""

    def __init__(
        self, reader: LedgerReader, view: View, files: _Files, asked: Asked,
        sign: Callable[[checkpoint.Head], str] | None, heads: CosignedHeads | None,
    ) -> None:  # fmt: skip
        self._sign = sign
        self._heads = heads
        self._witnessed: set[int] = set()
        self._origin = reader.verifier.name
        self._verifier = reader.verifier
        self._keys = reader.keys
        self._view = view
        self._files = files
        self._asked = asked
        self._summary = evidence.Summary()
        self._erased = 0
        self._note = b""
        self._named: set[str] = set()

    def run(
        self, keys: Mapping[str, Json], policies: Mapping[str, bytes], kept: Callable[[str], bytes | None]
    ) -> Exported:
        note = self._view.execute("SELECT note FROM head").fetchone()
        head = checkpoint.read(note[0] if note else "", self._verifier, origin=self._origin)
        signed, lines = self._cosigned(checkpoint.Head(checkpoint=head, note=note[0]))
        head = signed.checkpoint
        start, end = self._span(head.size)
        files, asked = self._files, self._asked
        cosigned = "".join((signed.note, *lines))
        self._note = cosigned.encode()
        files.write("checkpoint", [(cosigned + self._own_line(signed)).encode()])
        proof = self._proof(start, end, head.size)
        files.write("HOW-TO-VERIFY.txt", [evidence.HOW_TO.encode()])
        if changes := handovers(self._view):
            files.write("handovers.jsonl", map(partial(self._handover, size=head.size), changes))
        files.write("keys.json", [_json({"log": self._verifier.vkey, **self._second_key(), **keys})])
        files.write("leaves.jsonl", self._leaves(start, end))
        if asked.everything or asked.open or (self._keys is not None and _ALWAYS & self._summary.kinds.keys()):
            files.write("opened.jsonl", self._opened(start, end))
        if self._heads is not None:
            past = [*past_heads(self._heads, self._witnessed, span=(start, end), size=head.size)]
            if past:
                files.write("heads.jsonl", (self._past(each, span=(start, end), size=head.size) for each in past))
        if asked.control:
            told = controls.told(controls.CONTROLS[asked.control], self._summary.kinds, asked.sample)
            files.write("CONTROL.txt", [told.encode()])
        for digest in sorted({*policies, *self._named}):
            spelled = policies.get(digest) or kept(digest)
            if spelled is not None:
                files.write(f"policies/{digest.removeprefix('sha256:')}.json", [spelled])
        files.write("proof.json", [_json(proof)])
        if asked.since:
            files.write("start/checkpoint", [asked.since.encode()])
        whole = asked.everything and not (asked.tool or asked.person or asked.sample)
        said = evidence.manifest(
            origin=self._origin, size=head.size, span=(start, end), asked=asked.words, whole=whole,
            erased=self._erased, summary=self._summary, files=files.hashes,
        )  # fmt: skip
        files.write("manifest.json", [said])
        return Exported(start=start, end=end, size=head.size, erased=self._erased, summary=self._summary)

    def _handover(self, change: Handover, *, size: int) -> bytes:
        """A change of the log's key, with the proof that the head of both keys is a beginning of the newest."""
        return _json({**change.told(), "proof": self._roots(tree.consistency_spans(change.size, size))})

    def _past(self, note: str, *, span: tuple[int, int], size: int) -> bytes:
        """A head of the past. Within the range the leaves themselves say what its root is: no proof is needed."""
        old = int(note.split("\n", 2)[1])
        outside = not span[0] <= old <= span[1]
        return _json({"note": note, "proof": self._roots(tree.consistency_spans(old, size)) if outside else []})

    def _cosigned(self, newest: checkpoint.Head) -> tuple[checkpoint.Head, list[str]]:
        """The head of the bundle, and the lines of those who are asked."""
        proof, asked, lines = self._consistency(newest.size), self._asked, list[str]()
        try:
            lines += [ask_witness(each, newest.note, newest.size, proof) for each in asked.witnesses]
            if asked.policy is not None:
                lines += ask_quorum(asked.policy, newest, proof)
        except Ahead:
            found = None
            if self._heads is not None and asked.policy is not None and asked.covering and not asked.witnesses:
                found = last_cosigned(self._heads, asked.policy, least=asked.covering, most=newest.size)
            if found is None:
                raise
            return found
        return newest, [*dict.fromkeys(lines)]

    def _own_line(self, head: checkpoint.Head) -> str:
        """The log's further line, which chooses no sample: whoever has the key could make another one."""
        return self._sign(head) if self._sign is not None else ""

    def _second_key(self) -> dict[str, Json]:
        own = self._keys.heads if self._keys is not None and self._sign is not None else None
        return {"log_ml_dsa_44": own.cosigner.vkey} if own is not None else {}

    def _span(self, size: int) -> tuple[int, int]:
        """The range in indices: from the first leaf of that time or later, to after the last one before that time."""
        asked = self._asked
        start = asked.start[1]
        if asked.start[0] == "time":
            start = self._one(f"SELECT min(idx) FROM leaf WHERE {self._view.at} >= ?", start, otherwise=size)  # noqa: S608
        end = size if asked.end is None else asked.end[1]
        if asked.end is not None and asked.end[0] == "time":
            end = self._one(f"SELECT max(idx) + 1 FROM leaf WHERE {self._view.at} < ?", end, otherwise=0)  # noqa: S608
        end = max(min(end, size), min(start, size)) if asked.end is None or asked.end[0] == "time" else end
        if not 0 <= start <= end <= size:
            raise ConfigInvalid(f"there are no leaves {start} to {end}: the log has {size}", hint="ask for fewer")
        return start, end

    def _one(self, query: str, value: int, *, otherwise: int) -> int:
        found = self._view.execute(query, (value,)).fetchone()[0]
        return otherwise if found is None else int(found)

    def _proof(self, start: int, end: int, size: int) -> dict[str, Json]:
        left, right = tree.spans_around(start, end, size)
        since: list[tuple[int, int]] = []
        if self._asked.since:
            old = checkpoint.read(self._asked.since, self._verifier, origin=self._origin)
            if old.size > size:
                raise LedgerCorrupt(
                    f"the checkpoint that was kept is of {old.size} leaves, this log has {size}",
                    hint="the log was put back to an older state, or this is another copy: keep both",
                )
            since = tree.consistency_spans(old.size, size) if old.size > 0 else []
        return {"left": self._roots(left), "right": self._roots(right), "start": self._roots(since)}

    def _consistency(self, size: int) -> Callable[[int], list[bytes]]:
        return lambda old: self._hashes(tree.consistency_spans(old, size))

    def _roots(self, spans: Iterable[tuple[int, int]]) -> list[Json]:
        return [each.hex() for each in self._hashes(spans)]

    def _hashes(self, spans: Iterable[tuple[int, int]]) -> list[bytes]:
        query = "SELECT hash FROM leaf WHERE idx >= ? AND idx < ? ORDER BY idx"
        return [tree.root(row[0] for row in self._view.walk(query, span)) for span in spans]

    def _leaves(self, start: int, end: int) -> Iterator[bytes]:
        for index, entry, _ in self._rows(start, end, "NULL"):
            self._summary.take(index, _read(index, entry))
            if b"\n" in entry:
                raise LedgerCorrupt(f"leaf {index} is not one line", hint="`onbehalf audit verify` says more")
            yield entry + b"\n"

    def _rows(self, start: int, end: int, payload: str) -> Iterator[tuple[int, bytes, bytes | None]]:
        rows = self._view.walk(
            f"SELECT l.idx, l.entry, {payload} FROM leaf l LEFT JOIN payload p USING (idx)"  # noqa: S608  # our words
            " WHERE l.idx >= ? AND l.idx < ? ORDER BY l.idx",
            (start, end),
        )
        expected = start
        while batch := rows.fetchmany(_ROWS):
            for index, entry, sealed in batch:
                if index != expected:
                    raise LedgerCorrupt(f"leaf {expected} is missing", hint="`onbehalf audit verify` says more")
                expected += 1
                yield index, entry, sealed

    def _opened(self, start: int, end: int) -> Iterator[bytes]:
        if self._keys is None:
            raise ConfigInvalid("payloads cannot be opened without the gateway's keys")
        calls = self._sampled(start, end) if self._asked.sample else None
        if self._asked.tool or self._asked.person:
            calls = self._calls(start, end, self._keys)
        for index, entry, sealed in self._rows(start, end, "p.sealed"):
            leaf = _read(index, entry)
            if (calls is not None and leaf.call not in calls and leaf.kind not in _ALWAYS) or not self._wanted(leaf):
                continue
            facts = _facts(self._keys, index, entry, sealed)
            if facts is None:
                self._erased += 1
                by = erased_by(self._keys.sealer, index, sealed)
                yield _json({"index": index, "erased": True, **({"by": by.leaf} if by is not None else {})})
                continue
            for name in sorted(self._wanted(leaf)):
                if name == "decision":
                    self._name(facts[name][0])
                elif name == "witnessed" and len(self._witnessed) < MOST:
                    self._witnessed.add(orjson.loads(facts[name][0])["size"])
                yield evidence.opened_line(index, name, *facts[name])

    def _name(self, decision: str) -> None:
        """Take note of the policies of a decision. Their number is bounded, as that of files in a bundle is."""
        policy = orjson.loads(decision).get("policy")
        if isinstance(policy, str) and len(self._named) < _MAX_POLICIES:
            self._named.add(policy)

    def _wanted(self, leaf: Leaf) -> set[str]:
        every = self._asked.everything or leaf.kind in _ALWAYS
        return set(leaf.facts) if every else set(self._asked.open & leaf.facts.keys())

    def _sampled(self, start: int, end: int) -> set[str]:
        """The calls that are opened because the seed says so."""
        leading = ((index, _read(index, entry)) for index, entry, _ in self._rows(start, end, "NULL"))
        began = ((index, leaf.call) for index, leaf in leading if leaf.kind in sample.LEADING)
        return {call for _, call in sample.drawn(sample.seed(self._note, self._asked.seed), began, self._asked.sample)}

    def _calls(self, start: int, end: int, keys: LedgerKeys) -> set[str]:
        """The calls of that tool and person, by what their first records say."""
        found: set[str] = set()
        for index, entry, sealed in self._rows(start, end, "p.sealed"):
            leaf = _read(index, entry)
            facts = _facts(keys, index, entry, sealed) if leaf.kind in sample.LEADING else None
            if facts is None:
                continue
            said = {name: orjson.loads(text) for name, (text, _) in facts.items()}
            tool, person = said.get("tool") or {}, said.get("person") or {}
            wrong_tool = self._asked.tool and tool.get("name") != self._asked.tool
            if not wrong_tool and not (self._asked.person and person.get("id") != self._asked.person):
                found.add(leaf.call)
        return found


def _facts(keys: LedgerKeys, index: int, entry: bytes, sealed: bytes | None) -> dict[str, tuple[str, str]] | None:
    """Facts and their salts; None where they are erased."""
    with _at(index):
        payload = None if sealed is None else keys.sealer.open(sealed, index=index, leaf=tree.leaf_hash(entry))
        return opened_facts(read(entry), payload) if payload is not None else None


def _read(index: int, entry: bytes) -> Leaf:
    with _at(index):
        return read(entry)


@contextmanager
def _at(index: int) -> Iterator[None]:
    try:
        yield
    except LedgerCorrupt as error:
        raise LedgerCorrupt(f"record {index} is damaged: {error.message}", hint=error.hint) from error


def _json(value: Mapping[str, Json]) -> bytes:
    return orjson.dumps(dict(value), option=orjson.OPT_SORT_KEYS) + b"\n"
