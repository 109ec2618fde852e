"""Whose signatures count, by which key of the log and until when: each rule at its edge, in plain values."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from onbehalf.explain import tree
from onbehalf.explain.checkpoint import Checkpoint as Said
from onbehalf.explain.checkpoint import NoteSigner, write
from onbehalf.explain.cosignature import HeadSigner
from onbehalf.verifier import handovers
from onbehalf.verifier.cosign import ED25519, ML_DSA_44, WitnessKey, message, witness_key, witness_vkey
from onbehalf.verifier.handovers import Handover, Succession, followed
from onbehalf.verifier.note import Checkpoint, log_key
from onbehalf.verifier.policy import Policy, read_policy
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import KeySpan, Quorum, Report
from onbehalf.verifier.signers import Demanded, LogKeys, chosen, log_keys, look, require, without_own

ORIGIN = "gateway.example/log"
SIGNERS = [NoteSigner(ORIGIN, bytes([each]) * 32) for each in range(3)]
VKEYS = [each.verifier.vkey for each in SIGNERS]
KEYS = [LogKeys(key=log_key(each)) for each in VKEYS]
SECOND = [HeadSigner(ORIGIN, bytes([each]) * 32) for each in range(2)]
SECONDS = [witness_key(each.cosigner.vkey) for each in SECOND]
WITNESS = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
WITNESS_VKEY = witness_vkey("w.example", ED25519, WITNESS.public_key().public_bytes_raw())
ROOT = b"r" * 32


def signature(key: WitnessKey, secret: Ed25519PrivateKey, at: int, size: int = 7) -> tuple[str, bytes]:
    said = message(key, Checkpoint(size=size, root=ROOT, signatures=()), ORIGIN, at)
    return key.name, key.id + at.to_bytes(8, "big") + secret.sign(said)


def found(report: Report) -> list[tuple[str, str, str]]:
    return [(each.code, each.place, each.text) for each in report.findings]


# --- the keys of a log ---


def test_the_keys_of_a_log_are_one_line_or_two_of_one_name() -> None:
    second = SECOND[0].cosigner.vkey
    assert log_keys(f"\n{VKEYS[0]}\n \n") == KEYS[0]
    assert log_keys(f"{VKEYS[0]}\n{second}\n") == LogKeys(key=KEYS[0].key, also=SECONDS[0])
    for text, why in (
        ("", "no Ed25519 vkey"), (f"{VKEYS[0]}\n{second}\n{second}", "one or two lines"),
        (f"{VKEYS[0]}\n{witness_vkey(ORIGIN, ED25519, bytes(32))}", "no ML-DSA-44 vkey of the same name"),
        (f"{VKEYS[0]}\n{witness_vkey('other', ML_DSA_44, bytes(1312))}", "no ML-DSA-44 vkey of the same name"),
    ):  # fmt: skip
        with pytest.raises(Unusable, match=why):
            log_keys(text)


def policy(*logs: str, more: str = "") -> Policy:
    return read_policy("".join(f"log {each}\n" for each in logs).encode() + more.encode() + b"quorum none\n")


def test_a_log_is_checked_by_the_keys_given_else_by_the_policys_else_by_its_own() -> None:
    other = NoteSigner("other.example", b"o" * 32).verifier.vkey
    second = SECOND[0].cosigner.vkey
    for asked, expected, pinned in (
        (Demanded(), KEYS[0], False),
        (Demanded(log=KEYS[1]), KEYS[1], True),
        (Demanded(log=KEYS[1], policy=policy(VKEYS[2])), KEYS[1], True),
        (Demanded(policy=policy(other)), KEYS[0], False),
        (Demanded(policy=policy(VKEYS[1], VKEYS[2])), KEYS[1], True),
        (Demanded(policy=policy(VKEYS[1], VKEYS[0])), KEYS[0], True),
        (Demanded(policy=policy(second)), LogKeys(key=KEYS[0].key, also=SECONDS[0]), True),
        (Demanded(policy=policy(VKEYS[1], second)), LogKeys(key=KEYS[1].key, also=SECONDS[0]), True),
    ):
        report = Report()
        assert chosen(asked, KEYS[0], report) == expected
        assert (report.key, report.pinned) == (expected.key.text, pinned)


def test_the_newest_key_is_the_bundles_and_a_policy_that_lists_logs_lists_one_of_them() -> None:
    second, with_second = SECOND[0].cosigner.vkey, LogKeys(key=KEYS[0].key, also=SECONDS[0])
    elsewhere = NoteSigner("other.example", bytes([0]) * 32).verifier.vkey  # the same public key, another log
    unlisted = ("log_unlisted", "keys.json", "your policy lists logs, and this one is none of them")
    for given, keys, expected in (
        (None, KEYS, []), (policy(), KEYS, []), (policy(VKEYS[0]), KEYS, []), (policy(VKEYS[2]), KEYS, []),
        (policy(VKEYS[1]), KEYS[2:], [unlisted]), (policy(elsewhere), [KEYS[0], KEYS[2]], [unlisted]),
        (policy(second), [with_second, KEYS[2]], []), (policy(second), KEYS, [unlisted]),
        (policy(SECOND[1].cosigner.vkey), [with_second, KEYS[2]], [unlisted]),
    ):  # fmt: skip
        report = Report()
        require(Demanded(policy=given), KEYS[2], keys, report)
        assert found(report) == expected
    report = Report()
    require(Demanded(), KEYS[1], KEYS, report)
    assert found(report) == [("key_other", "keys.json", f"it brings the key {VKEYS[1]}, not the one you gave")]


def test_who_signed_the_newest_head_and_when_is_told_and_who_else_says_so_is_named() -> None:
    key = witness_key(WITNESS_VKEY)
    same_name = Ed25519PrivateKey.from_private_bytes(b"v" * 32)
    other = witness_key(witness_vkey("w.example", ED25519, same_name.public_key().public_bytes_raw()))
    signatures = (signature(key, WITNESS, 70), signature(other, same_name, 80), ("x.example", bytes(80)))
    end = Checkpoint(size=7, root=ROOT, signatures=signatures)
    report = Report()
    look(report, end, KEYS[0], Demanded())
    assert (report.others, report.witnesses, report.own_signature, report.quorum, report.findings) == (
        ("w.example", "w.example", "x.example"), {}, None, None, [],
    )  # fmt: skip
    asked = read_policy(f"witness w {WITNESS_VKEY}\nquorum w\n".encode())
    look(report, end, LogKeys(key=KEYS[0].key, also=SECONDS[0]), Demanded(witnesses=(key,), policy=asked))
    assert (report.others, report.witnesses) == (("w.example", "x.example"), {"w.example": 70})
    assert (report.own_signature, report.quorum) == (False, Quorum(name="w", met=True, cosigned={"w": 70}))
    report = Report()
    broken = ("w.example", key.id + bytes(72))
    look(report, Checkpoint(size=7, root=ROOT, signatures=(broken,)), KEYS[0], Demanded(witnesses=(key,), policy=asked))
    assert [code for code, _, _ in found(report)] == ["cosignature_invalid"] * 2
    assert (report.others, report.witnesses) == ((), {"w.example": None})
    assert report.quorum == Quorum(name="w", met=False, cosigned={})


def test_a_checkpoint_without_the_logs_second_signature_has_all_other_lines_as_they_are() -> None:
    own = f"— {ORIGIN} ".encode()
    kept = [b"text\n", b"\n", own + b"a" * 198 + b"\n", b"\xe2\x80\x94 w.example " + b"a" * 3000 + b"\n", b"end"]
    long = [own + b"a" * 199 + b"\n", own + b"a" * 3244 + b"\n"]
    assert without_own(b"".join([kept[0], long[0], *kept[1:4], long[1], kept[4]]), ORIGIN) == b"".join(kept)


# --- changes of the log's key ---


class Bundle:
    """The lines of one file, and how many bytes of a line were asked for."""

    def __init__(self, name: str, lines: Sequence[Any]) -> None:
        self.names = [name] if lines else []
        self._lines = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines]
        self.limit = 0

    def lines(self, name: str, *, limit: int) -> Sequence[bytes]:
        assert [name] == self.names
        self.limit = limit
        return self._lines


HASHES = [tree.leaf_hash(b"%d" % each) for each in range(9)]
SALT = "5" * 64


def change(
    index: int, before: int, after: int, keys: dict[str, Any] | None = None, /, **changed: Any
) -> dict[str, Any]:  # fmt: skip
    """The line of one change of keys that holds, or what was changed of it."""
    keys = {"before": [VKEYS[before]], "after": [VKEYS[after]], **(keys or {})}
    text = changed.pop("text", json.dumps(keys))
    message = b"onbehalf/leaf/v1/log_key\0" + text.encode()
    commitment = hmac.digest(bytes.fromhex(SALT), message, "sha256").hex()
    kind = changed.pop("kind", "key_change")
    leaf = f'{{"at":1,"call":"","facts":{{"log_key":"{commitment}"}},"id":"","kind":"{kind}","v":1}}'
    hashes = [*HASHES[:index], tree.leaf_hash(leaf.encode())]
    head = Said(origin=ORIGIN, size=index + 1, root=tree.root(hashes))
    note = write(head, SIGNERS[before]) + write(head, SIGNERS[after]).rpartition("\n\n")[2]
    for each in changed.pop("seconds", []):
        note += each.line(head, at=50)
    path = [each.hex() for each in tree.inclusion(index, hashes)]
    made = {"index": index, "json": text, "leaf": leaf, "note": note, "path": path, "proof": [], "salt": SALT}
    return {**made, **changed}


def follow(*lines: Any, given: LogKeys = KEYS[0]) -> tuple[Succession, list[str]]:
    report, bundle = Report(), Bundle("handovers.jsonl", lines)
    made: Any = bundle
    log = followed(made, given, report)
    assert bundle.limit == (1 << 18 if lines else 0)
    assert all(each[:2] == ("handover_invalid", "handovers.jsonl") for each in found(report))
    return log, [text for _, _, text in found(report)]


def test_changes_that_hold_are_followed_from_each_key_and_one_that_does_not_ends_it() -> None:
    for given in KEYS:
        log, problems = follow(change(0, 0, 1), change(4, 1, 2), given=given)
        assert (log.keys, problems, [each.index for each in log.changes]) == (tuple(KEYS), [], [0, 4])
    stranger = LogKeys(key=log_key(NoteSigner(ORIGIN, b"s" * 32).verifier.vkey))
    assert follow(change(0, 0, 1), given=stranger) == (Succession((stranger,)), [])
    assert follow() == (Succession((KEYS[0],)), [])
    second = "line 2: it does not follow the one before it"
    for later in (change(4, 1, 2), change(3, 1, 2), change(5, 0, 2)):
        assert follow(change(4, 0, 1), later) == (Succession((KEYS[0],)), [second])


def test_of_changes_a_thousand_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Checkpoint(size=1, root=ROOT, signatures=())

    def made(line: bytes, _: str) -> Handover:
        return Handover(index=int(line), before=KEYS[0], after=KEYS[0], head=head, proof=[])

    monkeypatch.setattr(handovers, "_handover", made)
    lines = [b"%d" % each for each in range(1001)]
    assert len(follow(*lines[:1000])[0].changes) == 1000
    assert follow(*lines)[1] == ["line 1001: there are more than any log has"]


PROOF = "a proof in it is no list of hashes"
TYPE = "a member of it is of another type"
NAMES = "it does not name one key or two"
OTHERS = "a key that it names is not this log's"
LAST = "its leaf is not the last one under the head that both keys signed"
UNCOMMITTED = "its leaf does not commit to this change of keys"
ML_VKEY = SECOND[0].cosigner.vkey


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"[]", "it has not the members of a key change"),
        (change(2, 0, 1, more=1), "it has not the members of a key change"),
        (change(2, 0, 1, path=[[]]), "nested deeper than 2"),
        (change(2, 0, 1, index=-1), TYPE), (change(2, 0, 1, index=1 << 53), TYPE), (change(2, 0, 1, index="2"), TYPE),
        (change(2, 0, 1, index=(1 << 53) - 1), LAST), (change(2, 0, 1, index=1), LAST),
        (change(2, 0, 1, path=[]), LAST),
        (change(2, 0, 1, note=7), TYPE), (change(2, 0, 1, kind="start"), UNCOMMITTED),
        (change(2, 0, 1, salt="4" * 64), UNCOMMITTED), (change(2, 0, 1, salt="4"), UNCOMMITTED),
        (change(2, 0, 1, proof=["0" * 63]), PROOF), (change(2, 0, 1, proof=[7]), PROOF),
        (change(2, 0, 1, proof=["0" * 64] * 129), PROOF), (change(2, 0, 1, path=["x"]), PROOF),
        (change(2, 0, 1, text="[]"), "it does not name keys before and after"),
        (change(2, 0, 1, {"more": []}), "it does not name keys before and after"),
        (change(2, 0, 1, {"before": [[]]}), "nested deeper than 2"),
        (change(2, 0, 1, {"before": {}}), NAMES), (change(2, 0, 1, {"after": []}), NAMES),
        (change(2, 0, 1, {"after": [VKEYS[1], ML_VKEY, ML_VKEY]}), NAMES),
        (change(2, 0, 1, {"after": [VKEYS[1], 7]}), NAMES),
        (change(2, 0, 1, {"after": [NoteSigner("other", b"o" * 32).verifier.vkey]}), OTHERS),
        (change(2, 0, 1, {"after": [VKEYS[1], witness_vkey(ORIGIN, ED25519, bytes(32))]}), OTHERS),
        (change(2, 0, 1, {"after": [VKEYS[1], witness_vkey("other", ML_DSA_44, bytes(1312))]}), OTHERS),
    ],
)  # fmt: skip
def test_a_line_that_is_no_change_of_keys_says_why(line: Any, problem: str) -> None:
    assert follow(line) == (Succession((KEYS[0],)), [f"line 1: {problem}"])


def test_a_change_may_have_a_proof_of_128_hashes_and_both_signatures_are_needed() -> None:
    assert follow(change(2, 0, 1, proof=["0" * 64] * 128))[1] == []
    lines = change(2, 0, 1)["note"].splitlines(keepends=True)
    for note in (lines[:-1], [*lines[:-2], lines[-1]]):
        assert len(follow(change(2, 0, 1, note="".join(note)))[1]) == 1


def test_from_two_keys_a_change_is_followed_only_where_both_second_keys_signed_it() -> None:
    two = {"before": [VKEYS[0], SECOND[0].cosigner.vkey], "after": [VKEYS[1], SECOND[1].cosigner.vkey]}
    both = [LogKeys(key=KEYS[each].key, also=SECONDS[each]) for each in range(2)]
    signed = change(2, 0, 1, two, seconds=SECOND)
    for given in both:
        assert follow(signed, given=given)[0].keys == tuple(both)
    log, problems = follow(signed)  # from one key the second keys say nothing
    assert (log.keys, problems) == (tuple(KEYS[:2]), [])
    other = LogKeys(key=KEYS[0].key, also=SECONDS[1])
    assert follow(signed, given=other) == (
        Succession((other,)), ["a change of the log's key names another second key than the one given"],
    )  # fmt: skip
    for seconds in (SECOND[:1], SECOND[1:], []):
        assert follow(change(2, 0, 1, two, seconds=seconds), given=both[0]) == (
            Succession((both[0],)), ["the change at leaf 2 is not signed by both second keys"],
        )  # fmt: skip


def test_a_head_is_checked_by_the_key_of_its_size_and_one_of_a_former_key_says_when_that_ended() -> None:
    log = follow(change(4, 0, 1), change(8, 1, 2))[0]

    def ended(size: int, signer: int) -> int | None:
        try:
            head, at = log.head(write(Said(origin=ORIGIN, size=size, root=ROOT), SIGNERS[signer]).encode())
        except ValueError:
            return None
        assert head.size == size
        return at

    assert {size: [ended(size, signer) for signer in range(3)] for size in (0, 4, 5, 6, 8, 9, 10)} == {
        0: [-1, None, None], 4: [-1, None, None], 5: [-1, -1, None], 6: [5, -1, None], 8: [5, -1, None],
        9: [5, -1, -1], 10: [5, 9, -1],
    }  # fmt: skip
    for note in (b"", b"x\nx\n", write(Said(origin=ORIGIN, size=6, root=ROOT), SIGNERS[1]).encode()[:-9]):
        with pytest.raises(ValueError, match=r"blank line|signature"):
            log.head(note)


def test_whose_heads_are_whose_is_told_and_a_change_of_another_history_is_found() -> None:
    report = Report()
    log = follow(change(4, 0, 1), change(8, 1, 2))[0]
    handovers.handed_over(log, log.changes[1].head, report)
    assert report.keys == [KeySpan(VKEYS[0], 0, 4), KeySpan(VKEYS[1], 5, 8), KeySpan(VKEYS[2], 9, None)]
    assert [(each.code, each.index) for each in report.findings] == [("handover_unproven", 4)]
