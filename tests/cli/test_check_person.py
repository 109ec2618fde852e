"""`check --as` says of every tool why a person is shown it or not, and says the same as the gateway lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, said
from house_process import running_demo
from onbehalf.demo.data import world


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        yield made


def seen_as(config: Path, person: str, *more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the lines about this person by what they are about."""
    told = said("check", "-c", config, "--as", person, *more, "--json")
    assert told.err == ""
    mark = f"{person}: "
    found = json.loads(told.out)["findings"]
    return told.code, {each["what"].removeprefix(mark): each for each in found if each["what"].startswith(mark)}


def test_a_person_who_is_shown_everything_is_told_by_which_policy(around: Company) -> None:
    code, lines = seen_as(around.config, "acme/alice")
    assert code == 0
    assert lines["tools"]["text"] == "3 of 3 are shown"
    assert lines["person"]["text"].endswith("groups: acme/staff")
    assert {lines[f"tool {name}"]["text"] for name in ("notes_list", "desk_read", "desk_write")} == {
        "shown: permitted by `staff`"
    }


def test_connected_but_no_tools_names_the_nearest_permit_and_the_next_step(around: Company) -> None:
    code, lines = seen_as(around.config, "acme/bob")
    assert code == 1
    assert "shown no tool at all" in lines["tools"]["text"]
    denied = lines["tool desk_read"]
    assert denied["level"] == "warning"
    assert "`staff`" in denied["text"]
    assert denied["hint"] == "Ask for the group staff."


def test_an_action_that_no_permit_is_about_and_one_that_is_forbidden_are_told_apart(around: Company) -> None:
    around.edit("permit (principal in Group::\"acme/staff\", action, resource is Tool);",
                "permit (principal in Group::\"acme/staff\", action == Action::\"readNote\", resource is Tool);\n"
                '@id("shut") @doc("The desk is shut for writing.") @remedy("Wait until it opens.")\n'
                "forbid (principal, action == Action::\"writeDesk\", resource);",
                name="policies/own.cedar")  # fmt: skip
    _, lines = seen_as(around.config, "acme/alice")
    assert "no policy of the bundle permits `readDesk`" in lines["tool desk_read"]["text"]
    assert "`shut` forbids it" in lines["tool desk_write"]["text"]
    assert lines["tool desk_write"]["hint"] == "Wait until it opens."
    assert lines["tool notes_list"]["level"] == "ok"


def test_an_upstream_that_does_not_answer_is_why_nobody_is_shown_its_tools(around: Company) -> None:
    around.desk.stop()
    code, lines = seen_as(around.config, "acme/alice")
    assert code == 1
    assert lines["tool desk_read"]["text"].startswith("not offered to anybody: ")
    assert lines["tool notes_list"]["level"] == "ok"


def test_a_missing_scope_is_told_though_the_tool_is_listed(around: Company) -> None:
    code, lines = seen_as(around.config, "acme/alice", "--scope", "notes.read")
    assert code == 0
    assert "lacks desk.write" in lines["tool desk_write"]["text"]
    assert lines["tool desk_write"]["level"] == "warning"
    assert lines["tool notes_list"]["level"] == "ok"


def test_nobody_of_this_name_and_no_issuer_for_the_tenant_are_problems(around: Company) -> None:
    code, lines = seen_as(around.config, "acme/nobody")
    assert code == 1
    assert "knows nobody" in lines["person"]["text"]
    code, lines = seen_as(around.config, "other/alice")
    assert code == 1
    assert "no issuer may speak" in lines["tenant"]["text"]


def test_a_login_at_another_issuer_is_told_with_how_to_spell_it(around: Company) -> None:
    around.edit(
        f'issuer: "{around.issuer.url}", subject: bob',
        'issuer: "https://old.example", subject: bob',
        name="people.yaml",
    )
    code, lines = seen_as(around.config, "acme/bob")
    assert code == 1
    assert "https://old.example" in lines["person"]["text"]
    assert around.issuer.url in lines["person"]["hint"]


def test_a_client_that_is_stopped_is_told_and_nothing_changes_while_the_gateway_runs(around: Company) -> None:
    with around.serving():
        assert said("revoke", "client", "bad-client", "--reason", "tests", "-c", around.config).code == 0
        code, lines = seen_as(around.config, "acme/alice", "--client", "bad-client")
        assert code == 1
        assert "this client is stopped" in lines["person"]["text"]
        assert seen_as(around.config, "acme/alice")[0] == 0
        assert around.tools() == {"notes_list", "desk_read", "desk_write"}


def test_a_name_without_a_tenant_is_refused(around: Company) -> None:
    told = said("check", "-c", around.config, "--as", "alice")
    assert told.code == 2
    assert "TENANT/PERSON" in told.err


def test_it_says_of_everybody_in_the_demo_what_their_clients_are_shown(tmp_path: Path) -> None:
    import httpx2

    from onbehalf.doors.mcp_words import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY

    with running_demo(tmp_path / "demo") as house:
        people = [each for each in world().people if each.active][::4]
        assert {each.tenant for each in people} == {"acme", "globex"}
        for person in people:
            _, lines = seen_as(house.config, f"{person.tenant}/{person.id}")
            meta = {PROTOCOL_VERSION_META_KEY: "2026-07-28", CLIENT_CAPABILITIES_META_KEY: {}}
            answer = httpx2.post(
                house.places.resource, trust_env=False, timeout=20,
                json={"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}},
                headers={
                    "authorization": f"Bearer {house.token(person.subject)}", "mcp-method": "tools/list",
                    "accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28",
                },
            )  # fmt: skip
            listed = {each["name"] for each in answer.json()["result"]["tools"]}
            told = {
                what.removeprefix("tool ")
                for what, each in lines.items()
                if "text" in each and what.startswith("tool ") and each["text"].startswith("shown")
            }
            assert told == listed, person.id
