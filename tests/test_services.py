"""Programs that call by themselves, from end to end, and everything by which one could pass for a person."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from company import Company, company, said
from house import Doors, house, request
from identify.svids import DOMAIN, EXPORT, bundle, svid
from oidc_tokens import GATEWAY, GATEWAY_SECRET, ROBOT, token_server
from onbehalf import config
from onbehalf.act import change_set, once
from onbehalf.approving import Approving
from onbehalf.connecting import Connecting, owner_of
from onbehalf.doors.directory_revoked import RevokedPeople
from onbehalf.doors.directory_services import ServicesToo
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.revocations_sqlite import Revocations
from onbehalf.errors import ArgumentsRefused, Blocked, ConfigInvalid, PersonUnknown
from onbehalf.model import Bound, Caller, Digest, Presented, Ref
from onbehalf.validate import decide, paging, questions, route
from onbehalf.validate.people import parse
from replacing import replace
from service_house import call_of, service, service_caller
from test_app import recorded
from validate.policy_house import BOB, EVIDENCE, NOW, person

ALLOW_EXPORT = """
@id("export-notes") @doc("The nightly export reads notes.") @remedy("None.")
permit (principal == Service::"acme/@NAME@", action == Action::"readNote", resource);
@id("export-desk") @doc("The nightly export reads the desk, and writes it once asked.") @remedy("None.")
permit (principal == Service::"acme/@NAME@", action == Action::"readDesk", resource is Tool);
"""


# --- in the rooms: what is a person's alone ---------------------------------------------------


def test_a_service_that_is_called_like_a_person_shares_nothing_with_them() -> None:
    bob, like_bob = call_of(person(BOB)), call_of(service("bob"))
    assert bob.person.ref.id == like_bob.person.ref.id == "acme/bob"
    assert bob.caller.client == "chat"
    like_bob = replace(like_bob, caller=replace(like_bob.caller, client="chat"))
    assert once.known_by(bob) != once.known_by(like_bob)
    owed = [decide_allow(call) for call in (bob, like_bob)]
    assert change_set(owed[0], "x", key=b"k") != change_set(owed[1], "x", key=b"k")
    assert paging._bound(bob, Digest("sha256:p")) != paging._bound(like_bob, Digest("sha256:p"))
    assert owner_of(bob).person == "bob"
    assert owner_of(like_bob).person == "service/bob"  # in which no person's id has a slash


def decide_allow(call: Any) -> Any:
    question = questions.about_tool(call.person, call.caller, call.tool, NOW)
    judgement = decide.Judgement(allowed=True, policies=("p",), errors=(), validated=True)
    return decide.decide(call, question=question, judgement=judgement, candidates=tuple, policy=Digest("sha256:p"))


def test_a_yes_about_a_person_is_none_for_a_service_in_their_place() -> None:
    call = call_of(service("bob"))
    crossed = replace(call, person=person(BOB))  # a service's caller with a person's slice, and the other way round
    for each in (crossed, replace(call_of(person(BOB)), person=service("bob"))):
        assert type(decide_allow(each)).__name__ == "Deny"
    assert type(decide_allow(call)).__name__ == "Allow"


@pytest.mark.parametrize("name", ["name", "position", "subject", "department"])
def test_a_parameter_that_is_a_persons_is_not_bound_for_a_service(name: str) -> None:
    bound = Bound(parameter="who", source="principal", name=name)
    arrival = route.Arrival(id=call_of(service()).id, at=NOW, caller=service_caller(), person=service())
    with pytest.raises(ArgumentsRefused, match="a service called"):
        route._bound(bound, arrival)


def test_the_id_that_is_bound_for_a_service_is_no_persons() -> None:
    bound = Bound(parameter="who", source="principal", name="id")
    arrival = route.Arrival(id=call_of(service()).id, at=NOW, caller=service_caller(), person=service("bob"))
    assert route._bound(bound, arrival) == "service/bob"
    with pytest.raises(ConfigInvalid):
        parse("tenants: {acme: {people: {'service/bob': {name: Bob}}}}")


def test_nobody_approves_for_a_service_and_it_has_no_account_anywhere() -> None:
    approving = object.__new__(Approving)
    object.__setattr__(approving, "issuers", frozenset({EVIDENCE.issuer}))
    assert approving.can(call_of(person(BOB)).caller)
    assert not approving.can(service_caller("bob"))

    class Vault:
        async def find(self, owner: Any) -> Any:
            return "an account" if owner.person == "bob" else None

    class Title:
        title = "Code"

    connecting = Connecting(
        clock=lambda: NOW, fresh=lambda: "id", vault=Vault(), directory=Doors(), ledger=Doors(), url="https://g/c/",
        issuers=frozenset({EVIDENCE.issuer}), accounts={"hr": Title()},
    )  # type: ignore[arg-type]  # fmt: skip
    assert asyncio.run(connecting.needed(call_of(person(BOB)))) is None
    waiting = asyncio.run(connecting.needed(call_of(service("bob"))))
    assert waiting is not None
    assert waiting.url == ""


def test_a_service_is_never_looked_up_among_people(tmp_path: Path) -> None:
    people = parse(
        "tenants: {acme: {people: {bob: {name: Bob, logins: [{issuer: 'https://issuer.test', subject: bob}]}}}}"
    )
    file = SqliteDirectory.open(tmp_path / "directory.db")
    file.load(people)
    with contextlib.closing(file):
        with pytest.raises(PersonUnknown):
            asyncio.run(file.person(service_caller("bob")))
        found = asyncio.run(ServicesToo(file).person(service_caller("bob")))
        assert (found.ref, found.kind) == (Ref(type="Service", id="acme/bob"), "service")
        as_bob = replace(service_caller("bob"), kind="person", service="")
        assert asyncio.run(ServicesToo(file).person(as_bob)).ref == Ref(type="User", id="acme/bob")


def test_a_person_who_is_stopped_stops_no_service_of_that_name_and_their_client_does(tmp_path: Path) -> None:
    def known(revocations: Revocations, caller: Caller) -> Any:
        revoked = RevokedPeople(ServicesToo(Doors()), revocations, note=lambda kind, facts: None)
        return asyncio.run(revoked.person(caller))

    with contextlib.closing(Revocations.open(tmp_path / "revocations.db")) as revocations:
        revocations.add("person", "acme", "bob", at=NOW, blocks=True, by="t", reason="r")
        assert known(revocations, service_caller("bob")).kind == "service"
        revocations.add("client", "acme", "chat", at=NOW, blocks=True, by="t", reason="r")
        with pytest.raises(Blocked):
            known(revocations, service_caller("bob"))


# --- in the house -----------------------------------------------------------------------------


class ServiceDoors(Doors):
    """In which every token is a service's that is called like it."""

    async def prove(self, presented: Presented, *, now: Any) -> Caller:
        return replace(service_caller(presented.token), scopes=self.scopes)


