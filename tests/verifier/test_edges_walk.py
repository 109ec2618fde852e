"""A walk over leaves says what is wrong at its leaf, keeps the roots it is asked for, and takes runs where it can."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from onbehalf.explain import tree
from onbehalf.verifier import walk
from onbehalf.verifier.complete import Completeness
from onbehalf.verifier.leaves import MAX_LEAF, Leaf
from onbehalf.verifier.manifest import Manifest, Proof
from onbehalf.verifier.opened import Reading
from onbehalf.verifier.receipts import Receipts
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Report
from onbehalf.verifier.runs import Examined, examined
from onbehalf.verifier.sample import Sample
from onbehalf.verifier.walk import Walk

SALT = "5" * 64
MIB = 1 << 20


def line(kind: str = "denial", at: int = 5, call: str = "c", *, of: int = -1, n: int = 0, **facts: str) -> bytes:
    """A leaf that commits to these facts, which are JSON texts."""
    channel, number, about = (
        f'"ch":"{"a" * 16}",' if n else "",
        f'"n":{n},' if n else "",
        f'"of":{of},' if of >= 0 else "",
    )
    made = ",".join(f'"{name}":"{commitment(name, text)}"' for name, text in sorted(facts.items()))
    return (
        f'{{"at":{at},"call":"{call}",{channel}"facts":{{{made}}},"id":"","kind":"{kind}",{number}{about}"v":1}}'
    ).encode()


def commitment(name: str, text: str) -> str:
    message = b"onbehalf/leaf/v1/" + name.encode() + b"\0" + text.encode()
    return hmac.digest(bytes.fromhex(SALT), message, hashlib.sha256).hex()


def opened(index: int, **facts: str) -> list[bytes]:
    return [
        json.dumps({"index": index, "fact": name, "json": text, "salt": SALT}, separators=(",", ":")).encode()
        for name, text in sorted(facts.items())
    ]


def erased(index: int, by: int) -> bytes:
    return json.dumps({"index": index, "erased": True, "by": by}).encode()


class Files:
    """The two files of a bundle that a walk reads, whatever they say of their length."""

    def __init__(self, leaves: Sequence[bytes], lines: Sequence[bytes], says: dict[str, int]) -> None:
        self._leaves, self._lines, self._says = leaves, lines, says
        self.names = ["leaves.jsonl", *(["opened.jsonl"] if lines else [])]
        self.limits: dict[str, int] = {}
        self.read = 0

    def blocks(self, name: str, *, limit: int) -> Iterator[bytes]:
        self.limits[name] = limit
        yield b"".join(each + b"\n" for each in self._leaves)

    def lines(self, name: str, *, limit: int) -> Iterator[bytes]:
        self.limits[name] = limit
        for each in self._lines:
            self.read += 1
            yield each

    def says(self, name: str) -> int:
        return self._says.get(name, 0)


class Walked:
    """One walk over these leaves, which are leaf `start` and those after it."""

    def __init__(
        self, *leaves: bytes, lines: Sequence[bytes] = (), start: int = 3, end: int | None = None, whole: bool = False,
        size: int | None = None, sizes: Sequence[int] = (), besides: Any = None, sample: Sample | None = None,
        proof: Proof | None = None, says: dict[str, int] | None = None, jobs: int = 1,
    ) -> None:  # fmt: skip
        end = start + len(leaves) if end is None else end
        size = end if size is None else size
        manifest = Manifest(
            origin="o", size=size, start=start, end=end, asked={}, whole=whole, erased=0, summary={}, files={}
        )
        before = [tree.leaf_hash(b"%d" % each) for each in range(start)]
        self.hashes = [*before, *map(tree.leaf_hash, leaves)]
        left = [tree.root(before[a:b]) for a, b in tree.spans_around(start, start, start)[0]]
        proof = proof or Proof(left=left, right=[], start=[])
        self.files, self.report, self.reading = Files(leaves, lines, says or {}), Report(), Reading(Receipts({}))
        self.complete = Completeness("o", start, size, [])
        files: Any = self.files
        self.walk = Walk(
            files, self.report, manifest, proof, reading=self.reading, complete=self.complete, sample=sample,
            besides=besides,
        )  # fmt: skip
        self.walk.run({*sizes}, jobs=jobs)

    @property
    def found(self) -> list[tuple[str, str, int]]:
        return [(each.code, each.place, each.index) for each in self.report.findings]


def test_the_roots_that_are_asked_for_are_kept_within_the_range_and_at_its_ends() -> None:
    leaves = [line(at=each) for each in range(5)]
    made = Walked(*leaves, sizes=(0, 2, 3, 5, 8, 9))
    assert made.walk.roots == {0: hashlib.sha256(b"").digest(), **{n: tree.root(made.hashes[:n]) for n in (3, 5, 8)}}
    assert (made.found, made.files.limits) == ([], {"leaves.jsonl": MAX_LEAF})
    assert made.report.summary["kinds"] == {"denial": 5}
    none = Walked(start=3, sizes=(3,))
    assert none.walk.roots == {0: hashlib.sha256(b"").digest(), 3: tree.root(none.hashes)}


def test_a_range_is_closed_by_what_lies_right_of_it_and_a_proof_that_does_not_fit_is_found() -> None:
    leaves = [line(at=each) for each in range(3)]
    more = tree.leaf_hash(b"more")
    left = Walked(*leaves).walk
    before = [tree.leaf_hash(b"%d" % each) for each in range(3)]
    fits = Proof(left=[tree.root(before[:2]), before[2]], right=[more], start=[])
    made = Walked(*leaves, size=7, proof=fits)
    assert made.walk.roots[7] == tree.root([*made.hashes, more])
    assert (made.found, made.walk.roots[6]) == ([], left.roots[6])
    for proof in (Proof(left=fits.left, right=[], start=[]), Proof(left=[], right=[more], start=[])):
        made = Walked(*leaves, size=7, proof=proof)
        assert made.found == [("proof_invalid", "proof.json", -1)]
        assert 7 not in made.walk.roots
    for end in (5, 7):
        made = Walked(*leaves, end=end)
        assert made.found == [("leaves_count", "leaves.jsonl", -1)]
        assert (end in made.walk.roots) == (end == 5)  # those of the leaves that are here are right


def test_a_line_too_long_makes_a_bundle_unusable() -> None:
    with pytest.raises(Unusable, match=f"a line of more than {MAX_LEAF} bytes"):
        Walked(b"x" * (MAX_LEAF + 1))


def test_what_is_wrong_is_found_at_its_leaf() -> None:
    leaves = [
        line("intent", n=4), b"{}", line("intent", n=6), line("outcome", of=4), line("outcome", call="x", of=5),
        line(tool='"t"'), line("intent", n=7, tool='"t"'), line("erased"), line(),
    ]  # fmt: skip
    lines = [*opened(8, tool='"x"'), erased(9, 10), *opened(99, tool="1"), *opened(100, tool="1")]
    made = Walked(*leaves, lines=lines, size=20)
    assert made.found == [
        ("leaf_invalid", "leaves.jsonl", 4), ("channel_hole", "leaves.jsonl", 5),
        ("outcome_unpaired", "leaves.jsonl", 6), ("outcome_unpaired", "leaves.jsonl", 7),
        ("opened_invalid", "opened.jsonl", 8), ("opened_stray", "opened.jsonl", 99),
        ("proof_invalid", "proof.json", -1),
    ]  # fmt: skip
    assert made.reading.erased == 1
    assert made.reading.erasures.problems(3, 20) is not None
    assert [*made.reading.erasures.problems(3, 20)] == []
    assert made.files.limits["opened.jsonl"] == 80 * MIB
    assert made.files.read == 4  # to its end, for its hash
    assert [*made.walk.pairing.open] == [3, 9]


def test_what_is_opened_and_is_no_opened_fact_is_found_once() -> None:
    made = Walked(line(tool='"t"'), line(), lines=[*opened(3, tool='"t"'), b"{}", b"{}"])
    assert made.found == [("opened_malformed", "opened.jsonl", -1)]


def test_an_intent_keeps_what_its_receipt_is_held_against() -> None:
    facts = {"tool": '{"remote":"write"}', "arguments_digest": '"sha256:a"'}
    made = Walked(line("intent", n=1, **facts), line("intent", n=2, **facts), lines=opened(3, **facts))
    assert [each.opened for each in made.walk.pairing.open.values()] == [
        {"tool": "write", "arguments": "sha256:a"}, {},
    ]  # fmt: skip


def test_keys_are_in_force_from_the_leaf_that_says_so_until_the_next_that_does() -> None:
    said = {"key_set": '{"receipts":{"desk":{"kid":"x"}}}'}
    leaves = [line("start", **said), line(), line("key_change", **said)]
    one = Walked(*leaves[:2], lines=opened(3, **said))
    assert one.reading.receipts._in_force == {"kid": "x"}
    assert Walked(*leaves, lines=opened(3, **said)).reading.receipts._in_force is None


def test_what_a_leaf_says_of_completeness_is_believed_only_where_all_of_it_holds() -> None:
    beat = line("heartbeat", every="300", sent="{}")
    sound = Walked(beat, lines=opened(3, every="300"))
    assert (sound.complete.silence.limit, sound.found) == (605, [])
    spoiled = Walked(beat, lines=opened(3, every="300", sent="[]"))
    assert (spoiled.complete.silence.limit, spoiled.found) == (125, [("opened_invalid", "opened.jsonl", 3)])


class Asked:
    """What is asked besides: notes each leaf, and finds something at leaf 4."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, str, bytes, Any, bool]] = []

    def take(self, index: int, leaf: Leaf, hash_: bytes, said: Any, *, erased: bool) -> Iterator[tuple[str, str]]:
        self.taken.append((index, leaf.kind, hash_, dict(said), erased))
        if index == 4:
            yield "token_differs", "text"
            yield "decision_differs", "text"


