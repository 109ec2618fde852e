"""Every reason why a well-formed token is not believed, one by one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identify.minting import (
    ALGORITHMS,
    ISSUER,
    NOW,
    RESOURCE,
    RULE,
    all_keys,
    claims,
    jwks,
    key_for,
    mint,
    prove,
    public,
)
from onbehalf.config import TenantClaim
from onbehalf.errors import (
    AlgorithmRefused,
    ClaimRefused,
    ConfigInvalid,
    IdentifyError,
    ProofMissing,
    SignatureMismatch,
    TenantRefused,
    TokenExpired,
    TokenNotYetValid,
    UnknownIssuer,
    UnknownKey,
    WrongAudience,
    WrongType,
)
from onbehalf.identify import check_tenants, peek, public_keys, verify
from onbehalf.model import Presented, UnixTime

TENANTS = TenantClaim(claim="org", allowed=("acme", "globex"))


def rule(**changes: Any) -> Any:
    return msgspec.structs.replace(RULE, **changes)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_proves_its_caller(algorithm: str) -> None:
    caller = prove(mint(algorithm=algorithm))
    assert (caller.subject, caller.tenant, caller.client, caller.actors) == ("alice", "acme", "claude", ())
    assert caller.scopes == {"reviews.read"}
    assert (caller.evidence.issuer, caller.evidence.key) == (ISSUER, algorithm)
    assert (caller.evidence.algorithm, caller.evidence.issued_at) == (algorithm, NOW - 10)
    assert caller.evidence.expires_at == NOW + 300


_GOOD = {name: mint(algorithm=name) for name in ("RS256", "ES256", "EdDSA")}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(_GOOD)), st.integers(0, 10_000), st.integers(0, 127))
def test_a_good_token_with_any_one_byte_changed_is_refused(algorithm: str, place: int, byte: int) -> None:
    good = _GOOD[algorithm]
    place %= len(good)
    changed = good[:place] + chr(byte) + good[place + 1 :]
    if changed != good:
        with pytest.raises((IdentifyError, KeyError)):  # KeyError: no such key id here, the door's UnknownKey
            prove(changed)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_signed_with_another_key_is_refused(algorithm: str) -> None:
    with pytest.raises(SignatureMismatch):
        prove(mint(algorithm=algorithm, key=key_for(algorithm, "attacker")))


@pytest.mark.parametrize("mark", ["AAAA", "A" * 86, "A" * 171, "A" * 342])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_empty_looking_signature_is_refused(algorithm: str, mark: str) -> None:
    unsigned = mint(algorithm=algorithm).rpartition(".")[0]
    with pytest.raises(IdentifyError):
        prove(f"{unsigned}.{mark}")


def test_an_algorithm_that_the_issuer_may_not_use_is_refused() -> None:
    with pytest.raises(AlgorithmRefused):
        prove(mint(algorithm="ES256"), rule=rule(algorithms=("RS256",)))


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "ES384", "ES256K", "Ed448", "rs256", "ES256 ", "HS256", "dir"])
def test_an_algorithm_that_nobody_may_use_is_refused(algorithm: str) -> None:
    with pytest.raises(AlgorithmRefused):
        prove(mint(alg=algorithm))


def test_a_key_of_another_algorithm_is_refused() -> None:
    with pytest.raises(AlgorithmRefused):
        prove(mint(algorithm="ES256", kid="RS256"))
    only = public_keys(jwks(public("RS256", alg="RS256")), issuer=ISSUER)
    prove(mint(algorithm="RS256"), keys=only)
    with pytest.raises(AlgorithmRefused):
        prove(mint(algorithm="PS256", key=key_for("RS256"), kid="RS256"), keys=only)


@pytest.mark.parametrize("issuer", [ISSUER + "/", ISSUER.upper(), "https://login.globex.example", ISSUER + " "])
def test_a_token_of_another_issuer_is_refused(issuer: str) -> None:
    with pytest.raises(IdentifyError):
        prove(mint(claims(iss=issuer)))


def test_a_key_of_another_issuer_is_refused() -> None:
    others = public_keys(jwks(public("ES256")), issuer="https://login.globex.example")
    with pytest.raises(UnknownIssuer):
        prove(mint(), keys=others)


def test_a_key_of_another_id_is_refused() -> None:
    other = public_keys(jwks(public("ES256", kid="other")), issuer=ISSUER)["other"]
    with pytest.raises(UnknownKey):
        verify(peek(Presented(token=mint())), rule=RULE, key=other, audience=RESOURCE, now=NOW)


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "id+jwt", "dpop+jwt", "txntoken+jwt", "logout+jwt", "at+jwt "])
def test_a_token_of_another_type_is_refused(kind: str | None) -> None:
    with pytest.raises(WrongType):
        prove(mint(typ=kind))


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_an_access_token_may_spell_its_type_as_media_types_may(kind: str) -> None:
    prove(mint(typ=kind))


def test_a_type_that_the_issuer_is_configured_for_is_taken() -> None:
    prove(mint(typ="JWT"), rule=rule(token_types=("JWT",)))


@pytest.mark.parametrize("audience", ["https://other.example/mcp", RESOURCE + "/", RESOURCE.upper(), "", [], ["x"]])
def test_a_token_for_another_resource_is_refused(audience: object) -> None:
    with pytest.raises(WrongAudience):
        prove(mint(claims(aud=audience)))


@pytest.mark.parametrize("audience", [None, 1, {"aud": RESOURCE}, [RESOURCE, 1], [[RESOURCE]], [RESOURCE] * 33, True])
def test_a_token_without_a_well_formed_audience_is_refused(audience: object) -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(aud=audience)))


def test_a_token_for_several_resources_is_taken_if_this_is_one() -> None:
    prove(mint(claims(aud=["https://other.example", RESOURCE])))


def test_an_expired_token_is_refused_after_30_s_of_tolerance() -> None:
    token = mint(claims(exp=NOW))
    prove(token, now=NOW + 29)
    with pytest.raises(TokenExpired):
        prove(token, now=NOW + 30)


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_from_the_future_is_refused_beyond_30_s_of_tolerance(name: str) -> None:
    token = mint(claims(**{name: NOW}))
    prove(token, now=NOW - 30)
    with pytest.raises(TokenNotYetValid):
        prove(token, now=NOW - 31)


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", ["1800000300", 1800000300.5, True, -1, 2**53, [], {}])
def test_a_time_that_is_no_whole_number_of_seconds_is_refused(name: str, value: object) -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(**{name: value})))


@pytest.mark.parametrize("name", ["exp", "iat", "sub", "client_id"])
def test_a_token_without_a_required_claim_is_refused(name: str) -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(**{name: None})))


def test_a_token_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(iat=NOW, exp=NOW)))


@pytest.mark.parametrize("name", ["sub", "client_id"])
@pytest.mark.parametrize("value", ["", " ", 7, ["alice"], {"id": 1}, "a\x00b", "a\u200bb", "a\nb", "x" * 256, True])
def test_a_name_that_is_no_printable_string_is_refused(name: str, value: object) -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(**{name: value})))


def test_only_the_configured_client_claim_is_read() -> None:
    token = mint(claims(client_id=None, azp="claude"))
    with pytest.raises(ClaimRefused):
        prove(token)
    assert prove(token, rule=rule(client_claim="azp")).client == "claude"


@pytest.mark.parametrize("proof", [{"jkt": "x"}, {"x5t#S256": "x"}, {}, "null", 0])
def test_a_token_bound_to_a_key_is_refused_without_its_proof(proof: object) -> None:
    with pytest.raises(ProofMissing):
        prove(mint(claims(cnf=proof)))


def test_of_other_claims_only_those_are_kept_that_are_asked_for() -> None:
    token = mint(claims(groups=["hr"], email="ann@acme.example", name="Ann"))
    peeked = peek(Presented(token=token))

    def kept(*names: str) -> bytes:
        key = all_keys()[peeked.key_id]
        return verify(
            peeked, rule=RULE, key=key, audience=RESOURCE, now=UnixTime(NOW), kept=frozenset(names)
        ).claims  # fmt: skip

    assert kept("name", "groups", "absent") == b'{"groups":["hr"],"name":"Ann"}'
    assert (kept("absent"), kept()) == (b"{}", b"")
    assert b"hr" not in repr(prove(token)).encode()


def test_a_kept_claim_without_a_canonical_form_is_refused() -> None:
    peeked = peek(Presented(token=mint(claims(department=2**60))))
    with pytest.raises(ClaimRefused):
        verify(
            peeked, rule=RULE, key=all_keys()[peeked.key_id], audience=RESOURCE, now=UnixTime(NOW),
            kept=frozenset({"department"}),
        )  # fmt: skip


def test_the_actors_are_told_nearest_first() -> None:
    chain = {"sub": "agent", "act": {"sub": "app", "iss": ISSUER}}
    assert prove(mint(claims(act=chain))).actors == ("agent", "app")


def test_a_chain_of_more_than_eight_actors_is_refused() -> None:
    chain: dict[str, Any] = {"sub": "a"}
    for _ in range(7):
        chain = {"sub": "a", "act": chain}
    assert len(prove(mint(claims(act=chain))).actors) == 8
    with pytest.raises(ClaimRefused):
        prove(mint(claims(act={"sub": "a", "act": chain})))


@pytest.mark.parametrize("act", ["agent", [], {}, {"sub": ""}, {"sub": 1}, {"sub": "a", "act": "b"}, 0, False])
def test_a_misshapen_actor_is_refused(act: object) -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(act=act)))


def test_an_actor_of_another_issuer_is_refused() -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(act={"sub": "agent", "iss": "https://login.globex.example"})))


def test_scopes_are_words_and_their_absence_is_none_at_all() -> None:
    assert prove(mint(claims(scope="a  b a "))).scopes == {"a", "b"}
    assert prove(mint(claims(scope=""))).scopes == frozenset()
    assert prove(mint(claims(scope=None))).scopes == frozenset()


@pytest.mark.parametrize("scope", [["a"], 1, 'a"', "a\\b", "\u00e4", "a\tb", " ".join(map(str, range(257)))])
def test_misshapen_scopes_are_refused(scope: object) -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(scope=scope)))


@pytest.mark.parametrize("value", ["a b", ["a", "b"], ["b", "a", "a"]])
def test_scopes_are_read_from_the_configured_claim_only_be_it_a_text_or_a_list(value: object) -> None:
    token = mint(claims(scp=value, scope="c"))
    assert prove(token, rule=rule(scope_claim="scp")).scopes == {"a", "b"}
    assert prove(token).scopes == {"c"}


@pytest.mark.parametrize("value", [["a b"], ["a", 1], [["a"]], {"a": True}, 1, ['a"'], [*map(str, range(257))]])
def test_a_misshapen_list_of_scopes_is_refused(value: object) -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(scp=value)), rule=rule(scope_claim="scp"))


def test_an_issuer_with_a_fixed_tenant_cannot_name_another() -> None:
    assert prove(mint(claims(tenant="globex", org="globex"))).tenant == "acme"


def test_an_issuer_speaks_for_the_tenants_it_is_allowed() -> None:
    assert prove(mint(claims(org="globex")), rule=rule(tenant=TENANTS)).tenant == "globex"


@pytest.mark.parametrize("tenant", [None, "", "initech", "ACME", ["acme"], 1, "acme ", {"acme": 1}])
def test_an_issuer_cannot_speak_for_a_tenant_that_is_not_its_own(tenant: object) -> None:
    with pytest.raises(TenantRefused):
        prove(mint(claims(org=tenant)), rule=rule(tenant=TENANTS))


@pytest.mark.parametrize("tenant", ["", "a/b", " a", "a\n", "x" * 201])
def test_a_tenant_that_is_no_name_is_no_configuration(tenant: str) -> None:
    for bad in (tenant, TenantClaim(claim="org", allowed=("acme", tenant))):
        with pytest.raises(ConfigInvalid):
            check_tenants(rule(tenant=bad))
    with pytest.raises(TenantRefused):
        prove(mint(), rule=rule(tenant=tenant))