def test_in_a_house_whose_policies_speak_of_people_a_service_sees_and_may_nothing(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    known = ServicesToo(doors)
    gateway = replace(gateway, callers=ServiceDoors(), directory=known)
    assert asyncio.run(gateway.tools(Presented(token="bob"))) == []
    for name in ("reviews_list", "tickets_update"):
        arguments = {"ticket_id": "1", "status": "x"} if name == "tickets_update" else {}
        reply = asyncio.run(gateway.call(Presented(token="bob"), request(name, **arguments)))
        assert reply.denial == "not_permitted"
    assert not doors.sent
    facts = doors.entries[-1].facts
    assert "person" not in facts
    assert facts["service"] == {"id": "acme/bob", "name": "bob"}
    assert facts["caller"]["kind"] == "service"  # type: ignore[index, call-overload]


# --- configuration ----------------------------------------------------------------------------

GOOD = """
gateway: {resource: "https://gateway.example/mcp"}
upstreams: {}
issuers:
  - {issuer: "https://one.example", tenant: acme, services: {told_by: sub, prefix: one-}}
  - {issuer: "https://two.example", tenant: {claim: t, allowed: [acme, globex]}, services: {told_by: sub, prefix: two-}}
workloads:
  - {trust_domain: prod.acme.example, tenant: acme, bundle_url: "https://spire.example/bundle"}
  - {trust_domain: dev.acme.example, tenant: acme, bundle_file: dev.json}
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (", prefix: two-", "", "could be of"),
        (", prefix: one-", "", "could be of"),
        ("prefix: one-", "prefix: two-", "could be of"),
        ("prefix: one-", "prefix: tw", "could be of"),
        ("prefix: one-", "prefix: a/b", "prefix"),
        ("told_by: sub, prefix: one-", "told_by: no_sub, prefix: one-", "always has a subject"),
        ("told_by: sub, prefix: one-", "told_by: claim, prefix: one-", "not clear"),
        ("told_by: sub, prefix: one-", "told_by: sub, claim: gty, prefix: one-", "not clear"),
        ("told_by: sub, prefix: one-", "prefix: one-", "told_by"),
        ("told_by: sub, prefix: one-", "told_by: always, prefix: one-", "told_by"),
        ("told_by: sub, prefix: one-", "tolt_by: sub", "`told_by`"),
        ("trust_domain: dev.acme.example", "trust_domain: prod.acme.example", "stands twice"),
        ("trust_domain: dev.acme.example", "trust_domain: Dev.acme.example", "trust_domain"),
        ("trust_domain: dev.acme.example", 'trust_domain: "spiffe://dev"', "trust_domain"),
        (", bundle_file: dev.json", "", "needs one of"),
        ("bundle_file: dev.json", 'bundle_file: dev.json, bundle_url: "https://x.example/b"', "needs one of"),
        ('"https://spire.example/bundle"', '"http://spire.example/bundle"', "not https"),
        ("bundle_file: dev.json", "bundle_file: dev.json, algorithms: [HS256]", "algorithms"),
        ("bundle_file: dev.json", "bundle: dev.json", "`bundle_file`"),
    ],
)
def test_who_counts_as_a_service_is_said_clearly_or_not_at_all(old: str, new: str, told: str) -> None:
    assert len(config.parse(GOOD).workloads) == 2
    assert old in GOOD
    with pytest.raises(ConfigInvalid) as found:
        config.parse(GOOD.replace(old, new))
    assert told in found.value.message


# --- from end to end --------------------------------------------------------------------------


def let_in(made: Company, name: str) -> None:
    """Let this service read notes and the desk; nobody else's rights change."""
    for action in ("readNote", "readDesk, writeDesk"):
        made.edit(
            f"action {action} appliesTo {{ principal: User,",
            f"action {action} appliesTo {{ principal: [User, Service],",
            name="policies/own.cedarschema",
        )
    text = ALLOW_EXPORT.replace("@NAME@", name)
    (made.directory / "policies" / "services.cedar").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def spiffe_house(directory: Path) -> Iterator[Company]:
    with company(directory) as made:
        (directory / "bundle.json").write_bytes(bundle())
        domain = f"{{trust_domain: {DOMAIN}, tenant: acme, bundle_file: bundle.json, scopes: [notes.read]}}"
        made.edit("upstreams:\n", f"workloads: [{domain}]\nupstreams:\n")
        let_in(made, EXPORT)
        yield made


def fresh(made: Company, **changes: Any) -> str:
    now = int(time.time())
    return svid(**{"aud": [f"{made.gateway}/mcp"], "iat": now - 5, "exp": now + 300, **changes})


def code(found: Any) -> str:
    return str((found.get("_meta") or found.get("data") or {}).get("onbehalf/denial", {}).get("code", ""))


def test_a_workload_calls_with_its_jwt_svid_and_is_a_service_all_the_way(tmp_path: Path) -> None:
    with spiffe_house(tmp_path / "it") as made:
        checked = said("check", "-c", made.config)
        assert checked.code == 0, checked.out
        assert "1 trust domain" in checked.out
        with made.serving():
            token = fresh(made)
            assert made.tools(token=token) == {"notes_list", "desk_read"}
            rows = made.call("notes_list", token=token)["structuredContent"]["rows"]
            assert [row["id"] for row in rows] == [1, 2]  # its own policy says: every note of the tenant
            assert made.call("desk_read", token=token)["content"]
            name, claims = made.desk.seen[-1]
            assert (name, claims["sub"], claims["sub_profile"]) == (
                "desk_read", f"service:acme/{EXPORT}", "service",
            )  # fmt: skip
            assert claims["rctx"]["subject"] == EXPORT
            assert "insufficient_scope" in json.dumps(made.call("desk_write", token=token))
            alice = made.call("notes_list")["structuredContent"]["rows"]
            assert [row["id"] for row in alice] == [1]  # people are judged as before
        told = " ".join(said("explain", "last", "-c", made.config).out.split())
        assert "Alice Example (acme/alice)" in told
        mine = [each for each in recorded(made, "intent") if "service" in each]
        assert mine
        assert all(each["service"]["id"] == f"acme/{EXPORT}" and "person" not in each for each in mine)
        listed = said("audit", "list", "-c", made.config, "--json").out
        assert f'"service": "acme/{EXPORT}"' in listed


def test_attacks_with_jwt_svids_are_refused_at_the_front_door(tmp_path: Path) -> None:
    with spiffe_house(tmp_path / "it") as made, made.serving():
        now = int(time.time())
        for what, token in {
            "for another": fresh(made, aud=["https://other.example/mcp"]),
            "foreign trust domain": fresh(made, sub="spiffe://globex.example/agents/nightly-export"),
            "upper case": fresh(made, sub=EXPORT.replace(DOMAIN, DOMAIN.upper())),
            "percent": fresh(made, sub=EXPORT.replace("nightly", "%6eightly")),
            "dots": fresh(made, sub=f"spiffe://{DOMAIN}/x/../agents/nightly-export"),
            "empty segment": fresh(made, sub=f"spiffe://{DOMAIN}//agents/nightly-export"),
            "the domain itself": fresh(made, sub=f"spiffe://{DOMAIN}"),
            "person": fresh(made, sub="alice-at-login"),
            "person of the issuer": fresh(made, sub="alice-at-login", iss=made.issuer.url),
            "other key": fresh(made, name="attacker"),
            "expired": fresh(made, iat=now - 900, exp=now - 60),
            "access token": fresh(made, header={"typ": "at+jwt"}),
            "an issuer's word on a workload": made.token(EXPORT),
        }.items():
            answer = made.post("tools/list", token=token)
            assert answer.status_code == 401, what
        stray = fresh(made, sub=f"spiffe://{DOMAIN}/agents/other")
        assert made.tools(token=stray) == set()
        assert code(made.call("notes_list", token=stray)) == "not_permitted"


def test_a_workload_is_stopped_by_its_id_and_with_its_tenant(tmp_path: Path) -> None:
    with spiffe_house(tmp_path / "it") as made, made.serving():
        token = fresh(made)
        assert code(made.call("desk_read", token=token)) == ""
        stopped = said("revoke", "client", EXPORT, "--reason", "leaks", "--config", made.config)
        assert stopped.code == 0, stopped.err
        time.sleep(0.2)
        assert code(made.call("desk_read", token=token)) == "blocked"
        assert said("revoke", "lift", "1", "--config", made.config).code == 0
        assert said("revoke", "tenant", "acme", "--reason", "incident", "--config", made.config).code == 0
        time.sleep(0.2)
        assert code(made.call("desk_read", token=token)) == "blocked"


def test_an_approval_cannot_be_had_for_a_service(tmp_path: Path) -> None:
    with spiffe_house(tmp_path / "it") as made:
        path = made.directory / "policies" / "services.cedar"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('@id("export-desk")', '@id("export-desk") @approve("self")'), encoding="utf-8")
        made.edit("algorithms: [ES256]}", "algorithms: [ES256], login: {client_id: gateway}}")
        with made.serving():
            token = fresh(made)
            assert made.tools(token=token) == {"notes_list"}
            found = made.call("desk_read", token=token)
            assert code(found) == "approval_required"
            assert "/approvals/" not in json.dumps(found)
            assert not made.desk.seen


