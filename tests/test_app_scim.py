# ruff: noqa: E501  # what providers send reads best in one line
"""An identity provider pushes people into a running gateway, as Entra ID and Okta do, and what it says holds at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from company import Company, company, said
from onbehalf.validate.scim_path import ENTERPRISE
from test_app import recorded

SECRET = "s" * 40
POLICY = """
@id("team") @doc("A manager reads the notes of reports.") @remedy("Ask them.")
permit (principal, action == Action::"readNote", resource is Note)
when { resource.owner has position && principal has position && resource.owner.position in principal.position };
@id("call") @doc("Everybody asks.") @remedy("None.") permit (principal, action == Action::"readNote", resource is Tool);
"""


@dataclass(kw_only=True)
class Provider:
    """An identity provider with this secret."""

    base: str
    secret: str = SECRET

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        sent = {"authorization": f"Bearer {self.secret}", "content-type": "application/scim+json", **headers}
        return httpx2.request(method, f"{self.base}/{path}", json=body, headers=sent, trust_env=False, timeout=20)

    def add(self, name: str, **other: Any) -> str:
        body = {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "userName": name,
            "externalId": f"{name}-at-login",
        }
        answer = self.send("POST", "Users", {**body, "displayName": name.title(), "active": True, **other})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    monkeypatch.setenv("SCIM_ACME", SECRET)
    with company(tmp_path / "it") as made:
        scim = f'directory:\n  scim: [{{tenant: acme, issuer: "{made.issuer.url}", secret: "env:SCIM_ACME", attributes: [department]}}]\n'
        made.edit("upstreams:\n", f"{scim}upstreams:\n")
        (made.directory / "people.yaml").write_text("tenants: {}\n")
        text = (made.directory / "policies" / "own.cedar").read_text()
        (made.directory / "policies" / "own.cedar").write_text(
            text.partition('@id("staff")')[0] + '@id("own")' + text.partition('@id("own")')[2] + POLICY
        )
        yield made


def provider(around: Company) -> Provider:
    return Provider(base=f"{around.gateway}/scim/v2/acme")


def texts(around: Company, name: str) -> Any:
    found = around.call("notes_list", token=around.token(f"{name}-at-login"))
    if "structuredContent" in found:
        return sorted(row["text"] for row in found["structuredContent"]["rows"])
    return (found.get("_meta") or found.get("data"))["onbehalf/denial"]["code"]


def test_who_is_pushed_is_somebody_at_once_and_who_is_disabled_nobody(around: Company) -> None:
    with around.serving():
        idp = provider(around)
        assert texts(around, "alice") == "person_unknown"
        # Entra ID asks first, and gets an empty list
        asked = idp.send("GET", 'Users?filter=userName eq "alice"')
        assert (asked.status_code, asked.json()["totalResults"], asked.json()["Resources"]) == (200, 0, [])
        alice = idp.add("alice")
        bob = idp.add("bob", **{ENTERPRISE: {"manager": {"value": alice}}})
        assert texts(around, "alice") == ["his", "mine"]  # hers, and her report's
        assert texts(around, "bob") == ["his"]
        moved = idp.send("PATCH", f"Users/{bob}", {"Operations": [{"op": "Remove", "path": f"{ENTERPRISE}:manager"}]})
        assert moved.status_code == 200
        assert texts(around, "alice") == ["mine"]
        disable = {"Operations": [{"op": "Replace", "path": "active", "value": "False"}]}
        assert idp.send("PATCH", f"Users/{alice}", disable).json()["active"] is False
        assert texts(around, "alice") == "not_permitted"
        assert idp.send("DELETE", f"Users/{bob}").status_code == 204
        assert idp.send("GET", f"Users/{bob}").status_code == 404
        assert texts(around, "bob") == "not_permitted"
    pushes = recorded(around, "directory_push")
    assert [each["change"] for each in pushes] == ["added", "added", "changed", "changed", "deleted"]
    with around.serving():  # and after a restart
        assert texts(around, "alice") == "not_permitted"
        again = provider(around).add("bob")
        assert again != bob
        assert texts(around, "bob") == ["his"]


def test_groups_as_okta_pushes_them(around: Company) -> None:
    policy = around.directory / "policies" / "own.cedar"
    policy.write_text(
        policy.read_text()
        + '@id("crew") @doc("d") @remedy("r") permit (principal in Group::"acme/crew", action == Action::"readNote", resource is Note);'
    )
    with around.serving():
        idp = provider(around)
        alice, bob = idp.add("alice"), idp.add("bob")
        made = idp.send("POST", "Groups", {"displayName": "crew", "members": [{"value": alice, "display": "x"}]})
        assert made.status_code == 201
        group = made.json()["id"]
        assert made.headers["location"].endswith(f"/scim/v2/acme/Groups/{group}")
        assert texts(around, "alice") == ["his", "mine"]
        assert texts(around, "bob") == ["his"]
        swap = [
            {"op": "remove", "path": f'members[value eq "{alice}"]'},
            {"op": "add", "path": "members", "value": [{"value": bob}]},
        ]
        assert idp.send("PATCH", f"Groups/{group}", {"Operations": swap}).status_code == 200
        assert (texts(around, "alice"), texts(around, "bob")) == (["mine"], ["his", "mine"])
        renamed = idp.send("PUT", f"Groups/{group}", {"displayName": "others", "members": [{"value": bob}]})
        assert renamed.json()["displayName"] == "others"
        assert texts(around, "bob") == ["his"]
        assert idp.send("DELETE", f"Groups/{group}").status_code == 204
        assert idp.send("GET", "Groups").json()["totalResults"] == 0


def test_what_cannot_be_is_refused_and_changes_nothing(around: Company) -> None:
    with around.serving():
        idp = provider(around)
        alice = idp.add("alice")
        bob = idp.add("bob", **{ENTERPRISE: {"manager": {"value": alice}}})
        for method, path, body, status, kind in (
            ("POST", "Users", {"userName": "ALICE", "externalId": "x"}, 409, "uniqueness"),
            ("POST", "Users", {"displayName": "x"}, 400, "invalidValue"),
            ("POST", "Users", {"userName": "a/b"}, 400, "invalidValue"),
            ("POST", "Users", [1], 400, "invalidSyntax"),
            ("PATCH", f"Users/{alice}", {"Operations": [{"op": "add", "path": f"{ENTERPRISE}:manager", "value": bob}]}, 400, "invalidValue"),
            ("PATCH", f"Users/{alice}", {"Operations": []}, 400, "invalidSyntax"),
            ("PATCH", f"Users/{alice}", {"Operations": [{"op": "add", "path": "a[", "value": 1}]}, 400, "invalidPath"),
            ("PUT", "Users/nobody", {"userName": "x"}, 404, None),
            ("DELETE", "Users/nobody", None, 404, None),
            ("PUT", "Users", {"userName": "x"}, 405, None),
            ("GET", "Users?filter=userName co 1", None, 400, "invalidFilter"),
            ("GET", "Users?count=x", None, 400, "invalidValue"),
            ("GET", "Bulk", None, 404, None),
        ):  # fmt: skip
            answer = idp.send(method, path, body)
            told = answer.json()
            assert (answer.status_code, told.get("scimType")) == (status, kind), (method, path, told)
            assert told["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
            assert told["status"] == str(status)
        assert (
            idp.send(
                "PATCH",
                f"Users/{bob}",
                {"Operations": [{"op": "replace", "path": "active", "value": False}]},
                **{"if-match": 'W/"9"'},
            ).status_code
            == 412
        )
        assert texts(around, "alice") == ["his", "mine"]
        assert texts(around, "bob") == ["his"]
    assert len(recorded(around, "directory_push")) == 2


def test_only_the_tenants_own_secret_opens_it_and_nothing_tells_tenants_apart(around: Company) -> None:
    with around.serving():
        answers = [
            Provider(base=f"{around.gateway}/scim/v2/{tenant}", secret=secret).send("GET", path)
            for tenant, secret in (
                ("acme", "wrong" * 8),
                ("acme", "x"),
                ("globex", SECRET),
                ("", SECRET),
                ("nobody", "x"),
            )
            for path in ("Users", "ServiceProviderConfig", "Users/x")
        ]
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.text for answer in answers}) == 1
        without = httpx2.get(f"{around.gateway}/scim/v2/acme/Users", trust_env=False)
        assert without.status_code == 401
        assert "bearer" in without.headers["www-authenticate"].lower()
        assert around.token() not in str(provider(around).send("GET", "Users").json())
        as_token = Provider(base=f"{around.gateway}/scim/v2/acme", secret=around.token())
        assert as_token.send("GET", "Users").status_code == 401


def test_pages_and_what_the_service_says_of_itself(around: Company) -> None:
    with around.serving():
        idp = provider(around)
        for number in range(5):
            idp.add(f"p{number}")
        found = idp.send("GET", "Users?startIndex=2&count=2").json()
        assert (found["totalResults"], found["startIndex"], found["itemsPerPage"]) == (5, 2, 2)
        pages = [idp.send("GET", f"Users?startIndex={start}&count=2").json()["Resources"] for start in (1, 3, 5)]
        assert sorted(each["userName"] for page in pages for each in page) == [f"p{number}" for number in range(5)]
        assert idp.send("GET", "Users?count=0").json()["Resources"] == []
        for path in (
            "ServiceProviderConfig",
            "ResourceTypes",
            "Schemas",
            "ResourceTypes/User",
            f"Schemas/{ENTERPRISE}",
        ):
            answer = idp.send("GET", path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/scim+json"
        large = idp.send("POST", "Users", {"userName": "x", "title": "y" * 5 * 2**20})
        assert large.status_code in (400, 413)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("env:SCIM_ACME", "env:NOBODY_SET_THIS", "secret"),
        ("attributes: [department]", "atributes: []", "atributes"),
        ("tenant: acme, issuer", "tenant: globex, issuer", "may not speak"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said(around: Company, old: str, new: str, says: str) -> None:
    around.edit(old, new)
    told = said("check", "-c", around.config)
    assert says in told.out
    assert told.code == 1


def test_a_tenant_is_pushed_or_in_the_file_and_never_both(around: Company) -> None:
    (around.directory / "people.yaml").write_text("tenants: {acme: {people: {x: {name: X}}}}\n")
    told = said("check", "-c", around.config)
    assert told.code == 1
    assert "`acme` is pushed by SCIM and stands in people.yaml" in " ".join(told.out.split())
