"""What security events did, kept in one real PostgreSQL by several gateways."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from doors.test_revocations_signalled import ALICE, NOW, effect
from onbehalf.config_signals import StreamSettings
from onbehalf.doors import signals_turns, state_watch
from onbehalf.doors.issuer_keys import IssuerKeys
from onbehalf.doors.revocations_postgres import PostgresRevocations, RevocationTable
from onbehalf.doors.revocations_signalled import SignalStore
from onbehalf.doors.revocations_signalled_postgres import PostgresSignals
from onbehalf.doors.revocations_sqlite import Revocations
from onbehalf.doors.signals_stream import Around, SignalStream
from onbehalf.doors.signals_turns import InTurn, Turns
from onbehalf.doors.state_postgres import State, StateDown
from onbehalf.doors.state_schema import state_sql
from onbehalf.doors.state_watch import StateWatch
from onbehalf.errors import SignalsUnavailable, StateRefused
from onbehalf.model import Json, UnixTime, digest
from onbehalf.model_signals import Does, Effect, Event, Signal, Subject, Target
from onbehalf.validate.signals import SSF, Speaks
from postgres import run
from state_house import opened, state_database, two


class Replica:
    """What one gateway keeps and hears."""

    def __init__(self, state: State) -> None:
        self.revocations = PostgresRevocations(state)
        self.watch = StateWatch(state, self.revocations, None)
        self.signals = PostgresSignals(state, self.revocations, hear=self.watch.look)

    async def take(self, id_: str, *effects: Effect, stream: str = "okta", until: int = NOW + 100) -> bool:
        facts: dict[str, Any] = {"id": id_}
        return await self.signals.take(stream, id_, effects, facts=facts, now=NOW, until=UnixTime(until))

    def ended(self) -> dict[str, int]:
        return {each.name: each.at for each in self.revocations.ended(after=0)}


@pytest.fixture(scope="module")
def database(postgres: str) -> Iterator[str]:
    with state_database(postgres) as found:
        yield found


@pytest.fixture
def dsn(database: str, postgres: str) -> str:
    """As the gateways' role, at tables without a row."""
    run(owner(database, postgres), "TRUNCATE onbehalf_state.signal, onbehalf_state.signalled, onbehalf_state.stream,"
        " onbehalf_state.revocation")  # fmt: skip
    return database


def owner(dsn: str, postgres: str) -> str:
    return make_conninfo(postgres, dbname=conninfo_to_dict(dsn)["dbname"])


def pair(dsn: str, work: Callable[[Replica, Replica], Awaitable[None]]) -> None:
    async def both() -> None:
        async with two(dsn) as (one, another):
            await work(Replica(one), Replica(another))

    within(both())


