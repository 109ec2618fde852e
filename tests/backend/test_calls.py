"""A backend's own record of calls: each number once, out of order within a window, gaps told, on both databases."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from act.granted import ARGUMENTS, AUDIENCE, ISSUER, NOW, granted
from backend.api_guarding import api_house
from backend.forging import KEY, KID, encoded, forged
from backend.guarding import asked, house
from backend.serving import Recorder
from onbehalf.backend import MemoryReplay, VerifiedCall, verify_call
from onbehalf.backend.asgi import CallTokenMiddleware
from onbehalf.backend.calls import COLUMNS, Calls, SqliteCalls, result_digest
from onbehalf.backend.calls_postgres import CALLS_SQL, PostgresCalls
from onbehalf.doors.upstream_mcp_answer import done
from onbehalf.errors import CallTokenRefused, CallTokenReplayed, ConfigInvalid, ReplayUnknown
from onbehalf.explain import entries
from onbehalf.model import Done, Receipt, UnixTime, digest
from postgres import database, postgres, run  # noqa: F401  # fixtures

ALICE = verify_call(
    forged(), keys={KID: bytes(KEY.verify_key)}, issuer=ISSUER, audience=AUDIENCE, tool="update_ticket",
    arguments=ARGUMENTS, now=NOW, replay=MemoryReplay(),
)  # fmt: skip
CHANNEL = "c0ffee0123456789"
PUBLIC: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "kid": KID, "x": encoded(bytes(KEY.verify_key))}
Rows = Callable[[], list[tuple[Any, ...]]]


def numbered(number: int, *, channel: str = CHANNEL, token: str = "") -> VerifiedCall:
    record = Receipt(index=number + 10, leaf=digest(str(number).encode()), channel=channel, number=number)
    return replace(ALICE, record=record, token_id=token or f"call_1.{channel}.{number}")


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Calls, Rows]:
    query = f"SELECT {', '.join(COLUMNS)} FROM onbehalf_calls ORDER BY channel, n"
    if request.param == "sqlite":
        made = SqliteCalls(tmp_path / "calls.db", window=10)
        return made, lambda: [tuple(row.values()) for row in made.rows()]
    dsn = request.getfixturevalue("database")
    run(dsn, CALLS_SQL)
    return PostgresCalls(lambda: psycopg.connect(dsn), window=10), lambda: run(dsn, query)


def test_a_call_that_is_taken_has_one_row_and_later_its_answer(kept: tuple[Calls, Rows]) -> None:
    calls, rows = kept
    calls.accept(numbered(3), now=UnixTime(77))
    first = (CHANNEL, 3, f"call_1.{CHANNEL}.3", ALICE.call, ALICE.tool, ALICE.arguments, 13, digest(b"3"), 77)
    assert rows() == [(*first, "", 0)]
    calls.answered(numbered(3), answer=digest(b"an answer"), status=201)
    assert rows() == [(*first, digest(b"an answer"), 201)]
    calls.answered(numbered(3), answer=digest(b"another"), status=200)
    assert rows() == [(*first, digest(b"an answer"), 201)], "an answer that is on record was changed"


def test_a_number_or_a_token_is_taken_once_whatever_comes_with_it(kept: tuple[Calls, Rows]) -> None:
    calls, rows = kept
    calls.accept(numbered(3), now=UnixTime(77))
    for again in (numbered(3), numbered(3, token="another"), numbered(4, token=f"call_1.{CHANNEL}.3")):
        with pytest.raises(CallTokenReplayed):
            calls.accept(again, now=UnixTime(78))
    calls.accept(numbered(3, channel="a" * 16), now=UnixTime(79))
    assert len(rows()) == 2


def test_calls_may_overtake_each_other_within_the_window_and_not_beyond(kept: tuple[Calls, Rows]) -> None:
    calls, rows = kept
    for number in (5, 2, 14, 9, 1000):
        calls.accept(numbered(number), now=UnixTime(77))
    calls.accept(numbered(991), now=UnixTime(77))
    with pytest.raises(ReplayUnknown):
        calls.accept(numbered(990), now=UnixTime(77))
    assert sorted(row[1] for row in rows()) == [2, 5, 9, 14, 991, 1000]


def test_a_call_without_a_number_is_refused(kept: tuple[Calls, Rows]) -> None:
    calls, rows = kept
    with pytest.raises(CallTokenRefused, match="no number"):
        calls.accept(replace(ALICE, record=Receipt(index=1, leaf=digest(b"1"))), now=UnixTime(77))
    assert rows() == []


def test_of_many_that_bring_one_number_at_once_one_is_taken(kept: tuple[Calls, Rows]) -> None:
    calls, rows = kept
    taken: list[int] = []
    ready = threading.Barrier(8)

    def one(at: int) -> None:
        ready.wait()
        for number in range(1, 6):
            try:
                calls.accept(numbered(number, token=f"{at}.{number}"), now=UnixTime(77))
                taken.append(number)
            except CallTokenReplayed:
                continue

    threads = [threading.Thread(target=one, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == [1, 2, 3, 4, 5]
    assert len(rows()) == 5


def test_what_never_came_is_told_and_what_is_old_can_go_without_being_taken_again(tmp_path: Path) -> None:
    calls = SqliteCalls(tmp_path / "calls.db", window=3)
    for number in (2, 3, 6, 7, 9):
        calls.accept(numbered(number), now=UnixTime(number))
    assert calls.gaps() == [(CHANNEL, 4, 5), (CHANNEL, 8, 8)]
    assert calls.forget(before=UnixTime(100)) == 3
    assert [row["n"] for row in calls.rows()] == [7, 9]
    with pytest.raises(ReplayUnknown):
        calls.accept(numbered(6, token="again"), now=UnixTime(101))
    calls.close()
    again = SqliteCalls(tmp_path / "calls.db", window=3)
    with pytest.raises(CallTokenReplayed):
        again.accept(numbered(9), now=UnixTime(101))


def test_a_record_that_cannot_be_written_takes_no_call(tmp_path: Path) -> None:
    calls = SqliteCalls(tmp_path / "calls.db")
    with sqlite3.connect(tmp_path / "calls.db") as other:
        other.execute("DROP TABLE onbehalf_channels")
    other.close()
    with pytest.raises(ReplayUnknown):
        calls.accept(numbered(1), now=UnixTime(1))
    with pytest.raises(ConfigInvalid):
        SqliteCalls(tmp_path)
    with pytest.raises(ConfigInvalid):
        SqliteCalls(tmp_path / "x.db", window=0)

    def connect() -> Any:
        raise psycopg.OperationalError("the server is gone")

    with pytest.raises(ReplayUnknown):
        PostgresCalls(connect).accept(numbered(1), now=UnixTime(1))
    with pytest.raises(ReplayUnknown):
        PostgresCalls(connect).answered(numbered(1), answer=digest(b""), status=200)


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_an_api_keeps_each_call_with_the_digest_that_the_gateway_saw(tmp_path: Path, kind: str) -> None:
    calls = SqliteCalls(tmp_path / "calls.db")

    async def walk() -> None:
        async with api_house(tmp_path, kind, calls=calls) as home:
            for number in (1, 2):
                outcome = await home.send("get", {"id": str(number)})
                assert isinstance(outcome, Done)
                row = [*calls.rows()][-1]
                assert (row["tool"], row["answer"], row["status"]) == ("getItem", outcome.answer, 200)
                assert (row["n"], row["record"]) == (number + 1, number)
            token = home.token("getItem", {"id": "7"}, index=2).compact
            refused = await home.ask("GET", "/v1/items/7", token)
            assert refused.status_code == 401, "a number that was used was taken"
            assert len(home.seen) == 2

    asyncio.run(asyncio.wait_for(walk(), 60))
    assert len([*calls.rows()]) == 2


def test_an_mcp_server_keeps_each_call_and_a_record_that_is_full_refuses_all(tmp_path: Path) -> None:
    calls = SqliteCalls(tmp_path / "calls.db")

    async def walk() -> None:
        async with house(tmp_path, calls=calls) as home:
            assert (await home.post(asked(), home.token())).status_code == 200
            assert [(row["n"], row["tool"]) for row in calls.rows()] == [(2, "update_ticket")]
            calls.close()
            assert (await home.post(asked(), home.token())).status_code == 401

    asyncio.run(asyncio.wait_for(walk(), 60))


def test_a_result_without_a_spelling_is_answered_and_has_no_digest(tmp_path: Path) -> None:
    calls = SqliteCalls(tmp_path / "calls.db")
    guard = CallTokenMiddleware(Recorder(), issuer=ISSUER, audience=AUDIENCE, jwks={"keys": [PUBLIC]}, calls=calls)
    calls.accept(numbered(1), now=UnixTime(1))
    for result in ({"content": [{"text": "\ud800"}]}, {"content": [2**70]}):
        assert guard._vouch(numbered(1), result) == ""  # type: ignore[dict-item]  # what a server may answer
    assert [row["answer"] for row in calls.rows()] == [""]


def test_the_digest_of_an_mcp_result_is_the_one_in_the_gateways_record() -> None:
    result: dict[str, Any] = {
        "content": [{"type": "text", "text": "é \u2028"}], "structuredContent": {"b": 1.5, "a": [None, True, {}]},
        "_meta": {"more": 1}, "isError": False,
    }  # fmt: skip
    entry = entries.outcome(
        granted().allow.call, Receipt(index=1, leaf=digest(b"1")), done(result), None, now=UnixTime(1)
    )
    assert entry.facts["result_digest"] == result_digest(result)
