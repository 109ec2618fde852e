"""A call token is for one gateway, one audience, one tool, one set of arguments, once; all else is refused by name."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from act.granted import ARGUMENTS, AUDIENCE, CALL, ISSUER, NOW, granted, receipt
from backend.forging import KEY, KID, encoded, forged, good_claims, good_header
from onbehalf.backend import MemoryReplay, Replay, VerifiedCall, read_keys, verify_call
from onbehalf.doors.signer_file import FileSigner
from onbehalf.errors import (
    CallKeysUnavailable,
    CallTokenExpired,
    CallTokenMismatch,
    CallTokenMissing,
    CallTokenRefused,
    CallTokenReplayed,
    ReplayUnknown,
)  # fmt: skip
from onbehalf.model import Json, Ref, UnixTime, canonical, digest

KEYS = {KID: bytes(KEY.verify_key)}


def verified(
    token: str, *, keys: Mapping[str, bytes] = KEYS, issuer: str = ISSUER, audience: str = AUDIENCE,
    tool: str = "update_ticket", arguments: Mapping[str, Json] = ARGUMENTS, now: int = NOW,
    replay: Replay | None = None,
) -> VerifiedCall:  # fmt: skip
    return verify_call(
        token, keys=keys, issuer=issuer, audience=audience, tool=tool, arguments=arguments, now=UnixTime(now),
        replay=replay or MemoryReplay(),
    )  # fmt: skip


def with_claim(**changes: Any) -> str:
    return forged(said={name: value for name, value in (good_claims() | changes).items() if value is not ...})


def with_inner(outer: str, **changes: Any) -> str:
    inner = good_claims()[outer] | changes
    return with_claim(**{outer: {name: value for name, value in inner.items() if value is not ...}})


def with_header(**changes: Any) -> str:
    return forged({name: value for name, value in (good_header() | changes).items() if value is not ...})


def test_what_the_real_signer_signs_the_backend_proves(tmp_path: Path) -> None:
    signer = FileSigner.open(tmp_path, issuer=ISSUER, now=NOW)
    keys = read_keys(signer.jwks(), issuer=ISSUER)
    assert verified(signer.sign(granted()).compact, keys=keys) == VerifiedCall(
        call=CALL, tenant="acme", person="alice", issuer="https://login.test", subject="sub-1", client="chat",
        agent="assistant/1.0", tool="update_ticket", action="tickets.update",
        arguments=digest(canonical(ARGUMENTS)), resource=Ref(type="Ticket", id="acme/T-1001"), record=receipt(),
        expires_at=UnixTime(NOW + 30), token_id=f"{CALL}.41",
    )  # fmt: skip


def test_the_forgery_of_these_tests_is_good_where_nothing_is_changed() -> None:
    assert verified(forged()).person == "alice"


def test_arguments_in_another_order_and_spelling_are_the_same_arguments() -> None:
    assert verified(forged(), arguments=dict(reversed(ARGUMENTS.items()))).call == CALL


# --- for something else --------------------------------------------------------------------


@pytest.mark.parametrize("audience", ["", "https://tickets.test/mcp/", "https://other.test/mcp", AUDIENCE.upper()])
def test_a_token_for_another_audience_is_refused(audience: str) -> None:
    with pytest.raises(CallTokenRefused, match="is not for"):
        verified(forged(), audience=audience)


@pytest.mark.parametrize("aud", [[AUDIENCE], [AUDIENCE, "x"], None, "", 1, ...])
def test_an_audience_that_is_not_exactly_this_one_string_is_refused(aud: Any) -> None:
    with pytest.raises(CallTokenRefused, match="is not for"):
        verified(with_claim(aud=aud))


def test_a_token_for_another_tool_is_refused() -> None:
    with pytest.raises(CallTokenMismatch, match="another tool"):
        verified(forged(), tool="delete_ticket")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        ARGUMENTS | {"status": "open"},
        ARGUMENTS | {"extra": None},
        ARGUMENTS | {"weight": 1},
        {"ticket_id": "T-1001"},
    ],
)
def test_a_token_for_other_arguments_is_refused(arguments: dict[str, Json]) -> None:
    with pytest.raises(CallTokenMismatch, match="other arguments"):
        verified(forged(), arguments=arguments)


@pytest.mark.parametrize("value", [float("nan"), 2**60, "\ud800"])
def test_arguments_without_a_canonical_form_are_refused(value: Json) -> None:
    with pytest.raises(CallTokenMismatch, match="canonical form"):
        verified(forged(), arguments={"a": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=4)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def _spelled(value: Json) -> bytes | None:
    try:
        return canonical(value)
    except ValueError:
        return None


@given(arguments=st.dictionaries(st.text(max_size=4), JSON, max_size=4), name=st.text(max_size=4), value=JSON)
def test_any_changed_argument_is_refused(arguments: dict[str, Json], name: str, value: Json) -> None:
    signed, changed = _spelled(arguments), arguments | {name: value}
    assume(signed is not None and _spelled(changed) not in (signed, None))
    token = with_inner("tctx", arguments=digest(signed or b""))
    assert verified(token, arguments=arguments).call == CALL
    with pytest.raises(CallTokenMismatch):
        verified(token, arguments=changed)
    if arguments:
        with pytest.raises(CallTokenMismatch):
            verified(token, arguments=dict(list(arguments.items())[1:]))


# --- not a call token of this gateway ------------------------------------------------------


TOKEN = forged()


@given(at=st.integers(0, len(TOKEN) - 1), byte=st.characters(codec="latin-1"))
def test_any_changed_byte_of_a_token_is_refused(at: int, byte: str) -> None:
    assume(TOKEN[at] != byte)
    with pytest.raises(CallTokenRefused):
        verified(TOKEN[:at] + byte + TOKEN[at + 1 :])


@given(at=st.integers(0, len(TOKEN)), other=st.text(st.characters(codec="latin-1"), max_size=3), cut=st.integers(0, 3))
def test_any_cut_or_inserted_byte_of_a_token_is_refused(at: int, other: str, cut: int) -> None:
    changed = TOKEN[:at] + other + TOKEN[at + cut :]
    assume(changed != TOKEN)
    with pytest.raises(CallTokenRefused):
        verified(changed)


@given(st.text(max_size=200))
def test_no_text_breaks_the_check(text: str) -> None:
    with pytest.raises(CallTokenRefused):
        verified(text)


def test_no_token_is_refused_as_missing() -> None:
    with pytest.raises(CallTokenMissing):
        verified("")


@pytest.mark.parametrize("typ", ["at+jwt", "JWT", "txntoken", "TXNTOKEN+JWT", "application/txntoken+jwt", "", ...])
def test_a_token_of_another_type_is_refused(typ: Any) -> None:
    with pytest.raises(CallTokenRefused):
        verified(with_header(typ=typ))


def test_an_access_token_of_the_same_issuer_and_key_is_no_call_token() -> None:
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme/alice", "client_id": "chat", "iat": NOW, "exp": NOW + 30}
    with pytest.raises(CallTokenRefused, match="it is no call token"):
        verified(forged({"typ": "at+jwt", "alg": "EdDSA", "kid": KID}, said))


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS256", "ES256", "Ed25519", "eddsa", "", ...])
def test_a_token_of_another_algorithm_is_refused(algorithm: Any) -> None:
    with pytest.raises(CallTokenRefused):
        verified(with_header(alg=algorithm))


def test_an_unsigned_token_is_refused() -> None:
    parts = [encoded(json.dumps(part).encode()) for part in (good_header() | {"alg": "none"}, good_claims())]
    for signature in ("", encoded(b"\x00" * 64)):
        with pytest.raises(CallTokenRefused):
            verified(".".join([*parts, signature]))


@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA"])
def test_a_public_key_is_no_shared_secret(algorithm: str) -> None:
    parts = (good_header() | {"alg": algorithm}, good_claims())
    signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    for secret in (KEYS[KID], encoded(KEYS[KID]).encode()):
        made = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        for signature in (made, made + made):
            with pytest.raises(CallTokenRefused):
                verified(f"{signed}.{encoded(signature)}")


@pytest.mark.parametrize("name", ["crit", "b64", "jwk", "jku", "x5u", "x5c"])
def test_a_token_that_brings_its_own_key_or_meaning_is_refused(name: str) -> None:
    with pytest.raises(CallTokenRefused, match=name):
        verified(with_header(**{name: ["exp"]}))


def test_a_key_that_is_not_the_gateways_is_refused() -> None:
    with pytest.raises(CallTokenRefused, match="not one of the gateway's"):
        verified(with_header(kid="k2"))
    with pytest.raises(CallTokenRefused, match="signature does not fit"):
        verified(forged(key=SigningKey(b"\x08" * 32)))
    with pytest.raises(CallTokenRefused):
        verified(with_header(kid=...))


def test_a_key_of_small_order_proves_nothing() -> None:
    point = b"\x01" + b"\x00" * 31  # the neutral element: with it, one signature fits any text
    header, body, _ = forged().split(".")
    with pytest.raises(CallTokenRefused):
        verified(f"{header}.{body}.{encoded(point + bytes(32))}", keys={KID: point})


@pytest.mark.parametrize("issuer", ["", "https://other.test", ISSUER + "/"])
def test_a_token_of_another_issuer_is_refused(issuer: str) -> None:
    with pytest.raises(CallTokenRefused, match="is not from"):
        verified(forged(), issuer=issuer)


def test_a_claim_that_stands_twice_is_refused() -> None:
    twice = json.dumps(good_claims())[:-1] + ',"aud":"https://other.test"}'
    signed = f"{encoded(json.dumps(good_header()).encode())}.{encoded(twice.encode())}"
    with pytest.raises(CallTokenRefused, match="stands twice"):
        verified(f"{signed}.{encoded(KEY.sign(signed.encode()).signature)}")


# --- time ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("now", "good"), [(-6, False), (-5, True), (0, True), (34, True), (35, False), (9**9, False)])
def test_a_token_is_good_for_its_life_and_five_seconds_around_it(now: int, good: bool) -> None:
    if good:
        assert verified(forged(), now=NOW + now).call == CALL
    else:
        with pytest.raises(CallTokenExpired):
            verified(forged(), now=NOW + now)


@pytest.mark.parametrize(
    "times",
    [{"exp": NOW + 301}, {"exp": NOW}, {"exp": NOW - 1}, {"nbf": NOW + 6}, {"iat": NOW - 400}],
)
def test_a_life_that_is_too_long_or_none_is_refused(times: dict[str, int]) -> None:
    with pytest.raises(CallTokenExpired):
        verified(with_claim(**times))


@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
@pytest.mark.parametrize("value", ["1800000000", 1.8e9, True, None, -1, 2**60, [NOW]])
def test_a_time_that_is_no_whole_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(CallTokenRefused):
        verified(with_claim(**{name: value}))


# --- shape ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [..., None, 1, "", [], {}])
@pytest.mark.parametrize("name", ["iss", "iat", "exp", "aud", "txn", "jti", "sub", "scope", "tctx", "rctx"])
def test_a_required_claim_that_is_missing_or_misshapen_is_refused(name: str, value: Any) -> None:
    with pytest.raises(CallTokenRefused):
        verified(with_claim(**{name: value}))


@pytest.mark.parametrize("value", [..., None, 1.5, "", [], {}])
@pytest.mark.parametrize("name", ["tenant", "tool", "action", "arguments", "resource", "record"])
def test_a_context_that_lacks_something_is_refused(name: str, value: Any) -> None:
    with pytest.raises(CallTokenRefused):
        verified(with_inner("tctx", **{name: value}))


@pytest.mark.parametrize("sub", ["globex/alice", "alice", "acme", "acme/", "/alice", "acme2/alice"])
def test_a_person_of_another_tenant_than_the_tokens_is_refused(sub: str) -> None:
    with pytest.raises(CallTokenRefused, match="sub"):
        verified(with_claim(sub=sub))


def test_a_scope_that_is_not_the_action_is_refused() -> None:
    with pytest.raises(CallTokenRefused, match="scope"):
        verified(with_claim(scope="tickets.update tickets.delete"))


# --- once ----------------------------------------------------------------------------------


def test_a_token_is_good_once() -> None:
    replay = MemoryReplay()
    assert verified(forged(), replay=replay).call == CALL
    for seconds in (0, 34):
        with pytest.raises(CallTokenReplayed):
            verified(forged(), replay=replay, now=NOW + seconds)


def test_a_refused_token_is_not_used_up() -> None:
    replay = MemoryReplay(capacity=1)
    for changes in ({"tool": "other"}, {"arguments": {}}, {"audience": "x"}, {"now": NOW + 99}):
        with pytest.raises(CallTokenRefused):
            verified(forged(), replay=replay, **changes)  # type: ignore[arg-type]
    assert verified(forged(), replay=replay).call == CALL


def test_a_full_memory_refuses_and_has_room_again_when_old_tokens_end() -> None:
    replay = MemoryReplay(capacity=2)
    for name in ("a", "b"):
        verified(with_claim(jti=name), replay=replay)
    with pytest.raises(ReplayUnknown, match="too many"):
        verified(with_claim(jti="c"), replay=replay)
    with pytest.raises(CallTokenReplayed):
        verified(with_claim(jti="a"), replay=replay)
    assert verified(with_claim(jti="c", iat=NOW + 36, exp=NOW + 66), replay=replay, now=NOW + 36).call == CALL


def test_a_token_from_before_the_memory_began_is_refused() -> None:
    with pytest.raises(ReplayUnknown, match="older than the memory"):
        verified(forged(), replay=MemoryReplay(since=UnixTime(NOW + 1)))
    assert verified(forged(), replay=MemoryReplay(since=NOW)).call == CALL


# --- keys ----------------------------------------------------------------------------------


def _jwk(**changes: Any) -> dict[str, Any]:
    made = {"kty": "OKP", "crv": "Ed25519", "x": encoded(KEYS[KID]), "kid": KID, "use": "sig", "alg": "EdDSA"} | changes
    return {name: value for name, value in made.items() if value is not ...}


def test_keys_are_read_from_a_jwk_set_in_either_form() -> None:
    document = {"keys": [_jwk()]}
    assert read_keys(document, issuer=ISSUER) == read_keys(json.dumps(document).encode(), issuer=ISSUER) == KEYS


@pytest.mark.parametrize(
    "key",
    [
        _jwk(d=encoded(bytes(KEY))),
        _jwk(use="enc"),
        _jwk(kid=...),
        _jwk(crv="X25519"),
        _jwk(x="AA"),
        _jwk(alg="ES256"),
        {"kty": "oct", "k": encoded(b"secret" * 8), "kid": KID},
    ],
)
def test_a_key_set_without_a_fit_key_is_refused(key: dict[str, Any]) -> None:
    with pytest.raises(CallKeysUnavailable):
        read_keys({"keys": [key]}, issuer=ISSUER)


@pytest.mark.parametrize("document", [b"", b"[]", b'{"keys":1}', b'{"keys":[]}', b"\xff", b"[" * 9999])
def test_a_document_that_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(CallKeysUnavailable):
        read_keys(document, issuer=ISSUER)


def test_messages_hold_no_part_of_a_token() -> None:
    body = base64.urlsafe_b64decode(forged().split(".")[1] + "==").decode()
    with pytest.raises(CallTokenMismatch) as caught:
        verified(forged(), tool="other")
    assert "acme" in body
    assert "acme" not in caught.value.message + caught.value.hint
