"""What every Once and Changes promises, asked of the file and of the database, by one gateway and by two."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from onbehalf.doors.once_postgres import PostgresOnce
from onbehalf.doors.once_sqlite import SqliteOnce
from onbehalf.errors import OnceUnavailable
from onbehalf.model import CallId, Digest, Earlier, UnixTime
from state_house import state_database, two

KEY, OTHER = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
SENT = Digest("sha256:" + "a" * 64)
Door = SqliteOnce | PostgresOnce
Two = Callable[[], contextlib.AbstractAsyncContextManager[tuple[Door, Door]]]


@pytest.fixture(params=["sqlite", "postgres"])
def doors(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Two]:
    """Two doors on one place, as two processes have them."""

    @contextlib.asynccontextmanager
    async def files() -> AsyncIterator[tuple[Door, Door]]:
        pair = (SqliteOnce.open(tmp_path / "once.db"), SqliteOnce.open(tmp_path / "once.db"))
        yield pair
        for each in pair:
            each.close()

    if request.param == "sqlite":
        yield files
        return
    with state_database(request.getfixturevalue("postgres")) as dsn:

        @contextlib.asynccontextmanager
        async def database() -> AsyncIterator[tuple[Door, Door]]:
            async with two(dsn) as (here, there):
                yield PostgresOnce(here), PostgresOnce(there)

        yield database


def within(doors: Two, work: Callable[[Door, Door], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        async with doors() as (here, there):
            await work(here, there)

    asyncio.run(run())


async def begun(door: Door, call: str, *, key: Digest = KEY, now: int = 100, until: int = 160) -> Earlier | None:
    return await door.begin(key, CallId(call), SENT, now=UnixTime(now), until=UnixTime(until))


def test_the_first_call_is_first_and_the_second_hears_of_it_wherever_it_comes(doors: Two) -> None:
    async def work(here: Door, there: Door) -> None:
        assert await begun(here, "first") is None
        assert await begun(here, "other", key=OTHER) is None
        earlier = Earlier(call=CallId("first"), arguments=SENT, at=UnixTime(100), done=False)
        assert await begun(there, "second") == earlier
        await here.done(KEY, CallId("first"))
        third = await begun(there, "third")
        assert third is not None
        assert third.done

    within(doors, work)


def test_a_call_without_effect_may_be_sent_again_and_only_its_own_row_goes(doors: Two) -> None:
    async def work(here: Door, there: Door) -> None:
        assert await begun(here, "first") is None
        await here.forget(KEY, CallId("another"))
        assert await begun(there, "second") is not None
        await here.forget(KEY, CallId("first"))
        assert await begun(there, "third") is None
        await here.done(KEY, CallId("first"))  # late, and of a call that this row is not about any more
        fourth = await begun(here, "fourth")
        assert fourth is not None
        assert not fourth.done

    within(doors, work)


def test_after_its_time_a_call_is_new_again(doors: Two) -> None:
    async def work(here: Door, there: Door) -> None:
        assert await begun(here, "first") is None
        assert await begun(there, "second", now=159) is not None
        assert await begun(there, "third", now=160, until=220) is None
        fourth = await begun(here, "fourth", now=161)
        assert fourth is not None
        assert fourth.call == "third"

    within(doors, work)


def test_of_many_that_begin_at_once_on_two_gateways_exactly_one_is_first(doors: Two) -> None:
    async def work(here: Door, there: Door) -> None:
        for number in range(15):
            key = Digest(f"sha256:{number:064}")
            calls = [begun(door, f"{at}.{id(door)}", key=key) for at in range(6) for door in (here, there)]
            found = await asyncio.gather(*calls)
            assert found.count(None) == 1
            assert len({earlier.call for earlier in found if earlier}) == 1

    within(doors, work)


def test_of_many_that_begin_at_once_after_its_time_exactly_one_is_first(doors: Two) -> None:
    async def work(here: Door, there: Door) -> None:
        assert await begun(here, "first") is None
        for number in range(10):
            now = 200 + 100 * number
            calls = [
                begun(door, f"{number}.{at}.{id(door)}", now=now, until=now + 50)
                for at in range(6) for door in (here, there)
            ]  # fmt: skip
            assert (await asyncio.gather(*calls)).count(None) == 1

    within(doors, work)


def test_a_shown_change_is_taken_once_and_not_after_its_time(doors: Two) -> None:
    async def work(here: Door, there: Door) -> None:
        await here.shown(KEY, until=UnixTime(200))
        assert not await there.take(OTHER, now=UnixTime(100))
        assert await there.take(KEY, now=UnixTime(100))
        assert not await here.take(KEY, now=UnixTime(100))
        await here.shown(KEY, until=UnixTime(200))
        assert not await there.take(KEY, now=UnixTime(200))
        assert not await there.take(KEY, now=UnixTime(100))

    within(doors, work)


def test_of_many_that_take_a_change_at_once_on_two_gateways_one_has_it(doors: Two) -> None:
    async def work(here: Door, there: Door) -> None:
        for _ in range(15):
            await here.shown(KEY, until=UnixTime(200))
            assert sum(await asyncio.gather(*(door.take(KEY, now=UnixTime(1)) for door in (here, there) * 5))) == 1

    within(doors, work)


def test_a_closed_door_is_an_error_and_never_a_yes(doors: Two) -> None:
    async def run() -> None:
        async with doors() as (here, _):
            pass
        for work in (begun(here, "x"), here.done(KEY, CallId("x")), here.take(KEY, now=UnixTime(1))):
            with pytest.raises(OnceUnavailable):
                await work

    asyncio.run(run())