def test_what_is_asked_besides_takes_each_leaf_with_what_was_opened_of_it() -> None:
    leaves = [line(tool='"t"'), line(), line("asked", tool='"t"'), line("erased")]
    asked = Asked()
    made = Walked(*leaves, lines=[*opened(3, tool='"t"'), erased(5, 6)], besides=asked)
    hashes = made.hashes[3:]
    assert asked.taken == [
        (3, "denial", hashes[0], {"tool": "t"}, False), (4, "denial", hashes[1], {}, False),
        (5, "asked", hashes[2], {}, True), (6, "erased", hashes[3], {}, False),
    ]  # fmt: skip
    assert made.found == [("token_differs", "call tokens", 4), ("decision_differs", "opened.jsonl", 4)]


def test_where_all_is_opened_a_leaf_of_which_it_is_not_is_found_and_an_erased_one_is_not() -> None:
    facts = {"a": "1", "b": "2"}
    leaves = [line(**facts), line(**facts), line(**facts), line(), line(**facts), line("erased")]
    lines = [*opened(3, **facts), *opened(4, a="1"), erased(5, 8)]
    assert Walked(*leaves, lines=lines, whole=True).found == [
        ("fact_withheld", "opened.jsonl", 4), ("fact_withheld", "opened.jsonl", 7),
    ]  # fmt: skip
    assert Walked(*leaves, lines=lines).found == []
    sample = Sample(b"", 9)
    assert Walked(*leaves, lines=lines, sample=sample).found == []
    assert (sample.withheld(), sample.population) == ([4, 7], 5)


