# ruff: noqa: E501  # what providers send reads best in one line
"""What identity providers send becomes one form: the spellings of Entra ID and Okta, and whatever else comes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf.errors import ScimInvalid
from onbehalf.model import Json
from onbehalf.validate.scim import EXACT, normal, patched
from onbehalf.validate.scim_path import ENTERPRISE, Equal, Path, holds, read_filter, read_path
from onbehalf.validate.scim_people import Feed, Pushed, tenant_people

ANN: dict[str, Json] = {"userName": "ann@acme.example", "externalId": "0a21", "displayName": "Ann Lee", "active": True}
FEED = Feed(
    tenant="acme", issuer="https://login.example", person="userName", login="externalId", attributes=("department",)
)


def patch(*operations: Json, kept: dict[str, Json] | None = None, kind: Any = "User") -> dict[str, Json]:
    return patched(kind, kept or ANN, {"Operations": list(operations)})


# --- users ---------------------------------------------------------------------------------


def test_what_is_kept_of_a_user_is_spelled_as_the_schema_does() -> None:
    sent: dict[str, Json] = {
        "USERNAME": "ann@acme.example", "Active": "True", "password": "secret", "name": {"GivenName": "Ann"},
        ENTERPRISE.upper(): {"Department": "sales", "manager": {"value": "m1", "displayName": "x"}},
        "emails": [{"value": "a@x", "primary": True}, {"type": "work"}],
    }  # fmt: skip
    assert normal("User", sent) == {
        "userName": "ann@acme.example", "active": True, "name": {"givenName": "Ann"}, "emails": [{"value": "a@x"}],
        ENTERPRISE: {"department": "sales", "manager": {"value": "m1"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "Replace", "path": "active", "value": "False"},  # Entra ID
        {"op": "replace", "value": {"active": False}},  # Okta
        {"op": "Add", "path": "active", "value": False},
        {"op": "replace", "path": "urn:ietf:params:scim:schemas:core:2.0:User:active", "value": False},
        {"op": "REPLACE", "value": {"Active": "false"}},
    ],
)
def test_every_way_of_saying_that_somebody_left(operation: Json) -> None:
    assert patch(operation) == {**ANN, "active": False}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "Add", "path": f"{ENTERPRISE}:manager", "value": "m1"},  # Entra ID
        {"op": "Replace", "path": f"{ENTERPRISE}:manager", "value": [{"$ref": "x", "value": "m1"}]},
        {"op": "add", "path": f"{ENTERPRISE}:manager.value", "value": "m1"},
        {"op": "replace", "value": {f"{ENTERPRISE}:manager": {"value": "m1"}}},
        {"op": "replace", "value": {ENTERPRISE: {"manager": {"value": "m1"}}}},  # Okta
        {"op": "replace", "path": ENTERPRISE, "value": {"manager": "m1"}},
    ],
)
def test_every_way_of_naming_a_manager(operation: Json) -> None:
    assert patch(operation) == {**ANN, ENTERPRISE: {"manager": {"value": "m1"}}}


def test_a_manager_can_be_taken_away_and_other_parts_stay() -> None:
    kept: dict[str, Json] = {**ANN, ENTERPRISE: {"manager": {"value": "m1"}, "department": "sales"}}
    assert patch({"op": "Remove", "path": f"{ENTERPRISE}:manager"}, kept=kept)[ENTERPRISE] == {"department": "sales"}
    changed = patch({"op": "replace", "value": {"name.givenName": "Anne", "title": "CTO"}}, kept=kept)
    assert (changed["name"], changed["title"], changed[ENTERPRISE]) == ({"givenName": "Anne"}, "CTO", kept[ENTERPRISE])


def test_mails_are_found_by_their_type() -> None:
    added = patch({"op": "Add", "path": 'emails[type eq "work"].value', "value": "a@x"})
    assert added["emails"] == [{"type": "work", "value": "a@x"}] or added["emails"] == [
        {"value": "a@x", "type": "work"}
    ]
    changed = patch({"op": "Replace", "path": 'emails[type eq "WORK"].value', "value": "b@x"}, kept=added)
    assert [each["value"] for each in changed["emails"]] == ["b@x"]  # type: ignore[union-attr,call-overload,index]
    assert (
        "emails" not in patch({"op": "remove", "path": 'emails[type eq "work"]'}, kept=added)
        or patch({"op": "remove", "path": 'emails[type eq "work"]'}, kept=added)["emails"] == []
    )


# --- groups --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "left"),
    [
        ({"op": "Add", "path": "members", "value": [{"value": "u3"}, {"value": "u1"}]}, ["u1", "u2", "u3"]),
        ({"op": "Remove", "path": "members", "value": [{"value": "u2"}]}, ["u1"]),  # Entra ID
        ({"op": "remove", "path": 'members[value eq "u1"]'}, ["u2"]),  # Okta
        ({"op": "remove", "path": "members"}, []),
        ({"op": "replace", "path": "members", "value": [{"value": "u9"}]}, ["u9"]),
        ({"op": "replace", "value": {"id": "g1", "displayName": "crew"}}, ["u1", "u2"]),  # Okta
        ({"op": "Remove", "path": "members", "value": [{"value": "nobody"}]}, ["u1", "u2"]),
    ],
)
def test_members_come_and_go(operation: Json, left: list[str]) -> None:
    kept: dict[str, Json] = {"displayName": "team", "members": [{"value": "u1"}, {"value": "u2"}]}
    made = patch(operation, kept=kept, kind="Group")
    assert sorted(each["value"] for each in made["members"]) == left  # type: ignore[union-attr,call-overload,index]


# --- filters and paths ---------------------------------------------------------------------


def test_filters_are_read_as_providers_write_them() -> None:
    assert read_filter('userName eq "a@x"') == (Equal(attribute="username", value="a@x"),)
    assert read_filter('externalId eq "1" and active eq true') == (
        Equal(attribute="externalid", value="1"), Equal(attribute="active", value=True),
    )  # fmt: skip
    assert read_filter(r'displayName eq "a \"b\" \\ c"')[0].value == r'a "b" \ c'
    assert holds(read_filter('userName eq "ANN@acme.example"'), ANN, exact=EXACT)
    assert not holds(read_filter('externalId eq "0A21"'), ANN, exact=EXACT)
    assert not holds(read_filter("active eq false"), ANN, exact=EXACT)


@pytest.mark.parametrize(
    "text",
    ["", "userName", "userName co 'a'", 'userName eq "a" or active eq true', 'not (userName eq "a")', 'userName eq "a',
     "userName eq 1", "(" * 900, 'a eq "b" and ' * 9 + 'a eq "b"', 'userName eq "a" junk', "x" * 5000],
)  # fmt: skip
def test_other_filters_are_refused(text: str) -> None:
    with pytest.raises(ScimInvalid) as raised:
        read_filter(text)
    assert (raised.value.kind, raised.value.http) == ("invalidFilter", 400)


def test_paths() -> None:
    assert read_path("name.givenName") == Path(attribute="name", part="givenname")
    assert read_path(f"{ENTERPRISE}:manager") == Path(attribute="manager", extension=True)
    for text in ("", "a.b.c", "a[b]", "a b", "[x eq 1]", "a" * 2000, 'a[value eq "1"]x'):
        with pytest.raises(ScimInvalid):
            read_path(text)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["op", "path", "value", "Operations", "userName", "active", "members", "emails", ENTERPRISE, "manager", "name", "x"]), inner, max_size=3
    ),
    max_leaves=12,
)  # fmt: skip


@given(
    ANYTHING,
    st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "Replace", "remove", "x"]),
                "path": st.sampled_from(
                    [
                        "",
                        "active",
                        "members",
                        "emails",
                        f"{ENTERPRISE}:manager",
                        'emails[type eq "work"].value',
                        'members[value eq "u1"]',
                        "name.givenName",
                        "x[",
                        ENTERPRISE,
                    ]
                ),
                "value": ANYTHING,
            }
        ),
        max_size=4,
    ),
)
def test_whatever_is_sent_is_taken_or_refused_in_words(body: Any, operations: Any) -> None:
    refused: list[str] = []
    for kind, kept in (("User", ANN), ("Group", {"displayName": "team", "members": []})):
        for work in (lambda k=kind: normal(k, body), lambda k=kind, o=kept: patched(k, o, {"Operations": operations})):
            try:
                made = work() if isinstance(body, dict) else {}
            except ScimInvalid as error:
                refused.append(error.kind)
                continue
            assert normal(kind, made) == made if made else True  # type: ignore[arg-type]  # what is kept stays as it is
    assert all(refused)


# --- people --------------------------------------------------------------------------------


def user(id: str, name: str, *, manager: str = "", deleted: bool = False, **other: Json) -> Pushed:
    body: dict[str, Json] = {"userName": name, "externalId": f"x-{name}", "active": True, **other}
    if manager:
        body[ENTERPRISE] = {"manager": {"value": manager}, "department": "sales"}
    return Pushed(id=id, body=body, deleted=deleted)


def test_a_manager_stands_above_those_who_name_them() -> None:
    made = tenant_people(FEED, [user("1", "ann"), user("2", "bob", manager="1"), user("3", "cat", manager="9")], [])
    assert made.positions == {"ann": (), "bob": ("ann",), "cat": ()}
    assert made.people["bob"].position == "bob"
    assert made.people["bob"].attributes == {"department": "sales"}
    assert made.people["bob"].logins[0].subject == "x-bob"


def test_somebody_who_left_keeps_the_place_and_holds_nothing() -> None:
    made = tenant_people(
        FEED, [user("1", "ann"), user("2", "bob", manager="1", deleted=True), user("3", "cat", manager="2")],
        [Pushed(id="g", body={"displayName": "team", "members": [{"value": "2"}, {"value": "3"}]})],
    )  # fmt: skip
    assert made.positions["cat"] == ("bob",)
    assert made.positions["bob"] == ("ann",)
    assert (made.people["bob"].active, made.people["bob"].position, made.people["bob"].groups) == (False, "", ())
    assert made.people["cat"].groups == ("team",)


def test_groups_within_groups() -> None:
    groups = [
        Pushed(id="g1", body={"displayName": "all", "members": [{"value": "g2"}]}),
        Pushed(id="g2", body={"displayName": "some", "members": [{"value": "1"}, {"value": "nobody"}]}),
        Pushed(id="g3", body={"displayName": "gone", "members": [{"value": "1"}]}, deleted=True),
    ]
    made = tenant_people(FEED, [user("1", "ann")], groups)
    assert made.groups == {"all": (), "some": ("all",)}
    assert made.people["ann"].groups == ("some",)


@pytest.mark.parametrize(
    ("users", "groups", "kind"),
    [
        ([user("1", "ann"), user("2", "Ann")], [], "uniqueness"),
        ([user("1", "ann", manager="2"), user("2", "bob", manager="1")], [], "invalidValue"),
        ([user("1", "ann", manager="1")], [], "invalidValue"),
        ([user("1", "a/b")], [], "invalidValue"),
        ([user("1", "ann", externalId="x"), user("2", "bob", externalId="x")], [], "invalidValue"),
        ([], [Pushed(id="1", body={"displayName": "a"}), Pushed(id="2", body={"displayName": "A"})], "uniqueness"),
        ([], [Pushed(id="1", body={"displayName": "a", "members": [{"value": "1"}]})], "invalidValue"),
    ],
)
def test_what_cannot_be_is_refused(users: list[Pushed], groups: list[Pushed], kind: str) -> None:
    with pytest.raises(ScimInvalid) as raised:
        tenant_people(FEED, users, groups)
    assert raised.value.kind == kind
