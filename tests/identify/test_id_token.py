"""ID tokens: who logged in, at the login that was begun here, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identify.minting import ISSUER, NOW, RULE, all_keys, mint
from onbehalf.config import IssuerSettings, TenantClaim
from onbehalf.errors import IdentifyError
from onbehalf.identify import LoggedIn, peek, verify, verify_id_token
from onbehalf.model import Presented, UnixTime

CLIENT, NONCE = "onbehalf", "n-0S6_WzA2Mj"


def minted(*, typ: str | None = "JWT", algorithm: str = "ES256", **changes: Any) -> str:
    good = {
        "iss": ISSUER, "aud": CLIENT, "sub": "alice", "nonce": NONCE, "iat": NOW - 5, "exp": NOW + 300, **changes
    }  # fmt: skip
    return mint({name: value for name, value in good.items() if value is not None}, algorithm=algorithm, typ=typ)


def proven(token: str, *, rule: IssuerSettings = RULE, **settings: Any) -> LoggedIn:
    peeked = peek(Presented(token=token))
    told = {"client": CLIENT, "nonce": NONCE, "now": NOW, **settings}
    return verify_id_token(peeked, rule=rule, key=all_keys()[peeked.key_id], **told)


@pytest.mark.parametrize("typ", ["JWT", "jwt", None])
@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_a_good_id_token_proves_who_logged_in(typ: str | None, algorithm: str) -> None:
    person = proven(minted(typ=typ, algorithm=algorithm, auth_time=NOW - 60, acr="phr", groups=["a"], email="x"))
    assert (person.subject, person.tenant) == ("alice", "acme")
    assert person.told == {"auth_time": NOW - 60, "acr": "phr"}


def test_what_is_asked_for_is_carried_on_and_another_claim_can_be_the_subject() -> None:
    person = proven(minted(groups=["a"], email="a@b.example", oid="7"), kept=frozenset({"groups"}), subject_claim="oid")
    assert person.subject == "7"
    assert person.told == {"groups": ["a"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"}, {"nonce": None}, {"nonce": 7}, {"nonce": ""}, {"aud": "another"}, {"aud": None},
        {"aud": []}, {"aud": [CLIENT, "another"]}, {"aud": [CLIENT, "another"], "azp": "another"},
        {"azp": "another"}, {"iss": "https://evil.example"}, {"exp": NOW - 60, "iat": NOW - 120}, {"exp": None},
        {"iat": NOW + 120, "exp": NOW + 300}, {"sub": None}, {"sub": ""}, {"sub": "a\u200bb"},
        {"typ": "at+jwt"}, {"typ": "logout+jwt"}, {"typ": "secevent+jwt"}, {"typ": "oauth-id-jag+jwt"},
    ],
)  # fmt: skip
def test_an_id_token_that_is_not_of_this_login_proves_nobody(changes: dict[str, Any]) -> None:
    with pytest.raises(IdentifyError):
        proven(minted(**changes))


def test_an_authorized_party_may_be_named_where_it_is_us() -> None:
    assert proven(minted(aud=[CLIENT, "another"], azp=CLIENT)).subject == "alice"
    assert proven(minted(azp=CLIENT)).subject == "alice"


@given(at=st.integers(0, 400))
def test_any_one_character_changed_proves_nobody(at: int) -> None:
    token = minted()
    place = at % len(token)
    other = "A" if token[place] != "A" else "B"
    with pytest.raises((IdentifyError, KeyError)):
        proven(token[:place] + other + token[place + 1 :])


@given(age=st.integers(0, 5000), max_age=st.integers(1, 3000))
def test_a_login_that_is_older_than_was_asked_for_proves_nobody(age: int, max_age: int) -> None:
    token = minted(auth_time=NOW - age)
    if age <= max_age + 30:
        assert proven(token, max_age=max_age).subject == "alice"
    else:
        with pytest.raises(IdentifyError):
            proven(token, max_age=max_age)


def test_a_login_without_its_time_does_not_meet_an_age_that_was_asked_for() -> None:
    with pytest.raises(IdentifyError):
        proven(minted(), max_age=300)


def test_the_provider_speaks_for_its_tenants_only() -> None:
    rule = IssuerSettings(issuer=ISSUER, tenant=TenantClaim(claim="org", allowed=("acme",)))
    assert proven(minted(org="acme"), rule=rule).tenant == "acme"
    for org in ("globex", None, ["acme"]):
        with pytest.raises(IdentifyError):
            proven(minted(org=org), rule=rule)


def test_an_id_token_is_no_access_token() -> None:
    peeked = peek(Presented(token=minted()))
    with pytest.raises(IdentifyError):
        verify(peeked, rule=RULE, key=all_keys()[peeked.key_id], audience=CLIENT, now=UnixTime(NOW))
