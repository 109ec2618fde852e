"""Somebody is stopped while the gateway runs: how soon, for whom, and what stands on record."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from company import Company, Said, company, said
from test_app import recorded


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        yield made


def revoke(around: Company, *words: str) -> Said:
    return said("revoke", *words, "--config", around.config)


def code(found: Any) -> str:
    return (found.get("_meta") or found.get("data") or {}).get("onbehalf/denial", {}).get("code", "")


def test_a_person_who_is_stopped_is_refused_within_a_second(around: Company) -> None:
    with around.serving():
        token = around.token()
        assert code(around.call("notes_list", token=token)) == ""
        stopped = revoke(around, "person", "alice", "--reason", "laptop stolen")
        assert stopped.code == 0, stopped.err
        began = time.monotonic()
        while code(around.call("notes_list", token=token)) != "blocked":
            assert time.monotonic() - began < 1
        assert time.monotonic() - began < 1
        assert code(around.call("notes_list", token=around.token("bob-at-login"))) == "not_permitted"  # as ever
        newer = around.token(iat=int(time.time()), scope="notes.read")
        assert code(around.call("notes_list", token=newer)) == "blocked"
        assert revoke(around, "lift", "1").code == 0
        time.sleep(0.06)
        ended = around.post("tools/call", token=token, name="notes_list", arguments={})
        assert ended.status_code == 401
        assert 'error="invalid_token"' in ended.headers["www-authenticate"]
    [made] = recorded(around, "revoked")
    assert (made["kind"], made["name"], made["reason"]) == ("person", "alice", "laptop stolen")
    assert [each["name"] for each in recorded(around, "revocation_lifted")] == ["alice"]
    denials = [each for each in recorded(around, "denial") if each["decision"]["code"] == "blocked"]
    assert denials
    assert all(each["tool"]["name"] == "notes_list" for each in denials)


def test_a_client_and_a_tenant_are_stopped_and_listed(around: Company) -> None:
    with around.serving():
        assert revoke(around, "client", "client-1", "--reason", "leaks", "--tokens-only").code == 0
        assert revoke(around, "tenant", "acme", "--reason", "incident 17").code == 0
        time.sleep(0.06)
        assert code(around.call("notes_list")) == "blocked"
        assert around.post("tools/list").json()["error"]["data"]["onbehalf/denial"]["code"] == "blocked"
    listed = revoke(around, "list").out
    assert "client client-1 of acme  tokens ended" in listed
    assert "tenant acme  stopped" in listed
    found = json.loads(revoke(around, "list", "--json").out)["revocations"]
    assert [(each["kind"], each["stops"]) for each in found] == [("client", False), ("tenant", True)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("person", "nobody", "--reason", "x"), "there is no `nobody`"),
        (("person", "alice"), "has a reason"),
        (("person", "alice", "--reason", " "), "has a reason"),
        (("person", "alice", "--reason", "x" * 501), "has a reason"),
        (("client", " ", "--reason", "x"), "a client has an id"),
        (("tenant", "globex", "--reason", "x"), "no issuer may speak for"),
        (("lift", "7"), "stops nobody"),
    ],
)
def test_what_stops_nobody_is_said(around: Company, words: tuple[str, ...], says: str) -> None:
    with around.serving():
        told = revoke(around, *words)
    assert told.code == 2
    assert says in " ".join(told.err.split())
    assert "Nobody was ever stopped" in revoke(around, "list").out