def within(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_of_gateways_that_an_event_comes_to_at_once_one_takes_it(dsn: str, postgres: str) -> None:
    async def work(here: Replica, there: Replica) -> None:
        for number in range(5):
            taken = await asyncio.gather(
                *(each.take(f"{number}", effect("block", number)) for each in (here, there) * 4)
            )
            assert sorted(taken) == [False] * 7 + [True]
        assert await here.take("0", effect(), stream="other") is True

    pair(dsn, work)
    assert run(owner(dsn, postgres), "SELECT count(*) FROM onbehalf_state.revocation") == [(1,)]


def test_what_one_took_is_in_force_there_at_once_and_elsewhere_at_the_next_look(dsn: str) -> None:
    async def work(here: Replica, there: Replica) -> None:
        await here.watch.look()
        await there.watch.look()
        before = there.revocations.version()
        await here.take("one", effect(at=70), effect("block", 80))
        await here.signals.in_force()
        assert here.ended() == {"alice": 80}
        assert [each.stops for each in here.revocations.all()] == [True]
        assert there.ended() == {}
        await there.watch.look()
        assert there.ended() == {"alice": 80}
        assert [each.stops for each in there.revocations.all()] == [True]
        assert there.revocations.version() != before
        seen = there.revocations.ended(after=0)[-1].seq
        await there.watch.look()
        assert there.revocations.ended(after=seen) == []
        await here.take("two", effect("let_go", 90))
        await there.watch.look()
        assert [each.stops for each in there.revocations.all()] == [False]

    pair(dsn, work)


def test_an_event_and_all_that_comes_of_it_are_kept_or_none_of_it(dsn: str) -> None:
    nobody = Target(kind="person", tenant="", name="x")  # the table refuses it

    async def work(here: Replica, there: Replica) -> None:
        with pytest.raises(SignalsUnavailable):
            await here.take("one", effect("block"), effect(target=nobody))
        await here.watch.look()
        assert here.ended() == {}
        assert await there.take("one", effect("block")) is True  # it comes again

    pair(dsn, work)


@pytest.mark.parametrize("seed", range(6))
def test_in_whatever_order_events_come_the_database_does_as_the_file_does(
    dsn: str, postgres: str, tmp_path: Path, seed: int
) -> None:
    choice = random.Random(seed)
    does: tuple[Does, ...] = ("block", "let_go", "end", "nothing")
    targets = (ALICE, replace(ALICE, name="bob"), Target(kind="tenant", tenant="acme", name=""))
    told = [
        (
            f"{number}",
            choice.choice(("okta", "entra")),
            effect(choice.choice(does), choice.randrange(8), choice.choice(targets)),
        )
        for number in range(40)
    ]
    file = SignalStore.open(tmp_path / "revocations.db")

    async def work(here: Replica, there: Replica) -> None:
        for id_, stream, each in told:
            at = choice.choice((here, there))
            assert await at.take(id_, each, stream=stream) is await file.take(
                stream, id_, [each], facts={}, now=NOW, until=UnixTime(NOW + 100)
            )
        await here.watch.look()
        mine = Revocations.open(tmp_path / "revocations.db")
        kept = {(each.kind, each.name, each.by, each.reason, each.at, each.lifted) for each in mine.all()}
        assert {(e.kind, e.name, e.by, e.reason, e.at, e.lifted) for e in here.revocations.all()} == kept
        mine.close()

    pair(dsn, work)
    file.close()
    columns = "kind, tenant, name, stream, ended, account"
    with closing(sqlite3.connect(tmp_path / "revocations.db")) as base:
        rows = set(base.execute(f"SELECT {columns} FROM signalled"))
    assert set(run(owner(dsn, postgres), f"SELECT {columns} FROM onbehalf_state.signalled")) == rows
    assert rows


def test_an_account_is_let_go_by_its_own_stream_only_and_never_from_what_a_person_did(dsn: str) -> None:
    async def work(here: Replica, there: Replica) -> None:
        table = RevocationTable.open(dsn)
        table.add("person", "acme", "alice", at=UnixTime(1), blocks=True, by="root", reason="account-disabled x")
        table.close()
        await here.take("one", effect("block", 10))
        await here.take("two", effect("let_go", 20), stream="other")
        await here.watch.look()
        assert [each.stops for each in here.revocations.all()] == [True, True]
        await there.take("three", effect("let_go", 20))
        await here.watch.look()
        assert [each.stops for each in here.revocations.all()] == [True, False]

    pair(dsn, work)


def test_what_a_gateway_did_not_put_on_record_is_given_to_one_other_and_not_while_it_may_still_do_so(
    dsn: str, postgres: str
) -> None:
    async def work(here: Replica, there: Replica) -> None:
        await here.take("one", effect())
        await here.take("two", effect())
        await here.signals.noted("okta", "two")
        assert await there.signals.pending() == []
        run(owner(dsn, postgres), "UPDATE onbehalf_state.signal SET claimed = claimed - 61")
        given = await asyncio.gather(here.signals.pending(), there.signals.pending())
        assert [each for one in given for each in one] == [("okta", "one", {"id": "one"})]
        assert await here.take("one", effect()) is False

    pair(dsn, work)


def test_what_cannot_be_heard_lets_nobody_in(dsn: str) -> None:
    async def work() -> None:
        async with opened(dsn) as state:
            here = Replica(state)
            await here.watch.look()
            here.revocations.version()

            async def away() -> None:
                raise StateDown("it is away")

            await PostgresSignals(state, here.revocations, hear=away).in_force()
            with pytest.raises(TimeoutError):
                here.revocations.version()
            await here.watch.look()
            here.revocations.version()

    within(work())


def test_a_stream_that_any_gateway_hears_is_heard_and_what_was_asked_may_come_to_any(dsn: str) -> None:
    async def work(here: Replica, there: Replica) -> None:
        await here.signals.heard("okta", now=NOW, status="paused")
        await there.signals.heard("okta", now=UnixTime(NOW - 5))
        await there.watch.look()
        assert (there.signals.last_heard("okta"), there.signals.last_heard("other")) == (NOW, 0)
        told = (await there.signals.told())["okta"]
        assert (told.heard, told.status) == (NOW, "paused")
        await here.signals.ask("okta", "a state")
        await here.signals.ask("new", "another")
        assert [await there.signals.asked(name) for name in ("okta", "new", "none")] == ["a state", "another", ""]
        assert set(await there.signals.told()) == {"okta"}, "who was asked was not heard by that"

    pair(dsn, work)
    table = RevocationTable.open(dsn)
    assert table.streams()["okta"].heard == NOW
    table.close()


def test_silence_and_what_was_asked_are_judged_over_all_gateways(dsn: str) -> None:
    clock = [NOW]

    def stream(of: Replica) -> SignalStream:
        rule = StreamSettings(
            name="okta", issuer="https://idp.example", audience="a", tenant="acme", push="env:S", silent_seconds=10
        )
        around = Around(
            clock=lambda: clock[0], store=of.signals, named=lambda _: (), look=lambda: None, record=nothing
        )  # fmt: skip
        return SignalStream(Speaks(stream=rule, tokens=()), cast(IssuerKeys, None), around)

    async def work(here: Replica, there: Replica) -> None:
        one, another = stream(here), stream(there)
        clock[0] = UnixTime(NOW + 15)
        assert another.silent_for() == 5
        await one.heard()
        await there.watch.look()
        assert (one.silent_for(), another.silent_for()) == (0, 0)
        await one.ask("what here asked for")
        with pytest.raises(StateRefused):
            await another._require_state(verification("something else"))
        await another._require_state(verification("what here asked for"))
        await another._require_state(verification("whatever: nothing is asked for any more"))

    pair(dsn, work)


async def nothing(kind: str, facts: Mapping[str, Json]) -> None:
    """On no record."""


def verification(state: str) -> Signal:
    event = Event(type=f"{SSF}verification", subject=Subject(), at=NOW, told={"state": state})
    return Signal(
        issuer="https://idp.example", id="1", issued_at=NOW, key="k", algorithm="ES256", token=digest(b""),
        events=(event,),
    )  # fmt: skip


def test_events_that_are_over_or_too_many_are_forgotten_and_those_that_are_not_on_record_never(
    dsn: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_watch, "_KEPT_SIGNALS", 3)
    now = int(time.time())

    async def work(here: Replica, there: Replica) -> None:
        for id_, until in (("open", now - 900), ("over", now - 900), *((f"{n}", now + 100 + n) for n in range(5))):
            await here.take(id_, until=until)
            if id_ != "open":
                await here.signals.noted("okta", id_)
        await here.signals.heard("okta", now=UnixTime(now))
        await there.watch.sweep()

    pair(dsn, work)
    left = {id_ for (id_,) in run(owner(dsn, postgres), "SELECT id FROM onbehalf_state.signal")}
    assert left == {"open", "2", "3", "4"}


def test_the_role_cannot_take_back_what_events_did(dsn: str) -> None:
    for text in (
        "DELETE FROM onbehalf_state.signalled", "UPDATE onbehalf_state.signalled SET name = 'x'",
        "DELETE FROM onbehalf_state.stream", "TRUNCATE onbehalf_state.signal",
    ):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(dsn, text)


def test_tables_from_before_there_were_signals_are_made_whole_by_the_same_script(dsn: str, postgres: str) -> None:
    at, role = owner(dsn, postgres), str(conninfo_to_dict(dsn)["user"])
    run(at, "DROP TABLE onbehalf_state.signal, onbehalf_state.signalled, onbehalf_state.stream;"
        "DROP FUNCTION onbehalf_state.take_signal; UPDATE onbehalf_state.version SET number = 1")  # fmt: skip
    run(at, state_sql(role=role).removeprefix("\\set ON_ERROR_STOP on\n"))
    assert run(dsn, "SELECT number FROM onbehalf_state.version") == [(2,)]

    async def work(here: Replica, there: Replica) -> None:
        assert await here.take("one", effect()) is True

    pair(dsn, work)


# --- whose turn it is ---------------------------------------------------------------------------


class Counting:
    """Work that says by whom it is done."""

    name, problem = "counting", ""

    def __init__(self, who: str, at_work: set[str]) -> None:
        self.who, self.at_work = who, at_work

    async def run(self) -> None:
        self.at_work.add(self.who)
        try:
            await asyncio.Event().wait()
        finally:
            self.at_work.discard(self.who)

    async def aclose(self) -> None:
        """It holds nothing."""


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.02)


