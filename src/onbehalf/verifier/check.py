"""Checks one bundle, in this order:

1 the zip file is one that a bundle can be; 2 manifest and names; 3 the log's key; 4 the newest head's signature; 5 an
earlier head's; 6 each leaf: its spelling, its intent, what was opened of it; 7 all leaves under the newest head, and
every earlier head a beginning of it; 8 what is called erased by the leaves that say so, what the manifest says of the
leaves, and that a sample is the one of its seed; 9 policies by their digests; 10 each file's hash. What fails is found
and the check goes on, where that makes sense.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from onbehalf.verifier import merkle, past_heads
from onbehalf.verifier.archive import Archive
from onbehalf.verifier.besides import NOTHING_BESIDES, Besides
from onbehalf.verifier.complete import Completeness
from onbehalf.verifier.handovers import Succession, followed, handed_over
from onbehalf.verifier.manifest import Manifest, Proof, read_manifest, read_proof
from onbehalf.verifier.note import Checkpoint
from onbehalf.verifier.opened import Reading
from onbehalf.verifier.policy import Policy
from onbehalf.verifier.receipts import Receipts, key_set
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Report
from onbehalf.verifier.sample import Sample, asked_sample
from onbehalf.verifier.signers import Demanded, chosen, demanded, log_keys, look, require, without_own
from onbehalf.verifier.strict import strict
from onbehalf.verifier.walk import Walk

__all__ = ["MAX_BYTES", "check"]

MAX_BYTES = 16 << 30
_SMALL = 1 << 20
_POLICY = 32 << 20


def check(
    path: Path, *, key: str = "", kept: bytes = b"", witnesses: Sequence[str] = (), policy: Policy | None = None,
    besides: Besides = NOTHING_BESIDES, max_bytes: int = MAX_BYTES, jobs: int = 1,
) -> Report:  # fmt: skip
    """Check the bundle at `path`. `key` are the log's vkeys, if known; `kept` a checkpoint that was kept elsewhere;
    `witnesses` are the vkeys of those who must have cosigned the newest head, `policy` says who of several is enough;
    `besides` is what else to check. `jobs` are the processes to check a long log in; the report is the same.

    Raises Unusable for what is no bundle.
    """
    archive = Archive(path, max_bytes=max_bytes)  # 1
    try:
        return _Check(archive, asked=demanded(key, witnesses, policy), kept=kept, besides=besides, jobs=jobs).run()
    finally:
        archive.close()


class _Check:
    """One check under way."""

    def __init__(
        self, archive: Archive, *, asked: Demanded, kept: bytes, besides: Besides, jobs: int
    ) -> None:  # fmt: skip
        self._archive = archive
        self._asked = asked
        self._backends = besides.backends
        self._besides = besides.begin(self._policy_file)
        self._kept, self._jobs = kept, jobs
        self._report = Report()
        self._roots: dict[int, bytes] = {}
        self._sample: Sample | None = None

    def run(self) -> Report:
        report, archive = self._report, self._archive
        manifest = self._manifest()  # 2
        keys = self._keys()
        log = self._log_keys(keys)  # 3
        note = archive.whole("checkpoint", limit=_SMALL)
        end = self._head("checkpoint", note, log)  # 4
        if end is not None and (end.size, log.newest.key.name) != (manifest.size, manifest.origin):
            report.found("manifest_wrong", "manifest.json", "it names another origin or size than the newest head")
        if end is not None:
            look(report, end, log.newest, self._asked)
            handed_over(log, end, report)
        self._sample = self._asked_sample(manifest, without_own(note, log.newest.key.name))
        proof = self._proof()
        earlier = self._earlier(log)  # 5
        past = past_heads.read_past(archive, log, report)
        if self._besides is not None:
            for code, text in self._besides.keys(keys.get("calls"), manifest.start, manifest.end):
                report.found(code, "call tokens", text)
        reading = Reading(receipts=Receipts(self._receipt_keys(keys)))
        complete = Completeness(manifest.origin, manifest.start, manifest.size, self._backends)
        walk = Walk(
            archive, report, manifest, proof, reading=reading, complete=complete, sample=self._sample,
            besides=self._besides,
        )  # fmt: skip
        sizes = {each.size for _, each in earlier} | {each.head.size for each in past}
        walk.run(sizes, jobs=self._jobs)  # 6
        self._roots = walk.roots
        self._trees(manifest, proof, end, earlier)  # 7
        if end is not None:
            roots = self._roots if self._roots.get(end.size) == end.root else {}
            past_heads.look_back(past, end, roots, policy=self._asked.policy, claims=reading.witnessed, report=report)
        report.answered_before, report.opened, report.receipts = walk.pairing.before, reading.facts, reading.signed
        report.erased, report.statements = reading.erased, complete.statements(manifest.end)
        report.erasures = reading.erasures.as_json()
        for index, text in reading.erasures.problems(manifest.start, manifest.end):
            report.found("erasure_wrong", "opened.jsonl", text, index)
        if self._besides is not None:
            report.replay, report.call_tokens = self._besides.told()
        self._said(manifest)  # 8
        self._sampled()
        self._policies(reading.policies)  # 9
        self._hashes(manifest)  # 10
        if report.findings or report.diverged:
            for each in report.statements:
                each.against("the bundle itself does not hold")
        return report

    def _manifest(self) -> Manifest:
        manifest, report = read_manifest(self._archive.whole("manifest.json", limit=_SMALL)), self._report
        report.origin, report.size, report.asked = manifest.origin, manifest.size, manifest.asked
        report.start, report.end = manifest.start, manifest.end
        listed, here = {*manifest.files, "manifest.json"}, set(self._archive.names)
        for name in sorted(listed - here):
            report.found("file_missing", name[:100], "the manifest lists it and it is not here")
        for name in sorted(here - listed):
            report.found("file_unlisted", name, "it is here and the manifest does not list it")
        return manifest

    def _keys(self) -> dict[str, object]:
        try:
            keys = strict(self._archive.whole("keys.json", limit=_SMALL), depth=8)
        except ValueError as error:
            raise Unusable(f"keys.json is not readable: {error}") from error
        if not isinstance(keys, dict) or not isinstance(keys.get("log"), str):
            raise Unusable("keys.json does not name the log's key")
        return keys

    def _log_keys(self, keys: dict[str, object]) -> Succession:
        second = keys.get("log_ml_dsa_44")
        text = f"{keys['log']}\n{second}" if isinstance(second, str) else str(keys["log"])
        brought = log_keys(text)
        given = chosen(self._asked, brought, self._report)
        log = followed(self._archive, given, self._report)
        require(self._asked, brought, log.keys, self._report)
        return log

    def _receipt_keys(self, keys: dict[str, object]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        sets = keys.get("receipts")
        try:
            if keys.get("calls") is not None:
                key_set(keys["calls"])
            for each in sets.values() if isinstance(sets, dict) else ():
                found |= key_set(each, thumbprints=False)
        except ValueError as error:
            self._report.found("key_malformed", "keys.json", str(error))
        return found

    def _head(self, place: str, note: bytes, log: Succession) -> Checkpoint | None:
        try:
            head, ended = log.head(note)
        except ValueError as error:
            self._report.found("head_invalid", place, str(error))
            return None
        if ended >= 0:
            text = f"a key signed it that has signed no head since that of {ended} leaves: somebody else has that key"
            self._report.found("head_former", place, text)
        return head

    def _proof(self) -> Proof | None:
        try:
            return read_proof(self._archive.whole("proof.json", limit=_SMALL))
        except ValueError as error:
            self._report.found("proof_malformed", "proof.json", str(error))
            return None

    def _earlier(self, log: Succession) -> list[tuple[str, Checkpoint]]:
        notes = []
        if "start/checkpoint" in self._archive.names:
            notes.append(("start/checkpoint", self._archive.whole("start/checkpoint", limit=_SMALL)))
        if self._kept:
            notes.append(("the checkpoint you kept", self._kept))
        heads = [(place, self._head(place, note, log)) for place, note in notes]
        return [(place, head) for place, head in heads if head is not None]

    def _trees(
        self, manifest: Manifest, proof: Proof | None, end: Checkpoint | None, earlier: list[tuple[str, Checkpoint]]
    ) -> None:
        """Whether the leaves have the newest head's root, and whether every earlier head is its beginning."""
        if end is None:
            return
        holds = self._roots.get(manifest.size) == end.root and end.size == manifest.size
        if not holds:
            self._report.found(
                "root_mismatch", "leaves.jsonl", "leaves and proof do not have the root that was signed: one is changed"
            )
        else:
            self._report.heads.append(f"of {end.size} leaves, newest: all leaves of the range are under it")
        for place, head in earlier:
            self._beginning(place, head, end, proof, holds=holds)

    def _beginning(self, place: str, head: Checkpoint, end: Checkpoint, proof: Proof | None, *, holds: bool) -> None:
        same = end.root if head.size == end.size else self._roots.get(head.size) if holds else None
        if same is not None:  # the leaves themselves say what the root was
            if same == head.root:
                self._report.heads.append(f"of {head.size} leaves, {place}: a beginning of the newest")
            else:
                self._report.diverged = True
                self._report.found(
                    "head_diverged", place, f"its root over {head.size} leaves is another than this log's"
                )
            return
        steps = proof.start if proof is not None else []
        if merkle.consistent(old=head.size, old_root=head.root, size=end.size, root=end.root, path=steps):
            self._report.heads.append(f"of {head.size} leaves, {place}: a beginning of the newest")
        elif head.size > end.size:
            self._report.found("head_newer", place, f"it is of {head.size} leaves, the bundle only of {end.size}")
        else:
            text = f"this bundle does not prove that the log of {head.size} leaves is a beginning of it"
            self._report.found("head_unproven", place, f"{text}; have one made with --since")

    def _said(self, manifest: Manifest) -> None:
        if manifest.summary != self._report.summary:
            self._report.found("summary_wrong", "manifest.json", "its summary is not what the leaves say")
        if manifest.erased != self._report.erased:
            self._report.found("summary_wrong", "manifest.json", "it names another number of erased leaves")

    def _asked_sample(self, manifest: Manifest, note: bytes) -> Sample | None:
        try:
            return asked_sample(manifest.asked, note)
        except ValueError as error:
            self._report.found("sample_malformed", "manifest.json", str(error))
            return None

    def _sampled(self) -> None:
        if self._sample is None:
            return
        self._report.sampled = (self._sample.size, self._sample.population)
        for index in self._sample.withheld():
            text = "the seed chooses this call, and not all of it is opened"
            self._report.found("sample_withheld", "opened.jsonl", text, index)

    def _policy_file(self, digest: str) -> bytes | None:
        """The policy bundle of a digest, where it is here and has that digest."""
        name = f"policies/{digest.removeprefix('sha256:')}.json"
        data = self._archive.whole(name, limit=_POLICY) if name in self._archive.names else None
        return data if data is not None and f"sha256:{hashlib.sha256(data).hexdigest()}" == digest else None

    def _policies(self, named: set[str]) -> None:
        here = set()
        for name in self._archive.names:
            if name.startswith("policies/"):
                digest = hashlib.sha256(self._archive.whole(name, limit=_POLICY)).hexdigest()
                here.add(f"sha256:{digest}")
                if name != f"policies/{digest}.json":
                    self._report.found("policy_changed", name, "it does not have the digest that is its name")
        self._report.policies = {each[:100]: each in here for each in sorted(named)}

    def _hashes(self, manifest: Manifest) -> None:
        for name in self._archive.names:
            if name not in self._archive.hashes:
                for _ in self._archive.chunks(name, limit=MAX_BYTES):
                    pass
            if name in manifest.files and manifest.files[name] != self._archive.hashes[name]:
                self._report.found("file_changed", name, "it does not have the hash and length of the manifest")
