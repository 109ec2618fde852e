"""Heads of the past, read and looked back to: each rule at its edge, in plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from onbehalf.explain import tree
from onbehalf.explain.checkpoint import Checkpoint as Said
from onbehalf.explain.checkpoint import write
from onbehalf.verifier.cosign import ED25519, witness_key, witness_vkey
from onbehalf.verifier.handovers import Succession
from onbehalf.verifier.note import Checkpoint
from onbehalf.verifier.past_heads import PastHead, look_back, read_past
from onbehalf.verifier.policy import Policy, read_policy
from onbehalf.verifier.report import Past, Quorum, Report
from onbehalf.verifier.witnessed import Witnessed
from verifier.test_edges_signers import (
    HASHES,
    KEYS,
    ORIGIN,
    ROOT,
    SIGNERS,
    WITNESS,
    WITNESS_VKEY,
    Bundle,
    change,
    follow,
    found,
    signature,
)


def past(size: int, signer: int = 0, **changed: Any) -> dict[str, Any]:
    return {"note": write(Said(origin=ORIGIN, size=size, root=ROOT), SIGNERS[signer]), "proof": [], **changed}


def heads(*lines: Any, log: Any = None) -> tuple[list[int], list[str]]:
    report, bundle = Report(), Bundle("heads.jsonl", lines)
    made: Any = bundle
    sizes = [each.head.size for each in read_past(made, log or Succession((KEYS[0],)), report)]
    assert bundle.limit == (1 << 19 if lines else 0)
    assert all(each[:2] == ("past_head_invalid", "heads.jsonl") for each in found(report))
    return sizes, [text for _, _, text in found(report)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (past(3, proof=[[]]), "nested deeper than 2"), (b"[]", "it is no head with its proof"),
        (past(3, more=1), "it is no head with its proof"), (past(3, note=7), "it is no head with its proof"),
        (past(3, proof=7), "its proof is no list of hashes"), (past(3, proof=["x"]), "its proof is no list of hashes"),
        (past(3, proof=[7]), "its proof is no list of hashes"),
        (past(3, proof=["0" * 64] * 129), "its proof is no list of hashes"),
        (past(1), "it is not larger than the one before it"), (past(2), "it is not larger than the one before it"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_further_head_says_why_and_the_next_is_read(line: Any, problem: str) -> None:
    assert heads(past(2), line, past(5)) == ([2, 5], [f"line 2: {problem}"])


def test_a_past_head_may_have_a_proof_of_128_hashes_and_is_signed_by_the_key_of_its_time() -> None:
    assert heads() == ([], [])
    assert heads(past(3, proof=["0" * 64] * 128)) == ([3], [])
    log = follow(change(0, 0, 1))[0]
    assert heads(past(1), past(2, 1), log=log) == ([1, 2], [])
    assert heads(past(2), log=log) == ([], ["line 1: a key signed it that has signed no head since that of 1 leaves"])


def test_of_past_heads_two_thousand_are_read() -> None:
    class Log:
        def head(self, note: bytes) -> tuple[Checkpoint, int]:
            return Checkpoint(size=int(note), root=ROOT, signatures=()), -1

    lines = [{"note": str(each), "proof": []} for each in range(2003)]
    assert heads(*lines[:2000], log=Log()) == ([*range(2000)], [])
    sizes, problems = heads(*lines[:1999], b"[]", *lines[2000:], log=Log())
    assert (len(sizes), problems) == (
        1999, ["line 2000: it is no head with its proof", "line 2001: there are more than any bundle has"],
    )  # fmt: skip


def looked(
    size: int, roots: dict[int, bytes], *, asked: Policy | None = None, met: bool = False, root: bytes = ROOT,
    signatures: Any = (), claims: Witnessed | None = None, proof: Sequence[bytes] = (),
) -> Report:  # fmt: skip
    """What is told of one head of the past where the newest is of 9 leaves."""
    report = Report(origin=ORIGIN, quorum=Quorum(name="q", met=met, cosigned={}) if asked is not None else None)
    each = PastHead(head=Checkpoint(size=size, root=root, signatures=signatures), proof=[*proof])
    end = Checkpoint(size=9, root=tree.root(HASHES), signatures=())
    look_back([each], end, roots, policy=asked, claims=claims or Witnessed(), report=report)
    return report


def test_a_past_head_is_held_against_the_leaves_and_else_needs_a_proof() -> None:
    place = "heads.jsonl, the head of 7 leaves"
    report = looked(7, {7: ROOT})
    assert (report.past, report.findings, report.diverged) == ([Past(7, None)], [], False)
    report = looked(7, {7: b"x" * 32})
    assert (found(report), report.past, report.diverged) == (
        [("head_diverged", place, "its root is another than this log's")], [], True,
    )  # fmt: skip
    report = looked(7, {})
    assert (found(report), report.past, report.diverged) == (
        [("head_unproven", place, "it is not shown to be a beginning of the newest")], [], False,
    )  # fmt: skip
    proven = looked(7, {}, root=tree.root(HASHES[:7]), proof=tree.consistency(7, HASHES))
    assert (proven.past, proven.findings) == ([Past(7, None)], [])


def test_calls_are_shown_to_be_witnessed_by_the_quorum_at_their_head_or_at_the_newest() -> None:
    key = witness_key(WITNESS_VKEY)
    asked = read_policy(f"witness w {WITNESS_VKEY}\nquorum w\n".encode())
    claims = Witnessed({7: [3, 5], 9: [6], 8: [2]}, 4)
    signed = {"roots": {7: ROOT}, "claims": claims, "signatures": (signature(key, WITNESS, 70),)}
    for given, at, unshown in (
        ({"asked": asked, "met": True}, 70, [2]), ({"asked": asked}, 70, [2, 6]), ({}, None, [2, 3, 5, 6]),
        ({"asked": asked, "met": True, "signatures": ()}, None, [2, 3, 5]),
    ):  # fmt: skip
        report = looked(7, **{**signed, **given})  # type: ignore[arg-type]  # each is of its own type
        assert (report.past, report.witnessed, report.unshown) == ([Past(7, at)], 4, unshown)
    many = Witnessed({8: [*range(1001)]}, 1001)
    assert looked(7, {7: ROOT}, claims=many).unshown == [*range(1000)]
    broken = looked(7, {7: ROOT}, asked=asked, signatures=(("w.example", key.id + bytes(72)),))
    assert [(code, place) for code, place, _ in found(broken)] == [
        ("cosignature_invalid", "heads.jsonl, the head of 7 leaves")
    ]
    assert broken.past == [Past(7, None)]


def test_the_quorum_is_there_when_the_last_that_is_needed_has_cosigned() -> None:
    secrets = [Ed25519PrivateKey.from_private_bytes(bytes([each]) * 32) for each in range(3)]
    keys = [
        witness_key(witness_vkey(f"w{n}", ED25519, each.public_key().public_bytes_raw()))
        for n, each in enumerate(secrets)
    ]
    vkeys = [witness_vkey(each.name, each.kind, each.public) for each in keys]
    lines = "".join(f"witness {name} {vkey}\n" for name, vkey in zip("abc", vkeys, strict=True))
    for needed, at in (("any", 10), ("2", 20), ("all", 30)):
        asked = read_policy(f"{lines}group g {needed} a b c\nquorum g\n".encode())
        times = zip(keys, secrets, (30, 10, 20), strict=True)
        signatures = tuple(signature(key, secret, when) for key, secret, when in times)
        assert looked(7, {7: ROOT}, asked=asked, signatures=signatures).past == [Past(7, at)]
