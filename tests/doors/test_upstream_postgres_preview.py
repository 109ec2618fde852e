"""A writing statement that is tried first: taken back when dry, done only as it was tried."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from doors.postgres_house import build, opened
from doors.upstream_house import AUDIENCE, a_call, a_token
from onbehalf.model import Done, Failed, Json, Outcome
from postgres import run

UPDATE = "UPDATE reviews SET note = :note WHERE score = :score::int RETURNING id, tenant_id, note"
INSERT = "INSERT INTO reviews VALUES (:id::int, 'acme', 'bob', 1, :note) RETURNING id"


@pytest.fixture
def base(database: str) -> str:
    build(database)
    return database


def told(dsn: str, statement: str, arguments: Json, *steps: dict[str, Any], between: str = "") -> list[Outcome]:
    """What a writing tool answers, step by step; `expected: True` stands for the digest that the first step gave."""

    async def walk() -> list[Outcome]:
        found: list[Outcome] = []
        async with opened(dsn, {"w": statement}, writing=["w"]) as door:
            for step in steps:
                call = a_call("w", arguments, writes=True)
                first = found[0] if found else None
                if step.get("expected") is True:
                    assert isinstance(first, Done)
                    step = {**step, "expected": first.digest}
                call = replace(call, **step)
                found.append(await door.send(call, a_token(call, audience=AUDIENCE)))
                if between and len(found) == 1:
                    await asyncio.to_thread(run, dsn, between)
        return found

    return asyncio.run(walk())


def noted(dsn: str, note: str) -> int:
    [(count,)] = run(dsn, f"SELECT count(*)::int FROM reviews WHERE note = '{note}'")
    return int(count)


def test_a_dry_call_says_what_would_change_and_changes_nothing(base: str) -> None:
    [outcome] = told(base, UPDATE, {"note": "new", "score": 1}, {"dry": True})
    assert isinstance(outcome, Done)
    content = outcome.content["structuredContent"]
    assert isinstance(content, dict)
    rows = content["rows"]
    assert isinstance(rows, list)
    assert len(rows) == 4
    assert all(isinstance(row, dict) and row["note"] == "new" and row["tenant_id"] == "acme" for row in rows)
    assert outcome.digest.startswith("sha256:")
    assert noted(base, "new") == 0


def test_what_was_tried_is_done_once_it_is_asked_for(base: str) -> None:
    tried, done = told(base, UPDATE, {"note": "new", "score": 1}, {"dry": True}, {"expected": True})
    assert isinstance(tried, Done)
    assert isinstance(done, Done)
    assert done.digest == tried.digest
    assert noted(base, "new") == 4


@pytest.mark.parametrize(
    "between",
    [
        "UPDATE reviews SET score = 1 WHERE id = 5",
        "UPDATE reviews SET score = 4 WHERE id = 1",
        "DELETE FROM reviews WHERE id = 1",
    ],
    ids=["one more", "one fewer", "one gone"],
)
def test_what_would_be_another_change_is_not_made(base: str, between: str) -> None:
    _, done = told(base, UPDATE, {"note": "new", "score": 1}, {"dry": True}, {"expected": True}, between=between)
    assert done == Failed(
        code="change_stale", message="something else would change than what was tried; nothing was done", unknown=False
    )
    assert noted(base, "new") == 0


def test_an_insert_is_tried_and_taken_back_too(base: str) -> None:
    arguments: Json = {"id": 77, "note": "made"}
    tried, done = told(base, INSERT, arguments, {"dry": True}, {"expected": True})
    assert isinstance(tried, Done)
    assert isinstance(done, Done)
    assert noted(base, "made") == 1
