"""RFC 8725, attack by attack, where no other test has its name: each token is signed well, by a key that is known."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwe
from joserfc.jwk import RSAKey

from act.granted import ARGUMENTS, AUDIENCE
from act.granted import ISSUER as GATEWAY
from act.granted import NOW as CALL_AT
from backend.forging import KEY, KID, forged, good_header
from identify import events
from identify.minting import HEADER, ISSUER, NOW, RESOURCE, RULE, all_keys, claims, key_for, mint, prove, signed
from onbehalf.backend import MemoryReplay, verify_call
from onbehalf.errors import CallTokenRefused, IdentifyError, TokenMalformed, UnknownKey, WrongType
from onbehalf.identify import (
    Peeked,
    peek,
    verify,
    verify_client_assertion,
    verify_id_jag,
    verify_id_token,
    verify_signal,
)  # fmt: skip
from onbehalf.model import Presented, UnixTime

CLIENT = "claude"
TYPES = {
    "access": "at+jwt", "id": "JWT", "event": "secevent+jwt", "assertion": "client-authentication+jwt",
    "id-jag": "oauth-id-jag+jwt", "call": "txntoken+jwt", "logout": "logout+jwt", "dpop": "dpop+jwt",
    "workload": "wit+jwt", "introspection": "token-introspection+jwt",
}  # fmt: skip


# --- 2.3, 2.4, 3.6: encryption in place of a signature -----------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_encrypted_to_the_published_key_a_token_is_refused_packed_or_not(packed: bool) -> None:
    """Anybody can encrypt to a public key, so that decrypting proves nothing."""
    header = {
        "alg": "RSA-OAEP",
        "enc": "A128GCM",
        "kid": "RS256",
        "typ": "at+jwt",
        **({"zip": "DEF"} if packed else {}),
    }
    public = RSAKey.import_key(key_for("RS256").as_dict(private=False))
    token = jwe.encrypt_compact(
        header, json.dumps(claims()).encode(), public, algorithms=["RSA-OAEP", "A128GCM", "DEF"]
    )
    with pytest.raises(TokenMalformed, match="three parts"):
        prove(token)


@pytest.mark.parametrize("alg", ["RSA-OAEP", "RSA1_5", "ECDH-ES", "A128KW", "dir", "PBES2-HS256+A128KW"])
def test_an_algorithm_of_encryption_in_three_parts_is_refused(alg: str) -> None:
    with pytest.raises(IdentifyError):
        prove(mint(alg=alg, enc="A128GCM", epk={"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}))


def test_a_packed_payload_under_a_true_signature_is_never_unpacked() -> None:
    packed = zlib.compress(json.dumps(claims()).encode())
    with pytest.raises(TokenMalformed):
        prove(signed(json.dumps({**HEADER, "zip": "DEF"}).encode(), packed, key_for("ES256"), "ES256"))


@pytest.mark.parametrize("cty", ["JWT", "jwt", "application/jwt", None])
def test_a_token_inside_a_token_is_not_looked_for(cty: str | None) -> None:
    inner, header = mint(), {**HEADER, **({"cty": cty} if cty else {})}
    for payload in (inner.encode(), json.dumps(inner).encode(), json.dumps({"jwt": inner}).encode()):
        with pytest.raises(TokenMalformed):
            prove(signed(json.dumps(header).encode(), payload, key_for("ES256"), "ES256"))


def test_the_json_forms_of_a_signature_are_no_token() -> None:
    head, body, mark = mint().split(".")
    flat = {"protected": head, "payload": body, "signature": mark}
    general = {
        "payload": body,
        "signatures": [{"protected": head, "signature": mark}, {"protected": head, "signature": ""}],
    }
    for form in (flat, general):
        with pytest.raises(TokenMalformed):
            prove(json.dumps(form))


# --- 2.7, 3.8, 3.10: another key, another issuer, a key id that is more than a name ------------


@pytest.mark.parametrize(
    "kid",
    ["../../etc/passwd", "/dev/null", "file:///dev/null", "https://evil.example/k", "' OR '1'='1", "ES256' --", "*",
     "ES256 ", " ES256", "es256", "ES256/", "|cat", "$(id)", "0", "None", "__class__", "ES256,RS256", "\u202eES256"],
)  # fmt: skip
def test_a_key_id_is_a_name_and_neither_a_path_a_query_nor_a_pattern(kid: str) -> None:
    assert kid not in all_keys()
    with pytest.raises((KeyError, IdentifyError)):  # KeyError: nothing of that name, and nothing else was tried
        prove(mint(kid=kid))


def test_substitution_the_tokens_of_one_of_two_issuers_with_one_key_id_are_not_the_others() -> None:
    """Both call their key `ES256`: whose it is comes from where it was fetched, and never from the token."""
    other = "https://login.globex.example"
    theirs = events.key_of(other, name="theirs")
    token = mint(claims(iss=other), key=key_for("ES256", "theirs"))
    told: dict[str, Any] = {"audience": RESOURCE, "now": NOW}
    with pytest.raises(IdentifyError):  # their token, with our issuer's key
        verify(peek(Presented(token=token)), rule=RULE, key=all_keys()["ES256"], **told)
    with pytest.raises(IdentifyError):  # their token in our issuer's name, with their key
        verify(peek(Presented(token=mint(key=key_for("ES256", "theirs")))), rule=RULE, key=theirs, **told)
    with pytest.raises(IdentifyError):  # their token, under their name, at our issuer's rule
        verify(peek(Presented(token=token)), rule=RULE, key=theirs, **told)


@pytest.mark.parametrize(
    "issuer",
    [f"{ISSUER}?x", f"{ISSUER}#x", f"{ISSUER}/.", ISSUER.replace("https", "HTTPS"), ISSUER.replace("acme", "ACME"),
     ISSUER.replace("login", "login%2e"), ISSUER.replace("staff", "st\u0430ff"), f"{ISSUER}\u200b",
     ISSUER.replace("/realms", ":443/realms")],
)  # fmt: skip
def test_an_issuer_that_only_looks_the_same_is_another_one(issuer: str) -> None:
    with pytest.raises(IdentifyError):
        prove(mint(claims(iss=issuer)))


@pytest.mark.parametrize("name", ["sub", "client_id", "aud", "iss"])
def test_two_spellings_of_a_name_in_unicode_are_two_names(name: str) -> None:
    """Nothing is normalized: `\u00e9` in one letter or in two is not one person."""
    one, two = ("caf\u00e9", "cafe\u0301")
    if name in ("sub", "client_id"):
        subjects = {
            getattr(prove(mint(claims(**{name: each}))), "subject" if name == "sub" else "client")
            for each in (one, two)
        }
        assert subjects == {one, two}
    else:
        good = {"aud": RESOURCE, "iss": ISSUER}[name]
        with pytest.raises(IdentifyError):
            prove(mint(claims(**{name: good.replace("e", "e\u0301", 1)})))


# --- 2.8, 3.11, 3.12: a token of one kind shown as another -------------------------------------


def everything(kind: str) -> str:
    """A token of one kind that has what every kind asks for, but for its type. One issuer, one key, one audience."""
    body = {
        "iss": ISSUER, "sub": "alice", "aud": RESOURCE, "client_id": CLIENT, "azp": RESOURCE, "iat": NOW - 5,
        "exp": NOW + 60, "jti": "j-1", "nonce": "n-1", "scope": "notes.read", "resource": RESOURCE,
        "auth_time": NOW - 9,
    }  # fmt: skip
    if kind == "event":
        body = {**events.claims(), "aud": RESOURCE, "nonce": "n-1", "azp": RESOURCE, "client_id": CLIENT, "scope": "x"}
    if kind == "logout":
        body["events"] = {"http://schemas.openid.net/event/backchannel-logout": {}}
    return mint(body, typ=TYPES[kind])


def _access(peeked: Peeked) -> object:
    return verify(peeked, rule=RULE, key=all_keys()["ES256"], audience=RESOURCE, now=UnixTime(NOW))


def _id(peeked: Peeked) -> object:
    return verify_id_token(
        peeked, rule=RULE, key=all_keys()["ES256"], client=RESOURCE, nonce="n-1", now=UnixTime(NOW)
    )  # fmt: skip


def _event(peeked: Peeked) -> object:
    stream = events.stream(audience=RESOURCE)
    return verify_signal(peeked, stream=stream, key=all_keys()["ES256"], now=UnixTime(NOW))


def _id_jag(peeked: Peeked) -> object:
    return verify_id_jag(
        peeked, rule=RULE, key=all_keys()["ES256"], audience=RESOURCE, resource=RESOURCE, client=CLIENT,
        kept=frozenset(), now=UnixTime(NOW),
    )  # fmt: skip


VERIFIERS: dict[str, Callable[[Peeked], object]] = {"access": _access, "id": _id, "event": _event, "id-jag": _id_jag}


@pytest.mark.parametrize("verifier", sorted(VERIFIERS))
@pytest.mark.parametrize("kind", sorted(TYPES))
def test_cross_jwt_confusion_of_one_issuers_kinds_of_token_each_is_taken_where_it_belongs_alone(
    kind: str, verifier: str
) -> None:
    peeked = peek(Presented(token=everything(kind)))
    if kind == verifier:
        assert VERIFIERS[verifier](peeked)
    else:
        with pytest.raises(WrongType):
            VERIFIERS[verifier](peeked)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_cross_jwt_confusion_nothing_that_an_issuer_signs_is_a_clients_word_for_itself(kind: str) -> None:
    with pytest.raises(IdentifyError):
        verify_client_assertion(
            peek(Presented(token=everything(kind))), client=CLIENT, key=all_keys()["ES256"], audiences=(RESOURCE,),
            now=UnixTime(NOW),
        )  # fmt: skip


@pytest.mark.parametrize("typ", [None, "JWT", "at+jwt", "secevent+jwt", "oauth-id-jag+jwt", "dpop+jwt", "txntoken"])
def test_cross_jwt_confusion_another_token_of_the_gateways_own_key_is_no_call_token(typ: str | None) -> None:
    def shown(header: dict[str, Any]) -> object:
        return verify_call(
            forged({name: value for name, value in header.items() if value}), keys={KID: bytes(KEY.verify_key)},
            issuer=GATEWAY, audience=AUDIENCE, tool="update_ticket", arguments=ARGUMENTS, now=UnixTime(CALL_AT),
            replay=MemoryReplay(),
        )  # fmt: skip

    assert shown(good_header())
    with pytest.raises(CallTokenRefused, match="typ"):
        shown({**good_header(), "typ": typ})


# --- 3.10: what a header says is looked at, and never followed ---------------------------------


@pytest.mark.parametrize("name", ["JKU", "Jwk", "x5t", "x5t#S256", "url", "nonce", "kid2", "iss", "aud", "sub"])
def test_a_header_member_that_means_nothing_here_changes_nothing(name: str) -> None:
    assert prove(mint(**{name: "https://evil.example/"})).subject == "alice"


def test_no_key_of_the_header_is_ever_tried() -> None:
    own = key_for("ES256", "attacker")
    with pytest.raises((KeyError, UnknownKey, IdentifyError)):
        prove(mint(key=own, kid=own.thumbprint()))