def shared(monkeypatch: pytest.MonkeyPatch, leaves: int, given: int = 0, **more: Any) -> list[int]:
    """By how many processes runs were looked for in so many bytes; none where leaves were taken one by one."""
    asked: list[int] = []

    def crew(blocks: Iterator[tuple[int, bytes]], *, jobs: int) -> Iterator[tuple[int, bytes, Examined]]:
        asked.append(jobs)
        return ((start, data, examined(start, data)) for start, data in blocks)

    monkeypatch.setattr(walk, "crew", crew)
    made = Walked(line(), says={"leaves.jsonl": leaves, "opened.jsonl": given}, jobs=4, **more)
    assert made.found == []
    return asked


def test_other_processes_are_started_from_16_mebibytes_of_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [shared(monkeypatch, size) for size in (0, 16 * MIB - 1, 16 * MIB)] == [[1], [1], [4]]


def test_runs_are_looked_for_where_at_most_an_eighth_is_opened_and_no_more_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [shared(monkeypatch, 80, given) for given in (9, 10, 11)] == [[1], [1], []]
    assert shared(monkeypatch, 80, whole=True) == []
    assert shared(monkeypatch, 80, sample=Sample(b"", 1), lines=opened(3, tool="1")[:0]) == []
    assert shared(monkeypatch, 80, besides=Asked()) == []
    monkeypatch.setattr(Completeness, "compares", True)
    assert shared(monkeypatch, 80) == []


def test_a_run_is_taken_one_by_one_where_something_of_it_is_opened_and_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaves = [line(at=each, **({"tool": '"t"'} if each in (0, 4) else {})) for each in range(9)]
    alone: list[int] = []
    real = Walk._alone

    def noted(self: Walk, index: int, line: bytes) -> None:
        alone.append(index)
        real(self, index, line)

    monkeypatch.setattr(Walk, "_alone", noted)
    lines = [*opened(3, tool='"t"'), *opened(7, tool='"t"')]
    made = Walked(*leaves, lines=lines, sizes=(4, 7, 8), says={"leaves.jsonl": 99})
    assert (alone, made.found, made.reading.facts) == ([3, 7], [], 2)
    alone.clear()
    made = Walked(*leaves, lines=lines[1:], sizes=(5,), says={"leaves.jsonl": 99})
    assert (alone, made.found, made.reading.facts) == ([*range(5, 12)], [], 1)
