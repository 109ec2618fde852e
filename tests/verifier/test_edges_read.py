"""What a bundle brings is read up to its bounds and not one step beyond: JSON, manifest, keys, receipts, facts."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from onbehalf.backend.receipt import receipt_key
from onbehalf.verifier import leaves
from onbehalf.verifier.leaves import Intent, Leaf, Pairing, read_leaf
from onbehalf.verifier.manifest import read_manifest, read_proof
from onbehalf.verifier.opened import Opened, Reading, opened_lines, wanted
from onbehalf.verifier.receipts import Receipts, decoded, key_set, parts_of
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.strict import strict
from verifier.bundle_house import KEY

# --- JSON ---


def test_json_nests_as_deep_as_it_may_and_not_one_deeper() -> None:
    for text, depth in (("[[[]]]", 3), ('{"a":{"b":[1]}}', 3), ("[[],[],[],[[]]]", 3), ('[{"a":{}},{},{},{}]', 3)):
        strict(text, depth=depth)
    for text in ("[[[[]]]]", '{"a":{"a":{"a":{}}}}', "[[],[],[],[[[]]]]", '[{},{},{"a":[{}]}]', '[[{"a":[]}],[]]'):
        with pytest.raises(ValueError, match="deeper than 3"):
            strict(text, depth=3)


def test_json_that_python_itself_cannot_nest_is_said_to_be_too_deep() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        strict("[" * 200_000 + "]" * 200_000, depth=10**9)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"too large|no JSON"):
        strict(text, depth=1)


# --- manifest and proof ---


def manifest(**changed: Any) -> bytes:
    said = {
        "format": "onbehalf-evidence-v1", "origin": "log.example", "size": 9, "range": {"from": 2, "to": 7},
        "asked": {"from": "a"}, "opened": {"whole": True, "erased": 3}, "summary": {"x": 1},
        "files": {"checkpoint": {"sha256": "ab", "bytes": 5}},
    }  # fmt: skip
    return json.dumps({**said, **changed}).encode()


def test_a_manifest_is_read_whole() -> None:
    read = read_manifest(manifest())
    assert (read.origin, read.size, read.start, read.end) == ("log.example", 9, 2, 7)
    assert (read.asked, read.whole, read.erased, read.summary) == ({"from": "a"}, True, 3, {"x": 1})
    assert read.files == {"checkpoint": ("ab", 5)}


@pytest.mark.parametrize(
    ("start", "end", "size", "holds"),
    [
        (0, 0, 0, True), (0, 9, 9, True), (9, 9, 9, True), (0, 2**53 - 1, 2**53 - 1, True), (0, 1, 2**53, False),
        (-1, 2, 9, False), (3, 2, 9, False), (0, 10, 9, False), (True, 2, 9, False), (0, 2.0, 9, False),
        (0, "2", 9, False), (0, 2, None, False),
    ],
)  # fmt: skip
def test_a_range_lies_within_its_log(start: Any, end: Any, size: Any, holds: bool) -> None:
    data = manifest(range={"from": start, "to": end}, size=size)
    if holds:
        assert (read_manifest(data).start, read_manifest(data).end, read_manifest(data).size) == (start, end, size)
    else:
        with pytest.raises(Unusable, match="its range is none"):
            read_manifest(data)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"format": "onbehalf-evidence-v2"}, "format"), ({"origin": 1}, "asked for"),
        ({"asked": {"a": 1}}, "asked for"),
        ({"opened": {"whole": 1, "erased": 0}}, "opened is malformed"), ({"size": None}, "range"),
        ({"opened": {"whole": True, "erased": True}}, "opened is malformed"), ({"opened": {}}, "'whole' is missing"),
        ({"files": []}, "manifest.json"), ({"files": {"x": {}}}, "is missing"), ({"range": []}, "manifest.json"),
        ({"asked": []}, "manifest.json"),
    ],
)  # fmt: skip
def test_a_manifest_of_another_shape_is_none(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(Unusable, match=why):
        read_manifest(manifest(**changed))
    with pytest.raises(Unusable, match="format"):
        read_manifest(b"[]")


def test_a_manifest_nests_8_deep_and_not_9() -> None:
    for depth in (7, 8):  # within the object itself
        data = manifest(summary=json.loads("[" * depth + "]" * depth))
        if depth == 7:
            read_manifest(data)
        else:
            with pytest.raises(Unusable, match="deeper than 8"):
                read_manifest(data)


def test_a_proof_has_three_lists_of_at_most_128_hashes() -> None:
    hash_ = "ab" * 32
    read = read_proof(json.dumps({"left": [hash_] * 128, "right": [], "start": ["cd" * 32]}).encode())
    assert (len(read.left), read.right, read.start) == (128, [], [b"\xcd" * 32])
    for bad in (
        {"left": [hash_] * 129}, {"right": {}}, {"start": [1]}, {"left": [hash_[1:]]}, {"left": [hash_.upper()]},
        {"left": [hash_ + "a"]}, {"more": []},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"`|three parts"):
            read_proof(json.dumps({"left": [], "right": [], "start": [], **bad}).encode())
    for none in (b"[]", b'{"left":[],"right":[]}'):
        with pytest.raises(ValueError, match="three parts"):
            read_proof(none)
    with pytest.raises(ValueError, match="deeper"):
        read_proof(b'{"left":[[]],"right":[],"start":[]}')


# --- keys and receipts ---

CALL = "call_1"
LEAF = Leaf(kind="outcome", call=CALL, at=1010, of=4, names=(), commitments=[])
SECRET = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
KEYS = key_set({"keys": [KEY.public]})
SAID = {"iss": "desk", "txn": CALL, "call_token": f"{CALL}.4", "iat": 1005}


def part(said: Any) -> str:
    import base64

    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def receipt(head: Any = None, said: Any = None, *, name: str = KEY.id) -> str:
    head = {"typ": "onbehalf-receipt+jwt", "alg": "EdDSA", "kid": name} if head is None else head
    text = f"{part(head)}.{part(SAID if said is None else said)}"
    return f"{text}.{part(SECRET.sign(text.encode()))}"


def test_a_receipt_that_is_written_out_here_is_taken() -> None:
    assert KEYS[KEY.id] == SECRET.public_key().public_bytes_raw()
    assert Receipts(KEYS).problem(receipt(), LEAF, None) == ""
    assert Receipts(KEYS).problem("a.b", LEAF, None) == "it is no compact JWS"


@pytest.mark.parametrize("name", ["typ", "alg", "kid"])
def test_a_header_of_another_kind_is_that_of_no_receipt(name: str) -> None:
    head = {"typ": "onbehalf-receipt+jwt", "alg": "EdDSA", "kid": KEY.id}
    for bad in ({**head, "x": 1}, {each: head[each] for each in head if each != name}, [head]):
        assert "header" in Receipts(KEYS).problem(receipt(bad), LEAF, None)
    if name != "kid":
        assert "header" in Receipts(KEYS).problem(receipt({**head, name: "other"}), LEAF, None)
    else:
        for kid in ("other", 1, None, [KEY.id]):
            assert "not in keys.json" in Receipts(KEYS).problem(receipt({**head, "kid": kid}), LEAF, None)


def test_a_receipt_whose_parts_are_no_strict_json_is_refused() -> None:
    assert "header" in Receipts(KEYS).problem(receipt(said=[SAID]), LEAF, None)
    for said in (b"{", b'{"a":1,"a":1}', {"x": [[[[]]]]}):
        assert "strict JSON" in Receipts(KEYS).problem(receipt(said=said), LEAF, None)
    assert Receipts(KEYS).problem(receipt(said={**SAID, "x": [[[]]]}), LEAF, None) == ""
    head = {"typ": "onbehalf-receipt+jwt", "alg": "EdDSA", "kid": [[[]]]}
    assert "not in keys.json" in Receipts(KEYS).problem(receipt(head), LEAF, None)
    assert "strict JSON" in Receipts(KEYS).problem(receipt({**head, "kid": [[[[]]]]}), LEAF, None)


def test_a_receipt_has_at_most_4096_letters() -> None:
    head = json.dumps({"typ": "onbehalf-receipt+jwt", "alg": "EdDSA", "kid": KEY.id}).encode()
    made = {
        len(text): text
        for blanks in range(3)
        for count in range(2700, 2900)
        if (text := receipt(head + b" " * blanks, {**SAID, "x": "a" * count}))
    }
    assert Receipts(KEYS).problem(made[4096], LEAF, None) == ""
    assert "no compact JWS" in Receipts(KEYS).problem(made[4097], LEAF, None)


def test_a_key_that_was_not_in_force_signs_nothing() -> None:
    held = Receipts(KEYS)
    x = KEY.public["x"]
    in_force: list[tuple[Any, bool]] = [
        ({"receipts": {"desk": {KEY.id: x}}}, True), ({"receipts": {"desk": {}}}, False), (None, True),
        ({"receipts": {"desk": {KEY.id: "other"}}}, False), ({"receipts": []}, True), ({"receipts": {}}, False),
        ({"receipts": {"a": [], "desk": {KEY.id: x, "y": 1}}}, True), ({"receipts": {"desk": {KEY.id: 1}}}, False),
    ]  # fmt: skip
    for said, holds in in_force:
        held.in_force(said)
        assert (held.problem(receipt(), LEAF, None) == "") is holds, said


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"iss": 1}, "two backends"), ({"txn": "x"}, "another call"), ({"call_token": f"{CALL}.5"}, "another call"),
        ({"iat": 994}, "between"), ({"iat": 1016}, "between"), ({"iat": 1005.0}, "between"), ({"iat": True}, "between"),
        ({"iat": 995}, ""), ({"iat": 1015}, ""), ({"tool": "x"}, "other tool"), ({"arguments": "x"}, "other arguments"),
    ],
)  # fmt: skip
def test_a_receipt_is_about_its_intent(changed: dict[str, Any], why: str) -> None:
    intent = Intent(CALL, 1000, b"", {"tool": "t", "arguments": "a"})
    found = Receipts(KEYS).problem(receipt(said={**SAID, "tool": "t", "arguments": "a", **changed}), LEAF, intent)
    assert (why in found) if why else found == ""
    assert Receipts(KEYS).problem(receipt(), LEAF, Intent(CALL, 1000, b"")) == ""


def test_a_key_set_has_at_most_1000_keys_and_lets_other_kinds_be() -> None:
    other = {"kty": "EC", "crv": "P-256"}
    assert key_set({"keys": [other] * 999 + [KEY.public]}) == KEYS
    with pytest.raises(ValueError, match="JWK Set"):
        key_set({"keys": [other] * 1000 + [KEY.public]})
    for each in ("x", {**KEY.public, "crv": "X25519"}, {**KEY.public, "kty": "RSA"}):
        assert key_set({"keys": [each, KEY.public]}) == KEYS
    for bad in ({"x": 1}, {"x": "AAAA"}, {"kid": None}, {"x": KEY.public["x"] + "A"}):
        with pytest.raises(ValueError, match="malformed"):
            key_set({"keys": [{**KEY.public, **bad}]}, thumbprints=False)
    with pytest.raises(ValueError, match="thumbprint"):
        key_set({"keys": [{**KEY.public, "kid": receipt_key(b"o" * 32).id}]})


def test_parts_and_bytes_of_a_jws_have_one_spelling() -> None:
    assert parts_of("a.b-_.C9") == ["a", "b-_", "C9"]
    for bad in ("a.b", "a.b.c.d", "a..c", "a.b.c=", "a.b.c\n", "a.b.+"):
        with pytest.raises(ValueError, match="compact JWS"):
            parts_of(bad)
    assert (decoded("AQ"), decoded("AQI"), decoded("-_8"), decoded("")) == (b"\1", b"\1\2", b"\xfb\xff", b"")
    assert (decoded("AAAX"), decoded("XX8")) == (b"\0\0\x17", b"]\x7f")
    for bad in ("AR", "AQ==", "A", "AQ=", "A*Q", "+/8"):
        assert decoded(bad) == b""


# --- leaves ---


def leaf(kind: str, *, call: str = "c", of: int = -1, names: tuple[str, ...] = ()) -> Leaf:
    return Leaf(kind, call, 5, of, names, [b"ab" * 32 for _ in names])


def test_an_intent_waits_for_one_outcome_of_its_own_call() -> None:
    pairs = Pairing(start=10)
    assert pairs.take(10, leaf("intent"), b"h") is None
    assert pairs.open == {10: Intent("c", 5, b"h")}
    for of in (11, -1):
        with pytest.raises(ValueError, match="no intent before it"):
            pairs.take(11, leaf("outcome", of=of), b"")
    assert pairs.before == 0
    for of in (0, 9):
        assert pairs.take(12, leaf("outcome", of=of), b"") is None
    assert pairs.before == 2
    assert pairs.take(13, leaf("denial"), b"") is None
    assert pairs.take(14, leaf("unknown", of=10), b"") == Intent("c", 5, b"h")
    assert (pairs.unknown, pairs.open) == ([10], {})
    with pytest.raises(ValueError, match="no intent before it"):
        pairs.take(15, leaf("outcome", of=10), b"")
    pairs.take(16, leaf("intent"), b"h")
    with pytest.raises(ValueError, match="another call"):
        pairs.take(17, leaf("outcome", call="d", of=16), b"")
    assert pairs.unknown == [10]


def test_more_open_calls_than_any_log_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "_MAX_OPEN", 2)
    monkeypatch.setattr(leaves, "_LISTED", 2)
    pairs = Pairing(start=0)
    for index in range(2):
        pairs.take(index, leaf("intent"), b"")
    with pytest.raises(Unusable, match="without outcome"):
        pairs.take(2, leaf("intent"), b"")
    pairs = Pairing(start=9)
    for index in range(3):
        pairs.take(9 + index, leaf("unknown", of=index), b"")
    assert pairs.unknown == [0, 1]


def test_a_leaf_is_read_whole() -> None:
    hex_, other = b"ab" * 32, b"cd" * 32
    head = b'{"at":7,"call":"c","ch":"0123456789abcdef","facts":'
    read = read_leaf(head + b'{"a":"%b","b_1":"%b"},"id":"i","kind":"intent","n":3,"v":1}' % (hex_, other))
    assert read == Leaf("intent", "c", 7, -1, ("a", "b_1"), [hex_, other], "0123456789abcdef", 3)
    assert (read.commitment("b_1"), read.commitment("x")) == (other, None)
    assert read.facts == {"a": "ab" * 32, "b_1": "cd" * 32}
    assert read_leaf(b'{"at":0,"call":"","facts":{},"id":"","kind":"stop","v":1}') == Leaf("stop", "", 0, -1, (), [])
    assert read_leaf(b'{"at":0,"call":"","facts":{},"id":"","kind":"outcome","of":0,"v":1}').of == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"at":7,"call":"c","ch":"0123456789abcdef","facts":{},"id":"i","kind":"outcome","n":3,"v":1}',
        b'{"at":7,"call":"c","facts":{},"id":"i","kind":"intent","n":3,"v":1}',
        b'{"at":7,"call":"c","ch":"0123456789abcdef","facts":{},"id":"i","kind":"intent","v":1}',
        b'{"at":7,"call":"c","facts":{"a":"%b"},"id":"i","kind":"x","v":1}' % (b"A" * 64),
        b'{"at":7,"call":"c","facts":{"a":"%b"},"id":"i","kind":"x","v":1}' % (b"X" * 64),
        b'{"at":7,"call":"c","facts":{"a":"%b"},"id":"i","kind":"x","v":1}' % (b"a" * 63),
        b'{"at":7,"call":"c","facts":{"a":"%b"},"id":"i","kind":"x","v":1}' % (b"a" * 65),
        b'{"at":7,"call":"c","facts":{"a":"%b","a":"%b"},"id":"i","kind":"x","v":1}' % (b"a" * 64, b"a" * 64),
        b'{"at":7,"call":"c","facts":{"b":"%b","a":"%b"},"id":"i","kind":"x","v":1}' % (b"a" * 64, b"a" * 64),
        b'{"at":7,"call":"c","facts":{"A":"%b"},"id":"i","kind":"x","v":1}' % (b"a" * 64),
        b'{"at":7,"call":"c","facts":{"a": "%b"},"id":"i","kind":"x","v":1}' % (b"a" * 64),
        b'{"at":7,"call":"c","facts":{"a":"%b",},"id":"i","kind":"x","v":1}' % (b"a" * 64),
        b'{"at":07,"call":"c","facts":{},"id":"i","kind":"x","v":1}', b"", b'{"at":7,"call":"c","facts":{',
        b'{"at":7,"call":"c","facts":{},"id":"i","kind":"x","v":1}\n',
    ],
    ids=range(16),
)  # fmt: skip
def test_what_differs_in_one_place_is_no_leaf(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"its facts|no leaf|belong together"):
        read_leaf(line)


# --- opened facts ---


def lines(*said: Any) -> Iterator[bytes]:
    return iter([json.dumps(each).encode() for each in said])


def fact(index: Any, name: str = "a", **more: Any) -> dict[str, Any]:
    return {"index": index, "fact": name, "json": "1", "salt": "s", **more}


def test_lines_about_one_leaf_are_taken_together_and_come_in_order() -> None:
    found = [*opened_lines(lines(fact(0), fact(0, "b"), {"index": 3, "erased": True, "by": 4}, fact(5)))]
    assert found == [
        Opened(index=0, facts={"a": ("1", "s"), "b": ("1", "s")}), Opened(index=3, erased=True, by=4),
        Opened(index=5, facts={"a": ("1", "s")}),
    ]  # fmt: skip
    assert [*opened_lines(lines({"index": 3, "erased": True}))] == [Opened(index=3, erased=True, by=-1)]
    assert [*opened_lines(lines())] == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ((fact(5), fact(4)), "line 2: leaf 4 comes after leaf 5"), ((fact(5), fact(5)), "line 2: leaf 5 says two"),
        ((fact(5), {"index": 5, "erased": True}), "line 2: leaf 5 says two"),
        (({"index": 5, "erased": True}, fact(5)), "line 2: leaf 5 says two"),
        (({"index": 5, "erased": True}, {"index": 5, "erased": True}), "line 2: leaf 5 says two"),
        ((fact(-1),), "line 1: it names no leaf"), ((fact(True),), "no leaf"), ((fact("1"),), "no leaf"),
        (([1],), "no leaf"), ((fact(0), fact(1, more=1)), "line 2: it is no opened fact"),
        ((fact(0, json=1),), "no opened fact"), (({"index": 0, "erased": False},), "no opened fact"),
        (({"index": 4, "erased": True, "by": 4},), "no later leaf"), ((fact(0, json=[[1]]),), "line 1: nested"),
        (({"index": 4, "erased": True, "by": -1},), "no later leaf"),
        (({"index": 4, "erased": True, "by": "5"},), "no later leaf"), ((fact(0, by=1),), "no opened fact"),
    ],
    ids=range(17),
)  # fmt: skip
def test_lines_that_say_two_things_or_none_are_refused_by_their_number(said: tuple[Any, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        [*opened_lines(lines(*said))]


SALT = "5a" * 32


def committed(**texts: str) -> tuple[Leaf, Opened]:
    """A leaf, and its facts opened, by the rule written out."""
    made = [
        hmac.new(bytes.fromhex(SALT), b"onbehalf/leaf/v1/" + name.encode() + b"\0" + text.encode(), hashlib.sha256)
        for name, text in texts.items()
    ]
    leaf_ = Leaf("outcome", "c", 5, 4, tuple(texts), [each.hexdigest().encode() for each in made])
    return leaf_, Opened(index=9, facts={name: (text, SALT) for name, text in texts.items()})


def taken(leaf_: Leaf, opened: Opened, intent: Intent | None = None) -> tuple[Reading, list[str]]:
    reading = Reading(Receipts(KEYS))
    return reading, [*reading.take(leaf_, opened, intent)]


def test_facts_that_their_leaf_commits_to_are_counted_and_others_are_not() -> None:
    leaf_, opened = committed(a="1", b='{"x":2}')
    reading, problems = taken(leaf_, opened)
    assert (problems, reading.facts, reading.said) == ([], 2, {"a": 1, "b": {"x": 2}})
    for changed, why in (
        (("2", SALT), "value or salt"), (("1", "5b" * 32), "value or salt"), (("1", SALT[1:]), "salt is malformed"),
        (("1", SALT + "a"), "salt is malformed"), (("\ud800", SALT), "half a character"),
    ):  # fmt: skip
        reading, problems = taken(leaf_, Opened(index=9, facts={**opened.facts, "a": changed}))
        assert len(problems) == 1
        assert why in problems[0]
        assert (reading.facts, reading.said) == (1, {"b": {"x": 2}})
    assert "no such fact" in taken(leaf_, Opened(index=9, facts={"z": ("1", SALT)}))[1][0]


def test_a_fact_nests_256_deep_and_not_257() -> None:
    leaf_, opened = committed(a="[" * 256 + "]" * 256)
    assert taken(leaf_, opened)[1] == []
    leaf_, opened = committed(a="[" * 257 + "]" * 257)
    reading, problems = taken(leaf_, opened)
    assert "no JSON of one meaning" in problems[0]
    assert reading.said == {}


def test_arguments_and_intent_are_held_against_what_stands_beside_them() -> None:
    digest = "sha256:" + hashlib.sha256(b'{"x":1}').hexdigest()
    assert taken(*committed(arguments='{"x":1}', arguments_digest=json.dumps(digest)))[1] == []
    assert taken(*committed(arguments='{"x":1}'))[1] == []
    assert "digest" in taken(*committed(arguments='{"x":2}', arguments_digest=json.dumps(digest)))[1][0]
    intent = Intent("c", 1, b"\1" * 32)
    good = {"index": 4, "leaf": "sha256:" + "01" * 32}
    assert taken(*committed(intent=json.dumps(good)), intent)[1] == []
    assert taken(*committed(intent=json.dumps({"index": 4})), None)[1] == []
    for bad in ({**good, "index": 5}, {**good, "leaf": "sha256:" + "02" * 32}, [], {}):
        assert "another intent" in taken(*committed(intent=json.dumps(bad)), intent)[1][0], bad
    leaf_, opened = committed(intent=json.dumps({**good, "index": 5}))
    assert taken(leaf_._replace(kind="unknown"), opened, intent)[1] != []
    assert taken(leaf_._replace(kind="intent"), opened, intent)[1] == []


def test_a_receipt_that_holds_is_counted_and_one_that_does_not_is_said() -> None:
    leaf_, opened = committed(backend_receipt=json.dumps(receipt()))
    about = leaf_._replace(call=CALL, at=1010)
    reading, problems = taken(about, opened)
    assert (problems, reading.signed) == ([], 1)
    reading, problems = taken(about._replace(call="other"), opened)
    assert (problems, reading.signed) == (["the backend's receipt: it is of another call or sending"], 0)


def test_keys_are_in_force_from_the_leaf_that_says_so_until_one_that_is_not_opened() -> None:
    leaf_, opened = committed(key_set=json.dumps({"receipts": {"desk": {}}}))
    for kind, ends in (("start", True), ("key_change", True), ("outcome", False)):
        reading = Reading(Receipts(KEYS))
        assert [*reading.take(leaf_._replace(kind=kind), opened, None)] == []
        assert (reading.receipts.problem(receipt(), LEAF, None) != "") is ends, kind
        reading.begin(leaf_._replace(kind="start", names=()))
        assert (reading.receipts.problem(receipt(), LEAF, None) != "") is ends
        reading.begin(leaf_._replace(kind="outcome"))
        assert (reading.receipts.problem(receipt(), LEAF, None) != "") is ends
        reading.begin(leaf_._replace(kind="start"))
        assert reading.receipts.problem(receipt(), LEAF, None) == ""


def test_policies_that_decisions_name_are_kept() -> None:
    for text, kept in (('{"policy":"sha256:1"}', {"sha256:1"}), ('{"policy":1}', set()), ("[]", set())):
        reading, problems = taken(*committed(decision=text))
        assert (problems, reading.policies) == ([], kept)


def test_ten_thousand_policies_are_kept() -> None:
    reading = Reading(Receipts(KEYS), policies={f"sha256:x{number}" for number in range(9999)})
    for number in range(2):
        leaf_, opened = committed(decision=json.dumps({"policy": f"sha256:{number}"}))
        assert [*reading.take(leaf_, opened, None)] == []
    assert len(reading.policies) == 10_000
    assert "sha256:1" not in reading.policies


def test_an_erased_leaf_and_what_tells_of_it_are_noted() -> None:
    reading, problems = taken(leaf("x"), Opened(index=2, erased=True, by=9))
    assert problems == []
    leaf_, opened = committed(erasure='{"count":1,"first":2,"last":2}')
    assert [*reading.take(leaf_._replace(kind="erased"), opened, None)] == []
    reading.erasures.leaf(9, 77)
    [said] = reading.erasures.as_json()
    assert (said["leaf"], said["here"], said["at"]) == (9, 1, 77)
    assert isinstance(said["scope"], dict)
    other, _ = taken(leaf_, opened)
    other.erasures.leaf(9, 77)
    assert other.erasures.as_json()[0]["scope"] is None


def test_what_a_receipt_is_held_against_is_bounded() -> None:
    said = {"tool": json.dumps({"remote": "r" * 1001}), "arguments_digest": json.dumps("d" * 101)}
    assert wanted(said, {}) == {"tool": "r" * 1000, "arguments": "d" * 100}
    assert wanted({"tool": "[]", "arguments_digest": "1"}, {}) == {}
    assert wanted({"tool": '{"remote":1}'}, {}) == wanted({}, {}) == {}