def test_one_gateway_works_at_a_stream_and_another_goes_on_when_it_is_gone(dsn: str, postgres: str) -> None:
    async def work() -> None:
        at_work: set[str] = set()
        turns = {name: Turns(dsn, {"okta"}) for name in ("here", "there")}
        tasks = {name: asyncio.create_task(each.run()) for name, each in turns.items()}
        works = [
            asyncio.create_task(InTurn(Counting(name, at_work), each, "okta").run()) for name, each in turns.items()
        ]
        await until(lambda: bool(at_work))
        (first,) = at_work
        (second,) = {"here", "there"} - at_work
        for _ in range(3):
            await asyncio.sleep(0.2)
            assert at_work == {first}
        tasks[first].cancel()  # it ends
        await until(lambda: at_work == {second})
        run(owner(dsn, postgres), "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid ="
            " database WHERE locktype = 'advisory' AND granted AND datname = current_database()")  # fmt: skip
        await until(lambda: at_work == set())  # it knows that it may not go on
        await until(lambda: at_work == {second})  # nobody else is there
        for each in (*tasks.values(), *works):
            each.cancel()
        await asyncio.gather(*tasks.values(), *works, return_exceptions=True)
        assert at_work == set()

    within(work())


def test_a_gateway_that_stands_still_loses_its_turn(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals_turns, "_SETTINGS", signals_turns._SETTINGS.replace("'10s'", "'1s'"))

    async def work() -> None:
        still, other = (Turns(dsn, {"okta"}) for _ in range(2))
        await still._look()  # and nothing more of it
        await still.begun("okta")
        task = asyncio.create_task(other.run())
        await other.begun("okta")
        alone = asyncio.create_task(still.run())
        await still.over("okta")  # it finds out when it goes on
        for each in (task, alone):
            each.cancel()
        await asyncio.gather(task, alone, return_exceptions=True)

    within(work())
