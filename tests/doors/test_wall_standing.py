"""A wall with one hole is no wall: each hole is named, and the gateway does not serve."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from doors.postgres_house import PLAN, build, code_of, logged_in, opened, rows_of, sent, wall
from doors.upstream_house import AUDIENCE
from onbehalf.doors.upstream_postgres import PostgresUpstream, Role
from onbehalf.errors import ConfigInvalid
from onbehalf.validate.wall import Walled, wall_sql
from onbehalf.validate.wall_claim import claim_key
from postgres import run

COUNT = {"count": "SELECT count(*)::int AS n FROM reviews"}
WRITE = {"write": "UPDATE reviews SET score = :n::int WHERE id = 1 RETURNING id"}


@pytest.fixture
def base(database: str) -> str:
    build(database)
    return database


def refused(dsn: str, *, writing: bool = False) -> str:
    """Why the gateway does not serve on this database."""

    async def walk() -> None:
        async with opened(dsn, {**COUNT, **(WRITE if writing else {})}, writing=["write"] if writing else []):
            pass

    with pytest.raises(ConfigInvalid) as found:
        asyncio.run(walk())
    assert "onbehalf db wall" in found.value.hint
    return found.value.message


def test_the_wall_as_printed_stands_for_reading_and_for_writing(base: str) -> None:
    async def walk() -> None:
        async with opened(base, {**COUNT, **WRITE}, writing=["write"]) as door:
            assert rows_of(await sent(door, "count")) == [{"n": 20}]

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("hole", "told"),
    [
        ("ALTER ROLE gw_ro SUPERUSER", "gw_ro is a superuser"),
        ("ALTER ROLE gw_ro BYPASSRLS", "gw_ro has BYPASSRLS"),
        ("ALTER ROLE gw_ro CREATEROLE", "may make roles"),
        ("ALTER ROLE gw_ro CREATEDB", "may make roles"),
        ("GRANT hr_app TO gw_ro", "is a member of hr_app"),
        ("GRANT pg_read_all_data TO gw_ro", "is a member of pg_read_all_data"),
        ("GRANT onbehalf_owner TO gw_ro", "is a member of onbehalf_owner"),
        ("ALTER ROLE gw_ro SET role = gw_ro; GRANT gw_rw TO gw_ro", "is a member of gw_rw"),
        ("ALTER TABLE reviews OWNER TO gw_ro", "gw_ro owns public.reviews"),
        ("ALTER SCHEMA public OWNER TO gw_ro", "owns the schema public"),
        ("ALTER TABLE reviews DISABLE ROW LEVEL SECURITY", "of public.reviews is not enabled"),
        ("ALTER TABLE people NO FORCE ROW LEVEL SECURITY", "of public.people is not forced"),
        ("DROP POLICY onbehalf_wall ON reviews", "no restrictive policy"),
        ("DROP POLICY onbehalf_rows ON reviews", "no permissive policy"),
        ("ALTER POLICY onbehalf_wall ON reviews USING (true)", "no restrictive policy"),
        ("ALTER POLICY onbehalf_wall ON reviews WITH CHECK (true)", "no restrictive policy"),
        ("ALTER POLICY onbehalf_wall ON reviews TO hr_app", "no restrictive policy"),
        ("ALTER POLICY onbehalf_rows ON reviews USING (true)", "no permissive policy"),
        ("DROP POLICY onbehalf_wall ON reviews; CREATE POLICY onbehalf_wall ON reviews AS RESTRICTIVE FOR UPDATE"
         " USING (tenant_id = (SELECT onbehalf.tenant()))", "no restrictive policy"),
        ("DROP POLICY onbehalf_wall ON reviews; CREATE POLICY onbehalf_wall ON reviews AS RESTRICTIVE"
         " USING (note = (SELECT onbehalf.tenant()))", "no restrictive policy"),
        ("DROP TABLE people", "public.people is not there"),
        ("ALTER TABLE people RENAME TO folk", "public.people is not there"),
        ("ALTER TABLE reviews RENAME tenant_id TO company", "no column tenant_id"),
        ("ALTER TABLE reviews RENAME tenant_id TO company; ALTER TABLE reviews ADD tenant_id text", "no restrictive"),
        ("DROP TABLE people; CREATE TABLE people (tenant_id char(9))", "no text that is compared byte by byte"),
        ("DROP TABLE people; CREATE COLLATION odd (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
         "CREATE TABLE people (tenant_id text COLLATE odd)", "no text that is compared byte by byte"),
        ("GRANT TRUNCATE ON reviews TO gw_ro", "may truncate public.reviews"),
        ("GRANT REFERENCES ON reviews TO PUBLIC", "may truncate public.reviews"),
        ("GRANT UPDATE ON reviews TO gw_ro", "may write public.reviews"),
        ("GRANT INSERT (note) ON reviews TO PUBLIC", "may write public.reviews"),
        ("GRANT INSERT ON countries TO gw_ro", "may write public.countries"),
        ("CREATE TABLE salaries (id int); GRANT SELECT ON salaries TO gw_ro", "reaches public.salaries"),
        ("CREATE TABLE salaries (id int); GRANT SELECT (id) ON salaries TO PUBLIC", "reaches public.salaries"),
        ("CREATE TABLE more () INHERITS (reviews); GRANT SELECT ON more TO gw_ro", "reaches public.more"),
        ("CREATE MATERIALIZED VIEW m AS SELECT * FROM reviews; GRANT SELECT ON m TO gw_ro", "reaches public.m"),
        ("CREATE VIEW v AS SELECT * FROM reviews; GRANT SELECT ON v TO gw_ro", "v is not security_invoker"),
        ("CREATE VIEW v WITH (security_invoker = false) AS SELECT * FROM reviews; GRANT SELECT ON v TO gw_ro",
         "v is not security_invoker"),
        ("GRANT SELECT ON onbehalf.keys TO gw_ro", "reaches onbehalf.keys"),
        ("GRANT CREATE ON SCHEMA onbehalf TO gw_ro", "may make things in the schema onbehalf"),
        ("CREATE RULE odd AS ON UPDATE TO reviews DO ALSO DELETE FROM people", "has rewrite rules"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'", "may run public.f, which acts as"),  # noqa: E501  # SQL reads best in one line
        ("CREATE FUNCTION f(text) RETURNS boolean LANGUAGE sql LEAKPROOF AS 'SELECT true'", "f, which is marked LEAKPROOF"),  # noqa: E501  # SQL reads best in one line
        ("ALTER FUNCTION onbehalf.claimed(integer) LEAKPROOF", "onbehalf.claimed, which is marked LEAKPROOF"),
        ("ALTER FUNCTION onbehalf.claimed(integer) SECURITY INVOKER", "no function onbehalf.claimed"),
        ("ALTER FUNCTION onbehalf.claimed(integer) RESET search_path", "no function onbehalf.claimed"),
        ("ALTER FUNCTION onbehalf.claimed(integer) OWNER TO hr_app", "no function onbehalf.claimed"),
        ("ALTER ROLE onbehalf_owner LOGIN", "onbehalf_owner, which the claims belong to, may log in"),
        ("CREATE OR REPLACE FUNCTION onbehalf.claimed(part integer) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER"  # noqa: E501  # SQL reads best in one line
         " SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN split_part(current_setting('onbehalf.claim', true),"
         " '|', 6); END $$", "no function onbehalf.claimed"),
        ("CREATE OR REPLACE FUNCTION onbehalf.tenant() RETURNS text LANGUAGE sql STABLE AS"
         " $$SELECT current_setting('app.tenant', true)$$", "no function onbehalf.tenant"),
        ("DROP SCHEMA onbehalf CASCADE", "no restrictive policy"),
        ("DELETE FROM onbehalf.keys", "does not know the gateway's key"),
    ],
)  # fmt: skip
def test_a_wall_with_a_hole_is_refused_and_the_hole_is_named(base: str, hole: str, told: str) -> None:
    run(base, hole)
    assert told in refused(base)


def test_the_role_that_writes_is_looked_at_too(base: str) -> None:
    run(base, "ALTER ROLE gw_rw BYPASSRLS")
    assert "gw_rw has BYPASSRLS" in refused(base, writing=True)


def test_a_superuser_is_refused_whatever_stands(base: str) -> None:
    async def walk() -> None:
        await PostgresUpstream.open(
            Role(dsn=base, wall=wall()), None, audience=AUDIENCE, statements={}, timeout=5, max_rows=10
        )

    with pytest.raises(ConfigInvalid, match="is a superuser, whom no wall stops"):
        asyncio.run(walk())


@pytest.mark.parametrize(
    "sound",
    [
        "CREATE VIEW v WITH (security_invoker = true) AS SELECT * FROM reviews; GRANT SELECT ON v TO gw_ro",
        "CREATE POLICY wide ON reviews TO PUBLIC USING (true)",
        "CREATE TABLE salaries (id int)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; REVOKE ALL ON FUNCTION f() FROM PUBLIC",  # noqa: E501  # SQL reads best in one line
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE EXTENSION pgcrypto",
    ],
)  # fmt: skip
def test_what_opens_no_hole_is_not_refused(base: str, sound: str) -> None:
    run(base, sound)

    async def walk() -> None:
        async with opened(base, COUNT) as door:
            assert rows_of(await sent(door, "count")) == [{"n": 20}]

    asyncio.run(walk())


def test_another_key_than_the_databases_is_refused(base: str) -> None:
    async def walk() -> None:
        other = wall(key=claim_key(b"another key, as long as it must be"))
        role = Role(dsn=logged_in(base, "gw_ro"), wall=other)
        await PostgresUpstream.open(role, None, audience=AUDIENCE, statements={}, timeout=5, max_rows=10)

    with pytest.raises(ConfigInvalid, match="does not know the gateway's key"):
        asyncio.run(walk())


def test_a_table_that_is_configured_and_not_walled_is_refused(base: str) -> None:
    run(base, "CREATE TABLE plain (tenant_id text); GRANT SELECT ON plain TO gw_ro")
    more = replace(PLAN, tables=(*PLAN.tables, Walled.of("plain", "tenant_id")))

    async def walk() -> None:
        role = Role(dsn=logged_in(base, "gw_ro"), wall=wall(plan=more))
        await PostgresUpstream.open(role, None, audience=AUDIENCE, statements={}, timeout=5, max_rows=10)

    with pytest.raises(ConfigInvalid, match=r"row level security of public\.plain is not enabled"):
        asyncio.run(walk())
    run(base, wall_sql(more).replace("\\set ON_ERROR_STOP on\n", ""))
    asyncio.run(walk())


def test_a_wall_that_falls_while_the_gateway_runs_ends_the_calls_on_new_connections(base: str) -> None:
    async def walk() -> None:
        async with opened(base, COUNT, timeout=1.0) as door:
            run(base, "ALTER TABLE reviews NO FORCE ROW LEVEL SECURITY")
            assert code_of(await sent(door, "count")) == "wall_down"
            run(base, "ALTER TABLE reviews FORCE ROW LEVEL SECURITY")
            assert rows_of(await sent(door, "count")) == [{"n": 20}]

    asyncio.run(walk())


def test_unique_keys_that_span_tenants_are_told_where_the_role_may_write(base: str) -> None:
    async def walk() -> None:
        async with opened(base, {**COUNT, **WRITE}, writing=["write"]) as door:
            told = " ".join(door.warnings)
            assert "reviews_pkey" in told
            assert "people_email_key" in told
            assert "people_pkey" not in told  # it begins with the tenant
        async with opened(base, COUNT) as door:
            assert door.warnings == ()

    asyncio.run(walk())
