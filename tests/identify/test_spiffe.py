"""Workloads by their JWT-SVIDs, by plain values: the one spelling of a SPIFFE ID, bundles, and what proves whom."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identify.minting import NOW, RESOURCE, claims, mint
from identify.svids import DOMAIN, EXPORT, WORKLOAD, bundle, jwk, peeked, proven, svid, svid_key
from onbehalf.errors import (
    AlgorithmRefused,
    ClaimRefused,
    IdentifyError,
    ProofMissing,
    SignatureMismatch,
    TokenExpired,
    TokenMalformed,
    TokenNotYetValid,
    UnknownKey,
    WrongAudience,
    WrongType,
)
from onbehalf.identify import KeysRefused, bundle_of, peek, public_keys, trust_domain_of, verify_svid
from onbehalf.model import Presented

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_workload_is_a_service_of_its_trust_domains_tenant(algorithm: str) -> None:
    caller = proven(svid(algorithm), document=bundle(jwk(algorithm)))
    assert (caller.kind, caller.service, caller.subject, caller.client) == ("service", EXPORT, EXPORT, EXPORT)
    assert (caller.tenant, caller.scopes, caller.actors) == ("acme", frozenset({"notes.read"}), ())
    assert (caller.evidence.issuer, caller.evidence.key) == (f"spiffe://{DOMAIN}", algorithm)
    assert (caller.evidence.algorithm, caller.evidence.expires_at) == (algorithm, NOW + 300)


@pytest.mark.parametrize(
    "id_",
    [
        f"spiffe://{DOMAIN}/a", "spiffe://td/a/b/c", "spiffe://10.0.0.1/a", "spiffe://a_b-c.d/A.b_c-9/..." ,
        "spiffe://td/" + "a" * 2035,
    ],
)  # fmt: skip
def test_a_spiffe_id_in_its_one_spelling_is_read(id_: str) -> None:
    assert trust_domain_of({"sub": id_}) == id_.split("/")[2]


@pytest.mark.parametrize(
    "id_",
    [
        "", "spiffe:", "spiffe://", f"spiffe://{DOMAIN}", f"spiffe://{DOMAIN}/", f"spiffe:///{DOMAIN}/a",
        f"SPIFFE://{DOMAIN}/a", f"Spiffe://{DOMAIN}/a", f"spiffe:/{DOMAIN}/a", f"https://{DOMAIN}/a",
        "spiffe://Prod.acme.example/a", "spiffe://PROD.ACME.EXAMPLE/a", f"spiffe://{DOMAIN}:8443/a",
        f"spiffe://user@{DOMAIN}/a", f"spiffe://{DOMAIN}/a/", f"spiffe://{DOMAIN}//a", f"spiffe://{DOMAIN}/a//b",
        f"spiffe://{DOMAIN}/.", f"spiffe://{DOMAIN}/..", f"spiffe://{DOMAIN}/a/../b", f"spiffe://{DOMAIN}/a/./b",
        f"spiffe://{DOMAIN}/%61", f"spiffe://{DOMAIN}/a%2fb", f"spiffe://{DOMAIN}/a%2e%2e", f"spiffe://{DOMAIN}/a b",
        f"spiffe://{DOMAIN}/a?b", f"spiffe://{DOMAIN}/a#b", f"spiffe://{DOMAIN}/ä", f"spiffe://{DOMAIN}/a\n",
        f" spiffe://{DOMAIN}/a", f"spiffe://{DOMAIN}/a\\b", f"spiffe://{DOMAIN}/a~b", "spiffe://prod。acme/a",
        f"spiffe://{DOMAIN}/" + "a" * 2048, "spiffe://" + "a" * 256 + "/a", f"spiffe://{DOMAIN}./a/",
    ],
)  # fmt: skip
def test_every_other_spelling_is_nobodys(id_: str) -> None:
    assert trust_domain_of({"sub": id_}) == ""
    with pytest.raises(IdentifyError):
        proven(svid(sub=id_))


@pytest.mark.parametrize("sub", [None, 1, True, ["spiffe://td/a"], {"spiffe": 1}])
def test_a_sub_that_is_no_text_is_nobodys(sub: Any) -> None:
    assert trust_domain_of({"sub": sub} if sub is not None else {}) == ""


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="spife:/.%aA~@?#\\ -_9ä\u200b", max_size=40))
def test_whatever_is_taken_for_a_spiffe_id_has_one_spelling(text: str) -> None:
    id_ = f"spiffe://td{text}"
    if trust_domain_of({"sub": id_}):
        assert id_.isascii()
        assert id_ == id_.strip()
        domain, *segments = id_.removeprefix("spiffe://").split("/")
        assert domain == domain.lower()
        assert segments
        assert all(part and part not in (".", "..") and not set(part) & set("%~@?#\\: ") for part in segments)


# --- what proves nobody ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sub": "spiffe://other.example/agents/nightly-export"}, ClaimRefused),
        ({"sub": f"spiffe://evil.{DOMAIN}/a"}, ClaimRefused),
        ({"sub": "alice"}, ClaimRefused),
        ({"aud": ["https://other.example/mcp"]}, WrongAudience),
        ({"aud": []}, WrongAudience),
        ({"aud": RESOURCE + "/"}, WrongAudience),
        ({"aud": None}, ClaimRefused),
        ({"exp": None}, ClaimRefused),
        ({"exp": NOW - 31, "iat": NOW - 300}, TokenExpired),
        ({"iat": None}, ClaimRefused),
        ({"iat": NOW + 60, "exp": NOW + 300}, TokenNotYetValid),
        ({"nbf": NOW + 60}, TokenNotYetValid),
        ({"cnf": {"jkt": "x"}}, ProofMissing),
    ],
)
def test_a_jwt_svid_that_is_not_good_is_refused(changes: dict[str, Any], error: type[IdentifyError]) -> None:
    with pytest.raises(error):
        proven(svid(**changes))


def test_a_single_audience_may_be_a_text_and_an_issuer_means_nothing() -> None:
    assert proven(svid(aud=RESOURCE, iss="https://spire.example")).service == EXPORT


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "jwt", "wit+jwt", "txntoken+jwt", "joser"])
def test_another_kind_of_token_is_no_jwt_svid(typ: str) -> None:
    with pytest.raises(WrongType):
        proven(svid(header={"typ": typ}))


@pytest.mark.parametrize("typ", [None, "JWT", "JOSE"])
def test_a_jwt_svid_says_jwt_or_jose_or_nothing(typ: str | None) -> None:
    assert proven(svid(header={"typ": typ})).kind == "service"


def test_a_jwt_svid_names_its_key_and_is_signed_with_it() -> None:
    with pytest.raises(TokenMalformed):
        proven(svid(header={"kid": None}))
    with pytest.raises(SignatureMismatch):
        proven(svid(name="attacker"))
    with pytest.raises(TokenMalformed):
        proven(svid(header={"jwk": jwk()}))
    _, keys = bundle_of(bundle(jwk(), jwk(name="two", kid="two")), trust_domain=DOMAIN)
    with pytest.raises(UnknownKey):
        verify_svid(peeked(svid()), workload=WORKLOAD, key=keys["two"], audience=RESOURCE, now=NOW)
    _, other = bundle_of(bundle(), trust_domain="other.example")
    with pytest.raises(UnknownKey):
        verify_svid(peeked(svid()), workload=WORKLOAD, key=other["ES256"], audience=RESOURCE, now=NOW)


def test_the_algorithm_is_one_of_the_trust_domains_and_of_the_keys() -> None:
    only = msgspec.structs.replace(WORKLOAD, algorithms=("RS256",))
    with pytest.raises(AlgorithmRefused):
        proven(svid(), workload=only)
    with pytest.raises(AlgorithmRefused):  # the key says that it is for another one
        proven(svid("RS256"), document=bundle(jwk("RS256", alg="PS256")))
    for name in ("none", "HS256", "EdDSA", "ES256K"):
        with pytest.raises(AlgorithmRefused):
            proven(svid(header={"alg": name}))


# --- bundles ---------------------------------------------------------------------------------


def test_of_a_bundle_only_public_keys_for_jwt_svids_are_taken() -> None:
    document = bundle(
        jwk(), jwk(name="x", kid="x", use="x509-svid"), jwk(name="y", kid="y", use="sig"),
        jwk(name="z", kid="z", use=None),
        jwk(name="n", kid=None), jwk(name="p", kid="p", d="AA"), jwk(name="c", kid="c", crv="P-999"),
        jwk(name="t", kid="twice"), jwk(name="u", kid="twice"),
        {"use": "jwt-svid", "kid": "k", "kty": "oct", "k": "AA"},
        spiffe_refresh_hint=60, spiffe_sequence=7, unknown={"x": 1},
    )  # fmt: skip
    sequence, keys = bundle_of(document, trust_domain=DOMAIN)
    assert (sequence, set(keys)) == (7, {"ES256"})


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "keys": []}', bundle(spiffe_sequence="1"),
     bundle(spiffe_sequence=True), bundle(spiffe_sequence=1.5), b"-----BEGIN CERTIFICATE-----"],
)  # fmt: skip
def test_what_is_no_bundle_is_refused(document: bytes) -> None:
    with pytest.raises(KeysRefused):
        bundle_of(document, trust_domain=DOMAIN)


def test_a_bundles_keys_sign_for_no_issuer_and_an_issuers_for_no_workload() -> None:
    assert not public_keys(bundle(), issuer="https://login.acme.example")
    assert not bundle_of(bundle(jwk(use="sig")), trust_domain=DOMAIN)[1]


def test_a_weak_key_is_left_out() -> None:
    from joserfc.jwk import RSAKey

    weak = {**RSAKey.generate_key(1024).as_dict(private=False), "kid": "w", "use": "jwt-svid"}
    assert not bundle_of(bundle(weak), trust_domain=DOMAIN)[1]


def test_a_token_without_an_issuer_is_read_only_where_workloads_are_known() -> None:
    with pytest.raises(TokenMalformed):
        peek(Presented(token=svid()))
    assert peeked(svid()).claimed_issuer == ""
    with pytest.raises(TokenMalformed):
        peeked(mint(claims(iss=7), key=svid_key()))  # type: ignore[arg-type]
