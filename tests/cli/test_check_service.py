"""`check --as-service` says of every tool why a program is shown it or not, and what would keep it from a call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_house import ASKING, BROKER
from company import Company, company, said
from identify.svids import DOMAIN, EXPORT
from test_services import fresh, let_in, spiffe_house


def seen_as(config: Path, service: str, *more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the lines about this service by what they are about; "" for that there are none."""
    told = said("check", "-c", config, "--as-service", service, *more, "--json")
    assert told.err == ""
    found = json.loads(told.out)["findings"]
    return told.code, {
        each["what"].removeprefix(service).removeprefix(": "): each
        for each in found if each["what"].startswith(service)
    }  # fmt: skip


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        let_in(made, "export")
        yield made


@pytest.mark.parametrize(
    "told_by",
    [
        "{told_by: sub}",
        "{told_by: claim, claim: gty, value: client-credentials}",
        "{told_by: no_sub}, introspection: {endpoint: 'https://a.example/i', client_id: g, client_secret: 'file:s'}",
    ],
)
def test_a_service_of_an_issuer_is_told_by_which_policy_it_is_shown_a_tool(around: Company, told_by: str) -> None:
    around.edit("algorithms: [ES256]}", f"algorithms: [ES256], services: {told_by}}}")
    (around.directory / "s").write_text("a secret")
    _, lines = seen_as(around.config, "acme/export")
    assert lines["service"]["text"].startswith("acme/export calls by itself, proven by " + around.issuer.url)
    assert lines["tool notes_list"]["text"] == "shown: permitted by `export-notes`"
    assert lines["tool desk_read"]["text"] == "shown: permitted by `export-desk`"
    assert lines["tool desk_write"]["level"] == "warning"
    assert lines["tools"]["text"] == "2 of 3 are shown"
    code, lines = seen_as(around.config, "acme/another")
    assert code == 1
    assert "shown no tool at all" in lines["tools"]["text"]


def test_a_workload_is_shown_what_the_gateway_lists_for_it_with_the_scopes_of_its_trust_domain(tmp_path: Path) -> None:
    with spiffe_house(tmp_path / "it") as made:
        code, lines = seen_as(made.config, f"acme/{EXPORT}")
        assert code == 0
        assert lines["service"]["text"].endswith("scopes: notes.read")
        shown = {what.removeprefix("tool ") for what, each in lines.items() if each["text"].startswith("shown")}
        with made.serving():
            assert made.tools(token=fresh(made)) == shown == {"notes_list", "desk_read"}
        _, lines = seen_as(made.config, f"acme/{EXPORT}", "--scope", "notes.read")
        assert "has no scopes" in lines[""]["text"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("acme/export", "no issuer of the tenant `acme` has services"),
        (f"other/{EXPORT}", "no trust domain of the tenant `other`"),
        ("acme/spiffe://other.example/x", "no trust domain of the tenant `acme`"),
        (f"acme/spiffe://{DOMAIN}/a/../b", "`sub` is not the SPIFFE ID of a workload"),
        (f"acme/spiffe://{DOMAIN}", "`sub` is not the SPIFFE ID of a workload"),
    ],
)
def test_who_can_be_no_service_is_told_why(tmp_path: Path, name: str, why: str) -> None:
    with spiffe_house(tmp_path / "it") as made:
        code, lines = seen_as(made.config, name)
        assert code == 1
        assert why in lines[""]["text"]


def test_a_name_that_begins_like_no_issuers_services_is_told_how_they_begin(around: Company) -> None:
    around.edit("algorithms: [ES256]}", "algorithms: [ES256], services: {told_by: sub, prefix: 'jobs-'}}")
    _, lines = seen_as(around.config, "acme/export")
    assert "begin with `jobs-`" in lines[""]["text"]
    _, lines = seen_as(around.config, "acme/jobs-export")
    assert lines["service"]["text"].startswith("acme/jobs-export calls by itself")


def test_a_missing_scope_and_an_approval_that_nobody_can_give_are_told(around: Company) -> None:
    around.edit("algorithms: [ES256]}", "algorithms: [ES256], services: {told_by: sub}, login: {client_id: gateway}}")
    _, lines = seen_as(around.config, "acme/export", "--scope", "desk.write")
    assert "lacks notes.read" in lines["tool notes_list"]["text"]
    around.edit('@id("export-desk")', '@id("export-desk") @approve("self")', name="policies/services.cedar")
    _, lines = seen_as(around.config, "acme/export")
    assert "needs an approval, which nobody can give" in lines["tool desk_read"]["text"]


