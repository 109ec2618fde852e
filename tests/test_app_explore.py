# ruff: noqa: E501  # a case reads best in one line
"""A tool that takes a model's own SELECT, in the whole house: a real MCP client, policies, walls, record."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from company import Company, company, said
from test_app import recorded

TOOL = """      notes_ask:
        action: askNotes
        description: Notes, asked about by a SELECT.
        scopes: [notes.read]
        explore:
          tables:
            notes: {type: Note, attributes: {owner: owner_id User}, columns: [id, tenant, owner_id, text]}
  desk:
"""
POLICY = """
@id("ask") @doc("Staff ask about notes.") @remedy("Ask for the group staff.")
permit (principal in Group::"acme/staff", action == Action::"askNotes", resource is Tool);
@id("ask-own") @doc("Of notes, they see their own.") @remedy("Ask the owner.")
permit (principal, action == Action::"askNotes", resource is Note) when { resource.owner == principal };
"""


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        made.edit("  desk:\n", TOOL)
        made.edit(
            "    tables: {notes: tenant}\n",
            "    tables: {notes: tenant, people: tenant}\n    entities: {User: {table: people, tenant: tenant}}\n",
        )
        made.edit("action readNote appliesTo", "action readNote, askNotes appliesTo", name="policies/own.cedarschema")
        (made.directory / "policies" / "ask.cedar").write_text(POLICY)
        with closing(sqlite3.connect(made.directory / "notes.db")) as base:
            base.executescript(
                "CREATE TABLE people (tenant TEXT, id TEXT); INSERT INTO people VALUES ('acme', 'alice'), ('acme', 'bob');"
                "INSERT INTO notes VALUES ('acme', 3, 'alice', 'also mine'), ('globex', 4, 'alice', 'CANARY');"
            )
        yield made


def asked(around: Company, *queries: str) -> list[Any]:
    """What Alice's MCP client is told, one answer a query."""

    async def run() -> list[Any]:
        headers = {"authorization": f"Bearer {around.token('alice-at-login')}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http,
            Client(streamable_http_client(f"{around.gateway}/mcp", http_client=http)) as client,
        ):
            [tool] = [each for each in (await client.list_tools()).tools if each.name == "notes_ask"]
            assert "notes(id, tenant, owner_id, text)" in (tool.description or "")
            assert set(tool.input_schema["properties"]) == {"sql"}
            return [await client.call_tool("notes_ask", {"sql": sql}) for sql in queries]

    return asyncio.run(run())


def test_a_client_asks_in_its_own_words_and_sees_what_is_theirs(around: Company) -> None:
    with around.serving():
        mine, counted, foreign, stacked = asked(
            around,
            "SELECT id, text FROM notes ORDER BY id",
            "SELECT owner_id, count(*) AS n FROM notes GROUP BY owner_id",
            "SELECT * FROM people",
            "SELECT 1; DROP TABLE notes",
        )
    assert mine.structured_content == {"rows": [{"id": 1, "text": "mine"}, {"id": 3, "text": "also mine"}]}
    assert counted.structured_content == {"rows": [{"owner_id": "alice", "n": 2}]}
    assert "there is no table `people`" in foreign.content[0].text
    assert "it is not one SELECT" in stacked.content[0].text
    intents = [facts for facts in recorded(around, "intent") if facts["tool"]["name"] == "notes_ask"]
    assert len(intents) == 2
    assert intents[0]["arguments"]["sql"] == "SELECT id, text FROM notes ORDER BY id"
    assert '"onbehalf_notes" AS MATERIALIZED' in intents[0]["scope"]["predicate"]
    told = said("explain", "last", "-c", around.config)
    assert told.code == 0, told.err


def test_check_takes_it_and_says_nothing_against_it(around: Company) -> None:
    told = said("check", "-c", around.config)
    assert told.code == 0, told.out
    assert "notes_ask: neither" not in told.out


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("onbehalf.yaml", "tables: {notes: tenant, people: tenant}", "insecure_without_wall: true", "a tool that explores and no wall"),
        ("onbehalf.yaml", "columns: [id, tenant, owner_id, text]", "columns: [id, tenant, owner_id, nothing]", "nothing"),
        ("onbehalf.yaml", "columns: [id, tenant, owner_id, text]", "columns: [id, text]", "is mapped by `tenant`, which is no column"),
        ("onbehalf.yaml", "columns: [id, tenant, owner_id, text]", "columns: [id, tenant, Text]", "expected"),
        ("onbehalf.yaml", "action: askNotes\n", "action: askNotes\n        statement: SELECT 1\n", "keys of another kind of tool"),
        ("onbehalf.yaml", "action: askNotes\n", "action: askNotes\n        writes: true\n", "keys of another kind of tool"),
        ("policies/ask.cedar", '@id("ask-own")', '@id("ask-own") @max_rows("1")', "demands more of rows than the condition says"),
        ("policies/ask.cedar", '@id("ask-own")', '@id("ask-own") @approve("self")', "demands more of rows"),
        ("policies/ask.cedar", "resource.owner == principal", "resource.owner.name like context.client", ""),
    ],
)  # fmt: skip
def test_what_could_not_be_guarded_is_refused_at_load(
    around: Company, name: str, old: str, new: str, says: str
) -> None:
    around.edit(old, new, name=name)
    told = said("check", "-c", around.config)
    assert told.code == 1
    assert says in " ".join(told.out.split()), told.out
