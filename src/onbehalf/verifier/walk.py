"""All leaves of a bundle in order: each by itself, the tree over them, and each against those before it.

Leaves of which nothing was opened go in runs, which runs.py examined and crew.py has shared out. All others, and every
run that does not fit to what came before, are taken one by one, which also says what is wrong. So the report is the
same, however many processes there were. Must not know what a root is held against (check.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onbehalf.verifier import merkle
from onbehalf.verifier.archive import Archive
from onbehalf.verifier.besides import Under
from onbehalf.verifier.complete import Completeness
from onbehalf.verifier.crew import Block, crew
from onbehalf.verifier.leaves import MAX_LEAF, Leaf, Pairing, Run, read_leaf
from onbehalf.verifier.manifest import Manifest, Proof
from onbehalf.verifier.opened import Opened, Reading, opened_lines, wanted
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Report
from onbehalf.verifier.runs import Examined, subtrees
from onbehalf.verifier.sample import Sample

__all__ = ["Walk"]

_LINE = 80 << 20
_LISTED = 1000
_WORTH_IT = 16 << 20
"""Bytes of leaves from which other processes are started: to start them takes as long as to check half of that."""


class Walk:
    """One walk over the leaves. `roots` fills with the root over each of the sizes that are asked for."""

    def __init__(
        self, archive: Archive, report: Report, manifest: Manifest, proof: Proof | None, *, reading: Reading,
        complete: Completeness, sample: Sample | None, besides: Under | None,
    ) -> None:  # fmt: skip
        self._archive, self._report, self._manifest, self._proof = archive, report, manifest, proof
        self.reading, self.complete, self.pairing = reading, complete, Pairing(manifest.start)
        self._sample, self._besides = sample, besides
        self._summary = _Summary()
        self._opened = self._opened_lines()
        self._following: Opened | None = None
        self.roots: dict[int, bytes] = {0: merkle.Range(0, ()).root()}

    def run(self, sizes: set[int], *, jobs: int) -> None:
        """Each leaf, the tree over them, and the roots at `sizes` within the range."""
        manifest, tree, index = self._manifest, self._range(), self._manifest.start
        stops = sorted(size for size in {*sizes, manifest.end} if manifest.start <= size <= manifest.end)
        self._following = next(self._opened, None)
        for start, data, found in self._examined(stops, jobs):
            if found.too_long:
                raise Unusable(f"`leaves.jsonl` has a line of more than {MAX_LEAF} bytes")
            if tree is not None:
                if start in stops:
                    self.roots[start] = tree.root()
                tree.join(found.pieces)
            index = self._block(start, data, found.runs)
        if self._following is not None:
            text = "it opens a leaf outside of the range"
            self._report.found("opened_stray", "opened.jsonl", text, self._following.index)
            for _ in self._opened:  # to its end, for its hash
                pass
        if index != manifest.end:
            self._report.found("leaves_count", "leaves.jsonl", f"it ends before leaf {index}, not {manifest.end}")
        elif tree is not None:
            self.roots[index] = tree.root()
            self._close(tree)
        self._report.summary = self._summary.told(self.pairing)

    def _examined(self, stops: Sequence[int], jobs: int) -> Iterator[tuple[int, bytes, Examined]]:
        """The blocks of leaves. Where most leaves must be taken one by one, no run is looked for."""
        archive = self._archive
        blocks = _numbered(archive.blocks("leaves.jsonl", limit=MAX_LEAF), self._manifest.start, stops)
        leaves = archive.says("leaves.jsonl")
        by_one = self._sample is not None or self._besides is not None or self.complete.compares
        if by_one or self._manifest.whole or archive.says("opened.jsonl") > leaves // 8:
            return ((start, data, subtrees(start, data)) for start, data in blocks)
        return crew(blocks, jobs=jobs if leaves >= _WORTH_IT else 1)

    def _block(self, index: int, data: bytes, runs: Sequence[Run]) -> int:
        """The leaves of one block. The index of the leaf after it."""
        lines, begun = list[bytes](), index
        for run in runs:
            if run.kinds and self._fits(index, run):
                self._summary.run(index, run)
                self.pairing.run(run)
                self.complete.run(index, run)
            else:
                lines = lines or data.split(b"\n")
                for place in range(index - begun, index - begun + run.leaves):
                    self._alone(begun + place, lines[place])
            index += run.leaves
        return index

    def _fits(self, index: int, run: Run) -> bool:
        """Whether nothing of a run is opened, and nothing would be found of it: only then is anything noted."""
        following = self._following
        closed = following is None or not index <= following.index < index + run.leaves
        return closed and self._summary.fits(run) and self.pairing.fits(run) and self.complete.channels.fits(run)

    def _alone(self, index: int, line: bytes) -> None:
        here = self._following if self._following is not None and self._following.index == index else None
        try:
            leaf = read_leaf(line)
            self._summary.take(index, leaf)
            if leaf.kind == "erased":
                self.reading.erasures.leaf(index, leaf.at)
            self._one(index, leaf, merkle.leaf_hash(line), here)
        except ValueError as error:
            self._report.found("leaf_invalid", "leaves.jsonl", str(error), index)
        if here is not None:
            self._following = next(self._opened, None)

    def _range(self) -> merkle.Range | None:
        proof = self._proof
        try:
            return merkle.Range(self._manifest.start, proof.left) if proof is not None else None
        except ValueError as error:
            self._report.found("proof_invalid", "proof.json", str(error))
            return None

    def _close(self, tree: merkle.Range) -> None:
        proof, size = self._proof, self._manifest.size
        try:
            tree.close(size, proof.right if proof is not None else ())
            self.roots[size] = tree.root()
        except ValueError as error:
            self._report.found("proof_invalid", "proof.json", str(error))

    def _one(self, index: int, leaf: Leaf, hash_: bytes, here: Opened | None) -> None:
        """What one leaf answers, and what was opened of it."""
        pairing, reading, whole = self.pairing, self.reading, self._manifest.whole
        try:
            intent = pairing.take(index, leaf, hash_)
        except ValueError as error:
            self._report.found("outcome_unpaired", "leaves.jsonl", str(error), index)
            intent = None
        reading.begin(leaf)
        problems = [*reading.take(leaf, here, intent)] if here is not None else []
        if hole := self.complete.take(index, leaf, hash_, here, sound=not problems):
            self._report.found("channel_hole", "leaves.jsonl", hole, index)
        if here is not None:
            reading.erased += here.erased
            for text in problems:
                self._report.found("opened_invalid", "opened.jsonl", text, index)
            if index in pairing.open:
                opened = wanted({name: text for name, (text, _) in here.facts.items()}, reading.said)
                pairing.open[index] = pairing.open[index]._replace(opened=opened)
        if self._besides is not None:
            said = reading.said if here is not None else {}
            for code, text in self._besides.take(index, leaf, hash_, said, erased=here is not None and here.erased):
                self._report.found(code, "call tokens" if code.startswith("token") else "opened.jsonl", text, index)
        if self._sample is None and not whole:
            return
        all_here = not leaf.names or (here is not None and (here.erased or here.facts.keys() == {*leaf.names}))
        if self._sample is not None:
            self._sample.take(index, leaf, whole=all_here)
        if whole and not all_here:
            text = "the manifest says that all is opened, and not all facts of this leaf are"
            self._report.found("fact_withheld", "opened.jsonl", text, index)

    def _opened_lines(self) -> Iterator[Opened]:
        if "opened.jsonl" not in self._archive.names:
            return
        try:
            yield from opened_lines(self._archive.lines("opened.jsonl", limit=_LINE))
        except ValueError as error:
            self._report.found("opened_malformed", "opened.jsonl", str(error))


class _Summary:
    """What can be told of all leaves at once, as the manifest does."""

    def __init__(self) -> None:
        self._kinds: dict[str, int] = {}
        self._first: int | None = None
        self._last = 0
        self._gap: dict[str, int] | None = None

    def take(self, index: int, leaf: Leaf) -> None:
        if leaf.kind not in self._kinds and len(self._kinds) >= _LISTED:
            raise ValueError("there are more kinds of leaves than any log has")
        self._kinds[leaf.kind] = self._kinds.get(leaf.kind, 0) + 1
        if self._first is None:
            self._first = leaf.at
        else:
            self._between(leaf.at - self._last, index)
        self._last = leaf.at

    def fits(self, run: Run) -> bool:
        """Whether there are not too many kinds with those of a run."""
        return len(self._kinds.keys() | run.kinds.keys()) <= _LISTED

    def run(self, index: int, run: Run) -> None:
        """A run that fits, as if each of its leaves were taken."""
        for kind, count in run.kinds.items():
            self._kinds[kind] = self._kinds.get(kind, 0) + count
        if self._first is None:
            self._first = run.first
        else:
            self._between(run.first - self._last, index)
        if run.gap is not None:
            self._between(*run.gap)
        self._last = run.last

    def _between(self, seconds: int, index: int) -> None:
        if self._gap is None or seconds > self._gap["seconds"]:
            self._gap = {"seconds": seconds, "before": index}

    def told(self, pairing: Pairing) -> dict[str, object]:
        return {
            "kinds": self._kinds, "first_at": self._first, "last_at": None if self._first is None else self._last,
            "longest_gap": self._gap, "open": [*pairing.open][:_LISTED], "unknown": pairing.unknown[:_LISTED],
        }  # fmt: skip


def _numbered(blocks: Iterator[bytes], start: int, stops: Sequence[int]) -> Iterator[Block]:
    """Blocks with the index of their first leaf, cut where a root is wanted."""
    index = start
    for block in blocks:
        data, count = block, block.count(b"\n")
        for stop in stops:
            if index < stop < index + count:
                cut = len(data) - len(data.split(b"\n", stop - index)[-1])
                yield index, data[:cut]
                data, count, index = data[cut:], count - (stop - index), stop
        yield index, data
        index += count