ACCOUNT = """account: {authorization_endpoint: "https://a.example/a", token_endpoint: "https://a.example/t",
      client_id: g, client_secret: "file:s"}"""
AUTHORIZATION = """authorization: {issuer: "https://a.example", token_endpoint: "https://a.example/t",
      client_id: g, client_secret: "file:s"}"""


@pytest.mark.parametrize(("rule", "code"), [(ACCOUNT, "connection_needed"), (AUTHORIZATION, "upstream_login_failed")])
def test_what_its_upstream_needs_of_a_person_keeps_a_service_from_it(around: Company, rule: str, code: str) -> None:
    around.edit("algorithms: [ES256]}", "algorithms: [ES256], services: {told_by: sub}, login: {client_id: gateway}}")
    around.edit('    protocol: "2026-07-28"\n', f'    protocol: "2026-07-28"\n    {rule}\n')
    _, lines = seen_as(around.config, "acme/export")
    assert lines["tool desk_read"]["level"] == "warning"
    assert lines["tool desk_read"]["text"].startswith("shown, but a call is refused: ")
    assert f"({code})" in lines["tool desk_read"]["text"]
    assert lines["tool notes_list"]["level"] == "ok"
    told = said("check", "-c", around.config, "--as", "acme/alice", "--json")
    (alice,) = [each for each in json.loads(told.out)["findings"] if each["what"] == "acme/alice: tool desk_read"]
    assert alice["level"] == "ok"


def test_a_parameter_that_is_a_persons_keeps_a_service_from_its_tool(around: Company) -> None:
    around.edit("algorithms: [ES256]}", "algorithms: [ES256], services: {told_by: sub}}")
    around.edit("desk_read: {action: readDesk}", "desk_read: {action: readDesk, bound: {word: {principal: name}}}")
    _, lines = seen_as(around.config, "acme/export")
    assert "a person's `name`" in lines["tool desk_read"]["text"]
    assert "arguments_refused" in lines["tool desk_read"]["text"]


def test_a_token_of_another_issuer_than_the_exchanges_is_told_to_be_of_no_use(tmp_path: Path) -> None:
    with spiffe_house(tmp_path / "it") as made:
        (made.directory / "s").write_text("a secret")
        rule = f'exchange: {{issuer: "{made.issuer.url}", client_id: g, client_secret: "file:s", audience: desk}}'
        made.edit('    protocol: "2026-07-28"\n', f'    protocol: "2026-07-28"\n    {rule}\n')
        _, lines = seen_as(made.config, f"acme/{EXPORT}")
        assert "exchange_impossible" in lines["tool desk_read"]["text"]


def test_a_person_who_signs_in_by_the_broker_is_told_that_they_can_approve(tmp_path: Path) -> None:
    with company(tmp_path / "it") as made:
        text = made.config.read_text(encoding="utf-8")
        start, end = text.index("issuers:"), text.index("upstreams:")
        made.config.write_text(text[:start] + text[end:] + BROKER.replace("@LOGIN@", made.issuer.url), encoding="utf-8")
        made.edit(made.issuer.url, made.gateway, name="people.yaml")
        staff = 'permit (principal in Group::"acme/staff", action'
        made.edit(f"{staff},", f'{staff} == Action::"readDesk",', name="policies/own.cedar")
        (made.directory / "policies" / "asking.cedar").write_text(ASKING)
        told = said("check", "-c", made.config, "--as", "acme/alice", "--json")
        found = {each["what"]: each for each in json.loads(told.out)["findings"]}
        assert found["acme/alice: tool desk_write"]["text"] == "shown: permitted by `asked`"


def test_one_is_looked_as_at_a_time_and_by_a_whole_name(around: Company) -> None:
    both = said("check", "-c", around.config, "--as", "acme/alice", "--as-service", "acme/export")
    assert (both.code, both.out) == (2, "")
    half = said("check", "-c", around.config, "--as-service", "export")
    assert half.code == 2
    assert "TENANT/SERVICE" in half.err
