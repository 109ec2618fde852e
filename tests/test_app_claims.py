"""People whom nobody loaded call the running house, and are in it who their tokens say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, said
from test_app import recorded

FEED = """
directory:
  lag_budget_seconds: 300
  claims:
    - {tenant: acme, issuer: "@ISSUER@", person: preferred_username, groups: groups, group_names: {g-17: staff}}
"""


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        made.edit("upstreams:\n", FEED.replace("@ISSUER@", made.issuer.url) + "upstreams:\n")
        (made.directory / "people.yaml").write_text("tenants: {}\n")
        yield made


def ask(around: Company, name: str = "alice", *, tool: str = "notes_list", old: int = 5, **claims: Any) -> Any:
    """What somebody gets who presents a token with these claims, so many seconds old; a code where it is refused."""
    issued = {"iat": int(time.time()) - old, **claims}
    token = around.token(f"{name}-at-login", **{"preferred_username": name, **issued})
    found = around.call(tool, token=token)
    denied = (found.get("_meta") or found.get("data") or {}).get("onbehalf/denial")
    if denied:
        return denied["code"]
    return [row["text"] for row in found["structuredContent"]["rows"]] if tool == "notes_list" else "done"


def test_who_is_in_the_group_gets_their_own_rows_and_who_is_not_gets_none(around: Company) -> None:
    with around.serving():
        assert ask(around, groups=["g-17", "g-99"]) == ["mine"]
        assert ask(around, "bob", groups=["g-99"]) == "not_permitted"
        assert ask(around, "bob", groups=["staff"]) == "not_permitted"  # the issuer's name for another group
        assert ask(around, "bob", old=1, groups=["g-17"]) == ["his"]
        assert ask(around, old=0, groups=[]) == "not_permitted"
        assert ask(around, old=5, groups=["g-17", "g-99"]) == "not_permitted"  # it was before
        status = said("people", "status", "--config", around.config)
        assert "acme  from token claims  2 people, 2 active" in status.out
        shown = said("people", "show", "bob", "--config", around.config)
        assert "staff" in shown.out
    changes = recorded(around, "directory_change")
    assert [each["person"] for each in changes] == ["alice", "bob", "bob", "alice"]
    assert all(each["after"] > each["before"] for each in changes)


def test_a_token_that_does_not_say_it_all_is_refused_with_a_reason_and_on_record(around: Company) -> None:
    with around.serving():
        assert ask(around, groups=["g-17"]) == ["mine"]
        assert ask(around, old=0, _claim_names={"groups": "src1"}) == "claims_unusable"
        assert ask(around, "bob", preferred_username="alice", groups=["g-17"]) == "claims_unusable"
        assert ask(around, "bob", preferred_username="acme/alice") == "claims_unusable"
        tools = around.post("tools/list", token=around.token("carol-at-login"))
        assert tools.json()["error"]["data"]["onbehalf/denial"]["code"] == "claims_unusable"
    assert [each["decision"]["code"] for each in recorded(around, "denial")] == ["claims_unusable"] * 3


def test_calls_that_write_need_a_young_token(around: Company) -> None:
    with around.serving():
        assert ask(around, tool="desk_write", groups=["g-17"]) == "done"
        assert ask(around, "bob", tool="desk_write", old=400, groups=["g-17"]) == "directory_stale"
        assert ask(around, "bob", old=400, groups=["g-17"]) == ["his"]


def test_a_tenant_that_also_stands_in_people_yaml_is_refused(around: Company) -> None:
    (around.directory / "people.yaml").write_text("tenants: {acme: {people: {}}}\n")
    checked = said("check", "--config", around.config)
    assert checked.code == 1
    assert "told by tokens" in checked.out + checked.err