@pytest.mark.parametrize("format", ["jwt", "opaque"])
def test_a_program_calls_with_client_credentials_of_a_real_server(tmp_path: Path, format: str) -> None:
    told_by = {"jwt": "sub", "opaque": "no_sub"}[format]
    with company(tmp_path / "it") as made, token_server(format=format) as server:
        asked = (
            f", introspection: {{endpoint: '{server.issuer}/token/introspection', client_id: '{GATEWAY}', "
            "client_secret: file:own.secret}"
            if format == "opaque"
            else ""
        )
        (made.directory / "own.secret").write_text(GATEWAY_SECRET)
        known = f"tenant: acme, algorithms: [RS256]{asked}"
        made.edit("tenant: acme, algorithms: [ES256]}", f"{known}, services: {{told_by: {told_by}}}}}")
        for name in ("onbehalf.yaml", "people.yaml"):
            made.edit(made.issuer.url, server.issuer, name=name)
        # a person who is called like the robot, here and at the login
        people = made.directory / "people.yaml"
        bob = people.read_text(encoding="utf-8").splitlines()[-1]
        robot = bob.replace("bob-at-login", ROBOT).replace("bob:", f"{ROBOT}:").replace("Bob", "Robot")
        made.edit(bob, f"{bob}\n{robot}", name="people.yaml")
        let_in(made, ROBOT)
        robot = server.program(resource=f"{made.gateway}/mcp", scope="notes.read desk.write")["access_token"]
        namesake = server.person(ROBOT, resource=f"{made.gateway}/mcp", scope="notes.read desk.write")["access_token"]
        with made.serving():
            assert made.tools(token=robot) == {"notes_list", "desk_read"}
            rows = made.call("notes_list", token=robot)["structuredContent"]["rows"]
            assert [row["id"] for row in rows] == [1, 2]
            assert made.call("desk_read", token=robot)["content"]
            assert made.desk.seen[-1][1]["sub"] == f"service:acme/{ROBOT}"
            assert code(made.call("desk_write", token=robot)) == "not_permitted"
            assert made.tools(token=namesake) == set(), "a person who is called so is a person"
            assert made.call("notes_list", token=namesake)["isError"]
        last = [each for each in recorded(made, "denial") if "person" in each]
        assert {each["person"]["id"] for each in last} == {f"acme/{ROBOT}"}
        made.edit(f", services: {{told_by: {told_by}}}", "")
        with made.serving():
            # without the setting its token is what it was: a login that somebody may have, or nobody's
            answer: httpx2.Response = made.post("tools/list", token=robot)
            assert answer.status_code == (401 if format == "opaque" else 200)
            if format == "jwt":
                assert answer.json()["result"]["tools"] == []  # the person of that login, and what they may


def test_the_story_of_a_service_says_that_nobody_is_behind_it(tmp_path: Path) -> None:
    with spiffe_house(tmp_path / "it") as made:
        with made.serving():
            made.call("desk_read", token=fresh(made))
        told = " ".join(said("explain", "last", "-c", made.config).out.split())
        assert f"Service acme/{EXPORT} of tenant acme called by itself, for no person" in told
        assert f"spiffe://{DOMAIN} vouched for this (key ES256, ES256)" in told
