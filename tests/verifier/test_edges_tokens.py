"""One call token held against one intent: each claim that differs is named, each bound holds, and all is counted."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from onbehalf.backend.receipt import receipt_key
from onbehalf.verifier import tokens as reading
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.tokens import CallTokens

KEY, OTHER = receipt_key(b"g" * 32), receipt_key(b"o" * 32)
JWKS = {"keys": [KEY.public]}
HASH = b"h" * 32
CALL = "call_1"
HEAD = {"typ": "txntoken+jwt", "alg": "EdDSA", "kid": KEY.id}
NONE = dict.fromkeys(("given", "matched", "off_record", "invalid", "repeated", "outside"), 0)
INTENT = Leaf("intent", CALL, 100, -1, (), [])
FURTHER = Leaf("further", CALL, 100, -1, (), [])
FACTS: dict[str, Any] = {
    "tool": {"remote": "write", "action": "write_desk"}, "arguments_digest": "sha256:a", "person": {"id": "acme/alice"},
    "caller": {"tenant": "acme", "client": "app", "subject": "alice", "issuer": "https://login"},
    "decision": {"resource": {"type": "Tool", "id": "desk"}},
}  # fmt: skip
TOLD: dict[str, Any] = {
    "audience": "https://desk", "tool": "write", "arguments": "sha256:a", "subject": "acme/alice",
    "scope": "write_desk",
}  # fmt: skip


def claims(index: int = 4, **changed: Any) -> dict[str, Any]:
    """What a gateway says of the sending of intent `index`. A name with `__` changes a member of a member."""
    said: dict[str, Any] = {
        "txn": CALL, "jti": f"{CALL}.{index}", "iat": 100, "aud": "https://desk", "sub": "acme/alice",
        "scope": "write_desk", "rctx": {"client": "app", "subject": "alice", "issuer": "https://login"},
        "tctx": {
            "tool": "write", "action": "write_desk", "arguments": "sha256:a", "tenant": "acme",
            "resource": {"type": "Tool", "id": "desk"}, "record": {"index": index, "leaf": f"sha256:{HASH.hex()}"},
        },
    }  # fmt: skip
    for path, value in changed.items():
        *parents, last = path.split("__")
        at = said
        for each in parents:
            at = at[each]
        at[last] = value
    return said


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(said: Any, head: Any = HEAD, key: Any = KEY) -> str:
    text = f"{part(head)}.{part(said)}"
    return f"{text}.{part(bytes(key.secret.sign(text.encode()).signature))}"


def read(place: Path, *lines: str, jwks: object = JWKS, span: tuple[int, int] = (0, 9)) -> tuple[CallTokens, list[Any]]:
    (place / "kept").write_text("".join(f"{each}\n" for each in lines))
    made = CallTokens(place / "kept")
    return made, [*made.read(jwks, *span)]


def counted(made: CallTokens) -> dict[str, int]:
    assert made.counts.keys() == NONE.keys()
    return {name: count for name, count in made.counts.items() if count}


def taken(
    place: Path, said: Any, leaf: Leaf = INTENT, facts: Any = FACTS
) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """What is found of a token of leaf 4, and what was counted."""
    made, found = read(place, signed(said))
    assert found == []
    return [*made.take(4, leaf, HASH, facts)], counted(made)


def test_a_token_is_of_its_intent_whatever_of_it_is_opened(tmp_path: Path) -> None:
    for facts in (FACTS, {}, *({name: value} for name, value in FACTS.items())):
        assert taken(tmp_path, claims(), facts=facts) == ([], {"given": 1, "matched": 1})
    service = {**FACTS, "service": {"id": "acme/job"}}
    del service["person"]
    assert taken(tmp_path, claims(sub="service:acme/job"), facts=service)[0] == []
    for facts in (TOLD, {}):
        assert taken(tmp_path, claims(), FURTHER, facts) == ([], {"given": 1, "matched": 1})
    assert taken(tmp_path, claims(), FURTHER, {**TOLD, "tool": "write"})[0] == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tctx__tool": "x"}, "tool"), ({"tctx__action": "x"}, "action"), ({"scope": "x"}, "scope"),
        ({"tctx__arguments": "x"}, "arguments"), ({"sub": "x"}, "person"), ({"tctx__tenant": "x"}, "tenant"),
        ({"rctx__client": "x"}, "client"), ({"rctx__subject": "x"}, "subject"), ({"rctx__issuer": "x"}, "issuer"),
        ({"tctx__resource": {"type": "Tool", "id": "x"}}, "resource"),
        ({"tctx__tool": "x", "sub": "y"}, "tool, another person"),
    ],
)  # fmt: skip
def test_each_claim_is_held_against_the_opened_facts(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    found, counts = taken(tmp_path, claims(**change))
    assert found == [("token_differs", f"line 1: it says another {what} than its intent")]
    assert counts == {"given": 1, "matched": 1}
    assert taken(tmp_path, claims(**change), facts={})[0] == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"aud": "x"}, "audience"), ({"tctx__tool": "x"}, "tool"), ({"tctx__arguments": "x"}, "arguments"),
        ({"sub": "x"}, "subject"), ({"scope": "x"}, "scope"),
    ],
)  # fmt: skip
def test_a_call_further_is_held_against_its_own_facts(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    found = [("token_differs", f"line 1: it says another {what} than its intent")]
    assert taken(tmp_path, claims(**change), FURTHER, TOLD)[0] == found
    assert taken(tmp_path, claims(aud="x"), INTENT)[0] == []


def test_a_service_is_named_as_one(tmp_path: Path) -> None:
    facts = {"service": {"id": "acme/alice"}}
    found = [("token_differs", "line 1: it says another service than its intent")]
    assert taken(tmp_path, claims(), facts=facts)[0] == found


@pytest.mark.parametrize("change", [{"tctx": 7}, {"tctx__record": None}, {"tctx": {}}, {"tctx__record__leaf": 7}])
def test_a_token_that_names_no_leaf_is_invalid(tmp_path: Path, change: dict[str, Any]) -> None:
    made, ((code, _),) = read(tmp_path, signed(claims(**change)))
    assert (code, counted(made)) == ("token_invalid", {"given": 1, "invalid": 1})


@pytest.mark.parametrize("index", ["4", 4.0, True, None])
def test_a_leaf_is_named_by_a_whole_number(tmp_path: Path, index: Any) -> None:
    assert read(tmp_path, signed(claims(tctx__record__index=index)))[1] == [
        ("token_invalid", "line 1: it names no leaf")
    ]


def test_a_token_that_lacks_what_it_must_say_differs(tmp_path: Path) -> None:
    lacking = [("token_differs", "line 1: it lacks what a call token says")]
    for change in ({"rctx": None}, {"rctx": {}}):
        assert taken(tmp_path, claims(**change))[0] == lacking
    said = claims()
    del said["rctx"]
    assert taken(tmp_path, said)[0] == lacking
    assert read(tmp_path, signed({}))[1] == [("token_invalid", "line 1: it lacks a claim")]


@pytest.mark.parametrize(
    ("change", "leaf", "problem"),
    [
        ({}, Leaf("denial", CALL, 100, -1, (), []), "it names leaf 4, which is no intent"),
        ({"tctx__record__leaf": "sha256:"}, INTENT, "it names another leaf 4 than this record has"),
        ({"txn": "x"}, INTENT, "it is of another call or sending than its intent"),
        ({"jti": f"{CALL}.5"}, INTENT, "it is of another call or sending than its intent"),
        ({"jti": "x", "txn": "x"}, INTENT, "it is of another call or sending than its intent"),
        ({"iat": 94}, INTENT, "it was made before its intent"),
        ({"iat": True}, INTENT, "it was made before its intent"),
        ({"iat": "100"}, INTENT, "it was made before its intent"),
    ],
)  # fmt: skip
def test_a_token_that_is_of_no_intent_is_off_the_record(
    tmp_path: Path, change: dict[str, Any], leaf: Leaf, problem: str
) -> None:
    found, counts = taken(tmp_path, claims(**change), leaf)
    assert found == [("token_off_record", f"line 1: {problem}")]
    assert counts == {"given": 1, "off_record": 1}


def test_clocks_may_differ_by_five_seconds(tmp_path: Path) -> None:
    for at in (95, 100, 10_000):
        assert taken(tmp_path, claims(iat=at))[0] == []


def test_what_is_no_token_of_the_gateway_is_invalid_and_says_why(tmp_path: Path) -> None:
    good = signed(claims())
    head, body, signature = good.split(".")
    header, key = "its header is not that of a call token", "its key is not in keys.json"
    for line, problem in (
        (signed(claims(), {**HEAD, "typ": "at+jwt"}), header), (signed(claims(), {**HEAD, "alg": "none"}), header),
        (signed(claims(), {**HEAD, "crit": []}), header), (signed(claims(), [HEAD]), header),
        (signed(claims(), {**HEAD, "kid": 7}), key), (signed(claims(), {**HEAD, "kid": OTHER.id}, OTHER), key),
        (signed(claims(), key=OTHER), "its signature does not verify"),
        (f"{head}.{part(claims(aud='x'))}.{signature}", "its signature does not verify"),
        (f"{head}.{body}", "it is no compact JWS"),
    ):  # fmt: skip
        made, found = read(tmp_path, line)
        assert (found, counted(made)) == ([("token_invalid", f"line 1: {problem}")], {"given": 1, "invalid": 1})
    for jwks in (None, {"keys": 1}, {"keys": [{**KEY.public, "kid": "x"}]}):
        assert read(tmp_path, good, jwks=jwks)[1] == [("token_invalid", f"line 1: {key}")]
    assert read(tmp_path, signed(claims(), {**HEAD, "more": 1}))[1] == []


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_header_and_claims_are_read_to_a_depth_of_8(tmp_path: Path) -> None:
    for depth, codes in ((7, []), (8, ["token_invalid"])):
        for line in (signed(claims(), {**HEAD, "x": nested(depth)}), signed(claims(x=nested(depth)))):
            assert [code for code, _ in read(tmp_path, line)[1]] == codes


def test_tokens_of_leaves_outside_of_the_range_and_the_same_ones_again_are_counted_apart(tmp_path: Path) -> None:
    lines = [signed(claims(index)) for index in (3, 4, 8, 9, 4, 4)]
    made, found = read(tmp_path, "bad", "", *lines, span=(4, 9))
    assert found == [("token_invalid", "line 1: it is no compact JWS")]
    assert [*made.take(3, INTENT, HASH, FACTS)] == []
    assert [*made.take(4, INTENT, HASH, FACTS)] == []
    assert [*made.take(8, INTENT, HASH, {})] == []
    assert counted(made) == {"given": 7, "invalid": 1, "outside": 2, "repeated": 2, "matched": 2}
    assert [*made.take(4, INTENT, HASH, FACTS)] == []
    assert counted(made)["matched"] == 2


def test_different_tokens_of_one_sending_are_named_by_their_lines_up_to_five(tmp_path: Path) -> None:
    lines = [signed(claims(exp=each)) for each in range(7)]
    made, _ = read(tmp_path, "", *lines[:2])
    assert [*made.take(4, INTENT, HASH, {})] == [("token_twice", "lines 2, 3 are different tokens of one sending")]
    assert counted(made) == {"given": 2, "matched": 2}
    made, _ = read(tmp_path, *lines)
    assert [*made.take(4, INTENT, HASH, {})] == [
        ("token_twice", "lines 1, 2, 3, 4, 5 are different tokens of one sending")
    ]
    made, _ = read(tmp_path, *(signed(claims(exp=each, txn="x")) for each in range(2)))
    assert [code for code, _ in made.take(4, INTENT, HASH, {})] == ["token_twice", *["token_off_record"] * 2]
    assert counted(made) == {"given": 2, "off_record": 2}
    made, _ = read(tmp_path, *(signed(claims(sub=each)) for each in "ab"))
    assert [code for code, _ in made.take(4, INTENT, HASH, FACTS)] == ["token_twice", *["token_differs"] * 2]


def test_a_line_is_read_up_to_8192_bytes_and_a_file_up_to_its_number_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reading._MAX_TOKENS == 200_000
    place = tmp_path / "kept"
    for length, holds in ((8191, True), (8192, False)):  # and its end
        place.write_bytes(b"a" * length + b"\n" + b"\xff\n")
        made = CallTokens(place)
        if holds:
            assert [code for code, _ in made.read(JWKS, 0, 9)] == ["token_invalid"] * 2
        else:
            with pytest.raises(Unusable, match="line too long, or more than 200000 lines"):
                [*made.read(JWKS, 0, 9)]
    monkeypatch.setattr(reading, "_MAX_TOKENS", 3)
    for count, holds in ((3, True), (4, False)):
        place.write_bytes(b"\n" * (count - 1) + b"x")
        made = CallTokens(place)
        if holds:
            assert [*made.read(JWKS, 0, 9)] == [("token_invalid", "line 3: it is no compact JWS")]
        else:
            with pytest.raises(Unusable, match="more than 3 lines"):
                [*made.read(JWKS, 0, 9)]
    with pytest.raises(Unusable, match="cannot be read"):
        [*CallTokens(tmp_path / "none").read(JWKS, 0, 9)]
