"""PostgreSQL as an upstream: only fixed statements, values never become text, everything is bounded and walled."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doors.postgres_house import FOREIGN, KEY, OWN, PASSWORD, build, code_of, logged_in, opened, rows_of, sent
from doors.upstream_house import AUDIENCE, a_call, a_token
from onbehalf.doors.upstream_postgres import PostgresUpstream, Role
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Done, Failed, Json, Outcome, Rows
from onbehalf.validate import rows
from postgres import run

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r"
COUNT = "SELECT count(*)::int AS n FROM reviews"


@pytest.fixture
def base(database: str) -> str:
    build(database)
    return database


def ask(dsn: str, statement: str, arguments: Json = None, *, tenant: str = "acme", **options: Any) -> Outcome:
    """What one reading tool answers."""

    async def walk() -> Outcome:
        async with opened(dsn, {"t": statement}, **options) as door:
            return await sent(door, "t", arguments, tenant=tenant)

    return asyncio.run(walk())


def refused(dsn: str, statement: str) -> str:
    with pytest.raises(ConfigInvalid) as found:
        ask(dsn, statement)
    assert found.value.hint
    return found.value.message


def test_each_tenant_sees_its_own_rows_though_the_statement_names_none(base: str) -> None:
    async def walk() -> None:
        async with opened(base, {"count": COUNT}) as door:
            for _ in range(3):  # on the same connections, in turns
                told = [await sent(door, "count", tenant=tenant) for tenant in ("acme", "globex", "nobody")]
                assert [rows_of(each) for each in told] == [[{"n": OWN}], [{"n": FOREIGN}], [{"n": 0}]]

    asyncio.run(walk())


def test_many_tenants_at_once_never_see_one_anothers_rows(base: str) -> None:
    async def walk() -> None:
        async with opened(base, {"count": COUNT}, connections=4, timeout=30) as door:
            tenants = ["acme", "globex", "nobody"] * 40
            told = await asyncio.gather(*(sent(door, "count", tenant=tenant) for tenant in tenants))
            expected = {"acme": OWN, "globex": FOREIGN, "nobody": 0}
            assert [rows_of(each) for each in told] == [[{"n": expected[tenant]}] for tenant in tenants]

    asyncio.run(walk())


def test_the_database_is_told_who_asks(base: str) -> None:
    told = ask(base, "SELECT onbehalf.tenant() AS tenant, onbehalf.principal() AS person")
    assert rows_of(told) == [{"tenant": "acme", "person": "alice"}]


def test_a_statement_cannot_forge_a_claim_nor_keep_one_for_the_next_call(base: str) -> None:
    forged = f"1|{KEY.id}|1|1|999999999999999|{b'globex'.hex()}||{'0' * 64}"
    statements = {
        "forge": "SELECT set_config('onbehalf.claim', :c::text, true) AS c, (SELECT count(*) FROM reviews)::int AS n",
        "keep": "SELECT set_config('onbehalf.claim', current_setting('onbehalf.claim'), false) AS c",
        "path": "SELECT set_config('search_path', 'pg_temp', false) AS c, set_config('role', 'hr_app', false) AS r",
        "session": "SELECT set_config('search_path', 'pg_temp', false) AS c",
        "count": COUNT,
    }

    async def walk() -> None:
        async with opened(base, statements, connections=1) as door:
            assert rows_of(await sent(door, "forge", {"c": forged}))[0]["n"] in (0, OWN)
            taken = rows_of(await sent(door, "keep", tenant="globex"))[0]["c"]
            assert rows_of(await sent(door, "forge", {"c": taken}))[0]["n"] in (0, OWN)
            assert rows_of(await sent(door, "count")) == [{"n": OWN}]
            assert code_of(await sent(door, "path")) == "upstream_refused"
            assert rows_of(await sent(door, "session")) == [{"c": "pg_temp"}]
            assert rows_of(await sent(door, "count")) == [{"n": OWN}]  # what was set is gone

    asyncio.run(walk())


def test_a_tool_that_reads_cannot_write_whatever_it_calls(base: str) -> None:
    run(base, "CREATE FUNCTION spoil() RETURNS int LANGUAGE sql AS 'UPDATE reviews SET score = 0 RETURNING 1'")
    run(base, "GRANT UPDATE ON reviews TO gw_ro")
    told = ask(base, "SELECT spoil() AS n", walled=False)
    assert code_of(told) == "upstream_error"
    statement = "SELECT set_config('transaction_read_only', 'off', true) AS c, spoil() AS n"
    assert code_of(ask(base, statement, walled=False)) == "upstream_error"


TYPES = """
SELECT 12345678901234567890.10::numeric AS exact, ARRAY[0.1, 1e30]::numeric[] AS exacts,
  9007199254740993::bigint AS big,
  1.5::float8 AS float, true AS yes, NULL::text AS nothing, 'é''"\\' || chr(10) AS text,
  '2026-01-31 12:00:00+02'::timestamptz AS at, '2026-01-31'::date AS day, interval '1 day 2 hours' AS long,
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS uuid, '{"a": [1, null]}'::json AS doc, '{"b": 1}'::jsonb AS docb,
  ARRAY[1, NULL, 3] AS list, ARRAY[['a'], ['b']] AS lists, ROW(1, 'x') AS pair, '[1,5)'::int4range AS range,
  '10.0.0.0/8'::cidr AS net, 'NaN'::float8 AS nan
