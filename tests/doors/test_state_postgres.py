"""The database that gateways remember in: what it must be, what is heard from it, and what comes of its failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from onbehalf.broker.grant import Code, Granted
from onbehalf.broker.refused import BrokerUnavailable
from onbehalf.doors.broker_postgres import PostgresBroker
from onbehalf.doors.once_postgres import PostgresOnce
from onbehalf.doors.proofs_postgres import PostgresProofs
from onbehalf.doors.revocations_postgres import PostgresRevocations, RevocationTable
from onbehalf.doors.state_postgres import State, StateDown
from onbehalf.doors.state_schema import state_sql
from onbehalf.doors.state_watch import StateWatch
from onbehalf.errors import ConfigInvalid, OnceUnavailable, ProofsUnavailable
from onbehalf.model import CallId, Digest, UnixTime
from ports import free_port
from postgres import fresh, run
from state_house import SilentProxy, opened, state_database, two

KEY, SENT = Digest("sha256:" + "1" * 64), Digest("sha256:" + "a" * 64)


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    with state_database(postgres) as found:
        yield found


def owner(dsn: str, postgres: str) -> str:
    """The owner's DSN at the database of a gateways' role."""
    return make_conninfo(postgres, dbname=conninfo_to_dict(dsn)["dbname"])


def within(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def open_close(dsn: str, *, seconds: float = 5.0) -> None:
    async with opened(dsn, seconds=seconds):
        pass


# --- what it must be -----------------------------------------------------------------------


def test_a_change_is_durable_when_it_is_told_whatever_the_role_was_set_to(dsn: str, postgres: str) -> None:
    role = conninfo_to_dict(dsn)["user"]

    async def told() -> list[str]:
        async with opened(dsn) as state:
            return [str((await state.run("SELECT current_setting('synchronous_commit')"))[0][0])]

    for given, kept in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        run(postgres, f"ALTER ROLE {role} SET synchronous_commit = {given}")
        assert asyncio.run(told()) == [kept]


def test_the_role_can_change_no_table_and_delete_no_revocation(dsn: str) -> None:
    for text in (
        "CREATE TABLE onbehalf_state.more (x int)", "ALTER TABLE onbehalf_state.proof ADD x int",
        "DROP TABLE onbehalf_state.proof", "TRUNCATE onbehalf_state.proof", "DELETE FROM onbehalf_state.revocation",
        "UPDATE onbehalf_state.revocation SET name = 'x'", "UPDATE onbehalf_state.version SET number = 2",
    ):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(dsn, text)


def test_a_role_that_may_change_the_tables_is_refused(dsn: str, postgres: str) -> None:
    with pytest.raises(ConfigInvalid, match="its role may change the tables"):
        within(open_close(owner(dsn, postgres)))


def test_tables_that_are_missing_or_of_another_release_are_refused(dsn: str, postgres: str) -> None:
    run(owner(dsn, postgres), "UPDATE onbehalf_state.version SET number = 99")
    with pytest.raises(ConfigInvalid, match="of version 99, expected 2"):
        within(open_close(dsn))
    with fresh(postgres) as empty:
        role = conninfo_to_dict(dsn)
        elsewhere = make_conninfo(empty, user=role["user"], password=role["password"])
        with pytest.raises(ConfigInvalid, match="its tables are not there"):
            within(open_close(elsewhere))


def test_a_server_that_takes_no_writes_is_refused(dsn: str, postgres: str) -> None:
    run(postgres, f"ALTER DATABASE {conninfo_to_dict(dsn)['dbname']} SET default_transaction_read_only = on")
    with pytest.raises(ConfigInvalid, match="it takes no writes"):
        within(open_close(dsn))


def test_a_clock_that_is_another_is_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("onbehalf.doors.state_postgres.time.time", lambda: real() + 60)
    with pytest.raises(ConfigInvalid, match="clock and this machine's differ by 60 s"):
        within(open_close(dsn))


def test_a_server_that_is_not_there_is_said_without_the_password(dsn: str) -> None:
    gone = make_conninfo(dsn, port=free_port(), connect_timeout=2)
    with pytest.raises(ConfigInvalid, match="cannot be reached") as caught:
        within(open_close(gone))
    assert "for tests only" not in str(caught.value)


def test_the_script_can_be_run_again_and_loses_nothing(dsn: str, postgres: str) -> None:
    run(dsn, "INSERT INTO onbehalf_state.shown VALUES ('change', 1)")
    script = state_sql(role=str(conninfo_to_dict(dsn)["user"])).removeprefix("\\set ON_ERROR_STOP on\n")
    run(owner(dsn, postgres), script)
    assert run(dsn, "SELECT change FROM onbehalf_state.shown") == [("change",)]


# --- its failures --------------------------------------------------------------------------


def test_a_statement_that_waits_too_long_is_ended_and_refused_and_nothing_is_done(dsn: str) -> None:
    async def work() -> None:
        async with opened(dsn, seconds=2.0) as state:
            once = PostgresOnce(state)
            with psycopg.connect(dsn) as other:
                other.execute(
                    "INSERT INTO onbehalf_state.once VALUES (%s, 'x', 'x', 1, 2, false)", (KEY,)
                )  # not committed, so whoever begins the same waits
                with pytest.raises(OnceUnavailable):
                    await once.begin(KEY, CallId("a"), SENT, now=UnixTime(1), until=UnixTime(9))
                other.rollback()
            assert await once.begin(KEY, CallId("b"), SENT, now=UnixTime(1), until=UnixTime(9)) is None

    within(work())


def test_a_server_that_answers_nothing_is_given_up_in_time(dsn: str) -> None:
    async def work() -> None:
        async with SilentProxy(dsn) as (through, silence), opened(through, seconds=2.0) as state:
            proofs = PostgresProofs(state)
            now = UnixTime(int(time.time()))
            assert await proofs.add("k", "a", now=now, until=UnixTime(now + 60))
            silence.set()
            with pytest.raises(ProofsUnavailable):
                await proofs.add("k", "b", now=now, until=UnixTime(now + 60))

    within(work())


def test_a_database_that_is_killed_in_between_refuses_and_nothing_is_done_twice(dsn: str, postgres: str) -> None:
    within(_killed(dsn, postgres))


async def _killed(dsn: str, postgres: str) -> None:
    """Connections are killed at any moment while proofs, keys and tokens are used on two gateways."""
    now = UnixTime(int(time.time()))
    later = UnixTime(now + 600)
    kill_all = (
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{conninfo_to_dict(dsn)['user']}'"
    )
    async with two(dsn) as states:
        stores = [(PostgresProofs(each), PostgresOnce(each), PostgresBroker(each)) for each in states]
        taken: dict[str, int] = {}
        refused = 0

        async def tried(name: str, work: Coroutine[Any, Any, Any], yes: Any) -> None:
            nonlocal refused
            try:
                answer = await work
                taken[name] = taken.get(name, 0) + (answer is yes)
            except (ProofsUnavailable, OnceUnavailable, BrokerUnavailable):
                refused += 1

        kills, done = 0, asyncio.Event()

        async def kill() -> None:
            nonlocal kills
            while not done.is_set():
                await asyncio.to_thread(run, postgres, kill_all)
                kills, before = kills + 1, sum(taken.values())
                while sum(taken.values()) == before and not done.is_set():  # else nothing would ever be taken
                    await asyncio.sleep(0.01)

        killing = asyncio.create_task(kill())
        number = 0
        while kills < 10 or number < 60:
            number += 1
            key = Digest(f"sha256:{number:064}")
            await asyncio.gather(*(
                tried(f"{kind}{number}", work, yes)
                for at, (proofs, once, broker) in enumerate(stores * 2)
                for kind, work, yes in (
                    ("proof", proofs.add("k", f"{number}", now=now, until=later), True),
                    ("once", once.begin(key, CallId(f"{at}"), SENT, now=now, until=later), None),
                    ("assertion", broker.once("a", f"{number}", until=later, now=now), True),
                )
            ))  # fmt: skip
        done.set()
        await killing
        assert refused, "no connection was killed in the middle"
        assert max(taken.values()) == 1
        await _settled(states)
        for proofs, once, broker in stores:  # what was taken is taken still
            for each in range(1, number + 1):
                if taken.get(f"proof{each}"):
                    assert not await proofs.add("k", f"{each}", now=now, until=later)
                if taken.get(f"once{each}"):
                    again = once.begin(Digest(f"sha256:{each:064}"), CallId("z"), SENT, now=now, until=later)
                    assert await again is not None
                if taken.get(f"assertion{each}"):
                    assert not await broker.once("a", f"{each}", until=later, now=now)


async def _settled(states: tuple[State, State]) -> None:
    """Wait until each answers a number of times without a failure."""
    for state in states:
        answered = 0
        while answered < 20:
            try:
                await state.run("SELECT 1")
                answered += 1
            except StateDown:
                answered = 0
                await asyncio.sleep(0.02)


def test_who_goes_away_does_not_break_off_what_was_begun(dsn: str) -> None:
    async def work() -> None:
        async with opened(dsn) as state:
            asked = asyncio.create_task(state.run("INSERT INTO onbehalf_state.shown SELECT 'c', 1 FROM pg_sleep(0.3)"))
            await asyncio.sleep(0.1)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        assert run(dsn, "SELECT change FROM onbehalf_state.shown") == [("c",)]

    within(work())


def test_text_that_no_database_holds_is_refused(dsn: str) -> None:
    async def work() -> None:
        async with opened(dsn) as state:
            for odd in ("a\0b", "\ud800"):
                with pytest.raises(StateDown):
                    await state.run("SELECT $1::text", odd)
            assert await state.run("SELECT 1") == [(1,)]

    within(work())


# --- what is heard -------------------------------------------------------------------------


def granted(family: str, until: int) -> Code:
    of = Granted(
        family=family, client="c", subject="s", tenant="", resource="r", scope=(), at=UnixTime(1), until=UnixTime(until)
    )
    return Code(granted=of, redirect_uri="https://c/", challenge="x")


def test_what_another_gateway_ended_or_revoked_is_heard_at_the_next_look(dsn: str) -> None:
    later = int(time.time()) + 600

    async def work() -> None:
        async with two(dsn) as (one, another):
            brokers = PostgresBroker(one), PostgresBroker(another)
            revocations = PostgresRevocations(one)
            watch = StateWatch(one, revocations, brokers[0])
            news: list[int] = []
            watch.changed = lambda: news.append(1)
            with pytest.raises(TimeoutError):
                revocations.version()
            await watch.look()
            before = revocations.version()
            await brokers[1].granted("code", granted("family", later), until=UnixTime(later))
            await brokers[1].end("family", "why")
            table = RevocationTable.open(dsn)
            made = table.add("person", "acme", "bob", at=UnixTime(5), blocks=True, by="ops", reason="lost")
            assert "family" not in brokers[0].ended
            await watch.look()
            assert "family" in brokers[0].ended
            assert news == [1]
            assert (list(revocations.all()), revocations.version() != before) == ([made], True)
            await watch.look()
            assert news == [1], "what is known is no news"
            lifted = table.lift(made.id, at=UnixTime(9), by="ops")
            assert table.lift(made.id, at=UnixTime(9), by="ops") is None
            revocations.note(made.id, 2)
            await revocations.aclose()
            await watch.look()
            (found,) = revocations.all()
            assert lifted is not None
            assert (found.stops, found.lifted, found.noted, lifted.noted) == (False, 9, 2, 0)
            assert list(table.all()) == [found]
            table.close()

    within(work())


def test_what_commits_late_is_heard_however_many_looks_came_between(dsn: str) -> None:
    async def work() -> None:
        async with opened(dsn) as state:
            revocations = PostgresRevocations(state)
            watch = StateWatch(state, revocations, None)
            with psycopg.connect(dsn) as slow:
                slow.execute("INSERT INTO onbehalf_state.revocation (kind, tenant, name, at, blocks, by, reason)"
                             " VALUES ('person', 'acme', 'slow', 1, true, 'ops', 'x')")  # fmt: skip
                table = RevocationTable.open(dsn)
                table.add("person", "acme", "quick", at=UnixTime(1), blocks=True, by="ops", reason="x")
                table.close()
                for _ in range(3):
                    await watch.look()
                assert {each.name for each in revocations.all()} == {"quick"}
                slow.commit()
            await watch.look()
            assert {each.name for each in revocations.all()} == {"quick", "slow"}

    within(work())


def test_nothing_heard_for_two_seconds_or_from_another_clock_means_that_nobody_knows(dsn: str) -> None:
    passed = 0.0

    async def work() -> None:
        nonlocal passed
        async with opened(dsn) as state:
            revocations = PostgresRevocations(state, monotonic=lambda: passed)
            wrong = 0.0
            watch = StateWatch(state, revocations, None, clock=lambda: time.time() + wrong, monotonic=lambda: passed)
            await watch.look()
            passed = 1.9
            assert revocations.version() == (0, 0, 0)
            passed = 2.1
            with pytest.raises(TimeoutError):
                revocations.version()
            await watch.look()
            assert revocations.version() == (0, 0, 0)
            passed, wrong = 4.3, 30.0
            with pytest.raises(StateDown, match="differ by 30 s"):
                await watch.look()
            with pytest.raises(TimeoutError):
                revocations.version()

    within(work())


def test_what_is_over_is_swept_a_minute_later_and_nothing_else_is(dsn: str) -> None:
    now = int(time.time())
    rows = [(f"{after}", now + after) for after in (-100, -30, 100)]

    async def work() -> None:
        async with opened(dsn) as state:
            broker = PostgresBroker(state)
            for name, until in rows:
                await state.run("INSERT INTO onbehalf_state.shown VALUES ($1, $2)", name, until)
                await state.run("INSERT INTO onbehalf_state.proof VALUES ($1, 'k', $2)", name.encode(), until)
                await state.run("INSERT INTO onbehalf_state.assertion VALUES ($1, $2)", name.encode(), until)
                await state.run("INSERT INTO onbehalf_state.once VALUES ($1, '', '', 1, $2, false)", name, until)
                await broker.granted(f"code {name}", granted(name, until), until=UnixTime(until))
            await StateWatch(state, PostgresRevocations(state), broker).sweep()

    within(work())
    left = {name for name, until in rows if until > now - 60}
    for query in (
        "SELECT change FROM onbehalf_state.shown", "SELECT convert_from(name, 'UTF8') FROM onbehalf_state.proof",
        "SELECT convert_from(name, 'UTF8') FROM onbehalf_state.assertion", "SELECT key FROM onbehalf_state.once",
        "SELECT family FROM onbehalf_state.granted", "SELECT family FROM onbehalf_state.code",
    ):  # fmt: skip
        assert {name for (name,) in run(dsn, query)} == left
