"""Who a person is by the claims of their token: what issuers put there, and whatever else may stand there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf.config_directory import ClaimsSettings
from onbehalf.errors import ClaimsUnusable
from onbehalf.model import Json, canonical
from onbehalf.validate.claims_people import kept_claims, member_of
from onbehalf.validate.people import Login, Member
from validate import policy_house

ISSUER = policy_house.EVIDENCE.issuer
ENTRA = ClaimsSettings(
    tenant="acme", issuer=ISSUER, person="oid", groups="groups", group_names={"7d0a": "hr"}, attributes=("department",)
)
PLAIN = ClaimsSettings(tenant="acme", issuer=ISSUER, groups="groups")


def told(claims: dict[str, Json], by: ClaimsSettings = PLAIN) -> Member:
    caller = policy_house.caller(tenant="acme")
    return member_of(replace(caller, subject="s-1", claims=canonical(claims)), by)


def test_a_token_says_who_its_person_is() -> None:
    claims: dict[str, Json] = {
        "oid": "a-1", "name": "Ann Lee", "groups": ["7d0a", "0000"], "department": "sales", "title": "x", "sub": "s-1",
    }  # fmt: skip
    assert told(claims, ENTRA) == Member(
        id="a-1", name="Ann Lee", position="", groups=("hr",), active=True, attributes={"department": "sales"},
        logins=(Login(issuer=ISSUER, subject="s-1"),),
    )  # fmt: skip


def test_without_names_every_group_is_taken_as_it_is_called() -> None:
    assert told({"sub": "s-1", "groups": ["hr", "staff", "hr"]}).groups == ("hr", "staff")
    assert told({"sub": "s-1", "groups": "hr staff"}).groups == ("hr staff",)  # one name, and not two


@pytest.mark.parametrize("claims", [{}, {"groups": []}, {"hasgroups": False}, {"_claim_names": {"photo": "src1"}}])
def test_a_token_without_groups_says_that_its_person_is_in_none(claims: dict[str, Json]) -> None:
    assert told({"sub": "s-1", **claims}).groups == ()


@pytest.mark.parametrize(
    "claims",
    [
        {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.example"}}},
        {"_claim_names": {"groups": "src1"}, "groups": ["hr"]},
        {"hasgroups": True},
        {"hasgroups": "true"},
    ],
)
def test_groups_that_are_too_many_for_a_token_are_not_taken_for_none(claims: dict[str, Json]) -> None:
    with pytest.raises(ClaimsUnusable, match="all groups"):
        told({"sub": "s-1", **claims})


@pytest.mark.parametrize("groups", [{"hr": True}, 7, None, [["hr"]], ["hr", 1], ["a/b"], [""], ["h\u200br"], True])
def test_groups_that_are_no_list_of_names_are_refused(groups: Json) -> None:
    with pytest.raises(ClaimsUnusable):
        told({"sub": "s-1", "groups": groups})


@pytest.mark.parametrize("person", [None, "", " ", 7, ["s-1"], "a/b", "globex/ann", "a\u202eb", "x" * 201])
def test_a_person_without_a_name_that_can_be_one_is_refused(person: Json) -> None:
    with pytest.raises(ClaimsUnusable) as caught:
        told({"sub": person})
    assert caught.value.hint
    with pytest.raises(ClaimsUnusable):
        told({"name": "Ann"})


def test_attributes_are_plain_values_and_only_those_that_are_wanted() -> None:
    with pytest.raises(ClaimsUnusable):
        told({"oid": "a", "department": {"of": "sales"}}, ENTRA)
    assert told({"oid": "a", "department": None}, ENTRA).attributes == {"department": None}
    assert told({"oid": "a", "title": "boss"}, ENTRA).attributes == {}


def test_a_claim_named_active_or_logins_or_position_means_nothing() -> None:
    claims: dict[str, Json] = {"sub": "s-1", "active": False, "position": "ceo", "manager": "x", "logins": [{}]}
    assert told(claims) == told({"sub": "s-1"})


def test_only_what_is_looked_at_is_kept_of_a_token() -> None:
    other = ClaimsSettings(tenant="globex", issuer=ISSUER, person="email", name="nick")
    assert kept_claims([ENTRA, other]) == {
        ISSUER: frozenset({"oid", "name", "department", "groups", "_claim_names", "hasgroups", "email", "nick"})
    }
    assert kept_claims([]) == {}


_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.sampled_from(["hr", "a/b", "7d0a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(claims=st.dictionaries(st.sampled_from([*kept_claims([ENTRA])[ISSUER], "sub"]), _values))
def test_whatever_a_token_holds_it_tells_of_one_person_or_is_refused(claims: dict[str, Json]) -> None:
    for by in (ENTRA, PLAIN):
        try:
            member = told(claims, by)
        except ClaimsUnusable:
            continue
        assert member.id == claims[by.person]
        assert "/" not in member.id
        assert (member.position, member.active) == ("", True)
        assert {*member.groups} <= ({"hr"} if by is ENTRA else {*_flat(claims.get("groups"))})


def _flat(groups: Json) -> list[Json]:
    return [*groups] if isinstance(groups, list) else [groups]