"""


def test_every_type_has_one_spelling_in_json(base: str) -> None:
    run(base, "ALTER ROLE gw_ro SET timezone = 'Asia/Tokyo'; ALTER ROLE gw_ro SET datestyle = 'German'")
    assert rows_of(ask(base, TYPES)) == [
        {
            "exact": "12345678901234567890.10", "exacts": ["0.1", "1000000000000000000000000000000"],
            "big": 9007199254740993, "float": 1.5, "yes": True, "nothing": None, "text": "é'\"\\\n",
            "at": "2026-01-31T10:00:00+00:00", "day": "2026-01-31", "long": "P1DT2H",
            "uuid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "doc": {"a": [1, None]}, "docb": {"b": 1},
            "list": [1, None, 3], "lists": [["a"], ["b"]], "pair": {"f1": 1, "f2": "x"}, "range": "[1,5)",
            "net": "10.0.0.0/8", "nan": "NaN",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("at", [(), ("rows",), ("data", "items")])
def test_rows_stand_where_the_mapping_looks_for_them(base: str, at: tuple[str, ...]) -> None:
    shape = Rows(type="Review", at=at, id="id", tenant="tenant_id", attributes={"score": ("score", "Long")})

    async def walk() -> None:
        async with opened(base, {"t": "SELECT * FROM reviews WHERE id < 4 ORDER BY id DESC"}) as door:
            call = a_call("t", rows=shape)
            told = await door.send(call, a_token(call))
            assert isinstance(told, Done)
            found = rows.extract(shape, told.content, limit=10).rows
            assert [(row.id, row.entity.attributes["score"]) for row in found] == [("3", 3), ("2", 2), ("1", 1)]
            if at:
                released = rows.release(shape, told.content, found)
                assert released["structuredContent"] == told.content["structuredContent"]

    asyncio.run(walk())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text("ab:'\"$", max_size=3), each, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    words=st.lists(st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)),
    number=st.integers(-(2**31), 2**31 - 1), real=st.floats(allow_nan=False, allow_infinity=False),
    yes=st.booleans(), doc=JSON,
)  # fmt: skip
def test_a_value_comes_back_as_it_was_sent(
    echo: tuple[asyncio.Runner, PostgresUpstream],
    text: str, words: list[str | None], number: int, real: float, yes: bool, doc: Json,
) -> None:  # fmt: skip
    runner, door = echo
    given: dict[str, Json] = {
        "text": text, "words": [*words], "number": number, "real": real, "yes": yes, "doc": doc,
    }  # fmt: skip
    assert rows_of(runner.run(sent(door, "t", given))) == [given]


@pytest.fixture
def echo(base: str) -> Any:
    statement = (
        "SELECT :text::text AS text, :words::text[] AS words, :number::int AS number, :real::float8 AS real,"
        " :yes::boolean AS yes, :doc::jsonb AS doc"
    )
    with asyncio.Runner() as runner:
        context = opened(base, {"t": statement})
        door = runner.run(context.__aenter__())
        yield runner, door
        runner.run(context.__aexit__(None, None, None))


@pytest.mark.parametrize(
    ("cast", "value", "code"),
    [
        ("int", "1; DROP TABLE reviews", "arguments_refused"),
        ("int", 1.5, "arguments_refused"),
        ("int", 2**40, "arguments_refused"),
        ("int", True, "arguments_refused"),
        ("int", [1], "arguments_refused"),
        ("boolean", 1, "arguments_refused"),
        ("text", {"a": 1}, "arguments_refused"),
        ("text", ["a"], "arguments_refused"),
        ("text[]", "{a,b}", "arguments_refused"),
        ("text[]", [["a"]], "arguments_refused"),
        ("date", "2026-13-01", "arguments_refused"),
        ("text", "a\0b", "arguments_refused"),
        ("text[]", ["\0"], "arguments_refused"),
    ],
)
def test_a_value_of_another_type_is_refused(base: str, cast: str, value: Json, code: str) -> None:
    assert code_of(ask(base, f"SELECT :v::{cast} AS v", {"v": value})) == code
    assert run(base, COUNT) == [(OWN + FOREIGN,)]


def test_an_absent_parameter_is_null_and_an_unknown_one_refused(base: str) -> None:
    statement = "SELECT count(*)::int AS n FROM reviews WHERE :id::int IS NULL OR id = :id"
    assert rows_of(ask(base, statement)) == [{"n": OWN}]
    assert rows_of(ask(base, statement, {"id": 1})) == [{"n": 1}]
    assert code_of(ask(base, statement, {"tenant": "acme"})) == "arguments_refused"


def test_parameters_and_columns_are_known_at_open(base: str) -> None:
    statement = """
    SELECT id, note AS "odd ""name", ':no' AS s, E'\\':no' AS e, $$:no$$ AS d, $x$:no $$ :no$x$ AS x, -- :no
      "c:no".n::int AS n, (ARRAY[1, 2])[1 : 2] AS part /* :no */
      FROM reviews, (SELECT 1 AS n) AS "c:no" WHERE note = :b AND :a_1::int > 0 AND id <> :a_1;
    """

    async def walk() -> None:
        async with opened(base, {"t": statement}) as door:
            assert door.parameters("t") == ("b", "a_1")
            assert door.columns("t") == ("id", 'odd "name', "s", "e", "d", "x", "n", "part")
            told = rows_of(await sent(door, "t", {"b": "ours 7", "a_1": 5}))
            assert told == [
                {"id": 7, 'odd "name': "ours 7", "s": ":no", "e": "':no", "d": ":no", "x": ":no $$ :no", "n": 1,
                 "part": [1, 2]}
            ]  # fmt: skip

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("EXPLAIN SELECT * FROM reviews", "is not one SELECT"),
        ("EXPLAIN ANALYZE SELECT * FROM reviews", "is not one SELECT"),
        ("SELECT 1 AS n; SELECT 2 AS n", "is not one SELECT"),
        ("SELECT 1 AS n) AS q; DROP TABLE reviews; SELECT * FROM (SELECT 1 AS n", "multiple commands"),
        ("SET role = hr_app", "is not one SELECT"),
        ("SHOW server_version", "is not one SELECT"),
        ("UPDATE reviews SET score = 1 RETURNING id", "is not one SELECT"),
        ("WITH x AS (DELETE FROM reviews RETURNING id) SELECT id FROM x", "top level"),
        ("SELECT 1 AS n INTO made", "is not one SELECT|not allowed"),
        ("COPY reviews TO STDOUT", "is not one SELECT"),
        ("DO $$ BEGIN END $$", "is not one SELECT"),
        ("", "is not one SELECT"),
        ("SELECT id FROM nowhere", "does not fit the database"),
        ("SELECT id FROM onbehalf.keys", "permission denied"),
        ("SELECT pg_read_file('/etc/passwd') AS text", "permission denied"),
        ("SELECT id, score AS id FROM reviews", "two columns named `id`"),
        ("SELECT id FROM reviews WHERE id = $1", "parameter without a name"),
        ("SELECT :v::int AS w, '\\x00'::bytea AS b", "gives bytes in `b`"),
        ("SELECT ' AS n, :v::int AS m", "is not one SELECT|unterminated"),
        ("SELECT FROM reviews", "gives no column"),
    ],
)
def test_a_statement_that_is_not_one_plain_select_is_refused_at_open(base: str, statement: str, told: str) -> None:
    assert re.search(told, refused(base, statement))
    assert run(base, COUNT) == [(OWN + FOREIGN,)]


def test_more_rows_than_allowed_are_a_failure_and_never_cut(base: str) -> None:
    statement = "SELECT id FROM reviews ORDER BY id"
    assert code_of(ask(base, statement, max_rows=OWN - 1)) == "too_many_rows"
    assert len(rows_of(ask(base, statement, max_rows=OWN))) == OWN


def test_an_endless_answer_is_ended_by_the_server(base: str) -> None:
    async def walk() -> None:
        async with opened(base, {"t": ENDLESS}, timeout=30) as door:
            started = time.monotonic()
            assert code_of(await sent(door, "t")) == "too_many_rows"
            assert time.monotonic() - started < 20  # not when the last row is made

    asyncio.run(walk())


def test_an_answer_of_too_many_bytes_is_never_sent(base: str) -> None:
    statement = "SELECT repeat('x', :n::int) AS x FROM generate_series(1, 5)"
    assert len(rows_of(ask(base, statement, {"n": 800_000}))) == 5
    assert code_of(ask(base, statement, {"n": 900_000})) == "result_too_large"
    assert code_of(ask(base, statement, {"n": 20_000_000})) == "result_too_large"


@pytest.mark.parametrize("doc", ['{"a": 1, "a": 2}', "[" * 100 + "]" * 100, '"\\ud800"', "1e999"])
def test_json_that_can_be_read_in_two_ways_is_refused(base: str, doc: str) -> None:
    assert code_of(ask(base, f"SELECT '{doc}'::json AS doc")) == "result_refused"


def test_no_word_of_the_servers_error_reaches_the_caller(base: str) -> None:
    statement = "SELECT (note || :x::text)::int AS n FROM reviews"
    told = ask(base, statement, {"x": "secret"})
    assert isinstance(told, Failed)
    assert "secret" not in told.message
    assert "ours" not in told.message


def test_a_statement_without_an_end_is_stopped_and_its_connection_is_free_again(base: str) -> None:
    async def walk() -> None:
        off = "set_config('statement_timeout', '0', true)"
        texts = {
            "slow": "SELECT 1 AS n FROM pg_sleep(60)",
            "quick": "SELECT 1 AS n",
            "stubborn": f"SELECT {off} AS c, pg_sleep(60)::text AS n",
        }
        async with opened(base, texts, timeout=0.5, connections=2) as door:
            started = time.monotonic()
            for name in ("slow", "stubborn"):
                told = await asyncio.gather(*(sent(door, name) for _ in range(2)))
                assert {code_of(each) for each in told} == {"upstream_timed_out"}
            assert time.monotonic() - started < 5
            assert rows_of(await sent(door, "quick")) == [{"n": 1}]
        assert run(base, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'gw_ro' AND state = 'active'") == [(0,)]

    asyncio.run(walk())


def test_more_callers_than_connections_wait_and_then_fail(base: str) -> None:
    async def walk() -> None:
        texts = {"slow": "SELECT 1 AS n FROM pg_sleep(60)", "quick": "SELECT 1 AS n"}
        async with opened(base, texts, timeout=0.5, connections=1) as door:
            slow = asyncio.create_task(sent(door, "slow"))
            await asyncio.sleep(0.1)
            told = await sent(door, "quick")
            assert isinstance(told, Done) or told.code in ("upstream_busy", "upstream_unavailable")
            await slow

    asyncio.run(walk())


def test_a_server_that_ends_every_connection_is_found_again(base: str) -> None:
    async def walk() -> None:
        async with opened(base, {"t": COUNT}, connections=1) as door:
            assert rows_of(await sent(door, "t")) == [{"n": OWN}]
            run(base, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gw_ro'")
            first, second = await sent(door, "t"), await sent(door, "t")
            assert isinstance(first, Done) or code_of(first) == "upstream_unavailable"
            assert rows_of(second) == [{"n": OWN}]

    asyncio.run(walk())


def test_a_database_that_is_not_there_is_refused_at_open() -> None:
    async def walk() -> None:
        role = Role(dsn="host=127.0.0.1 port=1 user=u dbname=d connect_timeout=2", wall=None)
        await PostgresUpstream.open(role, None, audience=AUDIENCE, statements={}, timeout=5, max_rows=5)

    with pytest.raises(ConfigInvalid, match="cannot be read"):
        asyncio.run(walk())


def test_the_password_is_nowhere_in_what_is_shown(base: str) -> None:
    role = Role(dsn=logged_in(base, "gw_ro"), wall=None)
    assert PASSWORD in role.dsn or PASSWORD.replace(" ", "\\ ") in role.dsn
    assert PASSWORD not in repr(role)
