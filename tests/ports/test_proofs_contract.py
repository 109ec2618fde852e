"""What remembering DPoP proofs promises, asked of the file and of the database; and of two gateways on the latter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from onbehalf.doors.issuer_proof import UsedProofs
from onbehalf.doors.proofs_postgres import PostgresProofs
from onbehalf.doors.proofs_sqlite import SqliteProofs
from onbehalf.errors import ProofsUnavailable
from onbehalf.model import UnixTime
from postgres import run as sql
from state_house import opened, state_database, two

NOW = UnixTime(1_800_000_000)
LATER = UnixTime(NOW + 121)
Made = Callable[..., contextlib.AbstractAsyncContextManager[UsedProofs]]


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    with state_database(postgres) as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "postgres"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """One after the other, on one place."""
    dsn = request.getfixturevalue("database") if request.param == "postgres" else ""

    @contextlib.asynccontextmanager
    async def store(*, most: int = 100, most_of_one_key: int = 10) -> AsyncIterator[UsedProofs]:
        if dsn:
            async with opened(dsn, connections=4) as state:
                yield PostgresProofs(state, most=most, most_of_one_key=most_of_one_key)
            return
        path = tmp_path / "proofs.db"
        with contextlib.closing(
            SqliteProofs.open(path, now=NOW, most=most, most_of_one_key=most_of_one_key)
        ) as opened_file:
            yield opened_file

    return store


async def add(store: UsedProofs, id_: str, *, key: str = "k", now: int = NOW, until: int = LATER) -> bool:
    return await store.add(key, id_, now=UnixTime(now), until=UnixTime(until))


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


def test_a_proof_is_new_once_until_it_is_over_also_after_a_restart(made: Made) -> None:
    async def told() -> None:
        async with made() as store:
            assert [await add(store, "a", now=now) for now in (NOW, NOW + 1, LATER - 1)] == [True, False, False]
            assert await add(store, "b")
        async with made() as store:
            assert [await add(store, each, now=NOW + 5) for each in "abc"] == [False, False, True]

    run(told())


def test_the_same_id_of_another_key_is_another_proof_however_they_are_cut(made: Made) -> None:
    async def told() -> None:
        async with made() as store:
            assert [await add(store, "a", key=key) for key in ("k", "l")] == [True, True]
            assert await add(store, "", key="ka")
            assert await add(store, "odd \0 \ud800", key="k")
            assert not await add(store, "odd \0 \ud800", key="k")

    run(told())


def test_of_many_at_once_one_is_the_first(made: Made) -> None:
    async def told() -> None:
        async with made() as store:
            assert sum(await asyncio.gather(*(add(store, f"{number % 5}") for number in range(50)))) == 5

    run(told())


def test_one_key_cannot_fill_what_others_need_and_full_means_refused(made: Made) -> None:
    async def fill() -> None:
        async with made(most=15) as store:
            for number in range(10):
                assert await add(store, f"{number}", key="greedy")
            with pytest.raises(ProofsUnavailable):
                await add(store, "more", key="greedy")
            for number in range(5):
                assert await add(store, f"{number}", key=f"other {number}")
            with pytest.raises(ProofsUnavailable):
                await add(store, "x", key="anybody")
            assert not await add(store, "0", key="greedy"), "nothing is forgotten to make room"
            assert await add(store, "more", key="greedy", now=LATER, until=LATER + 121)

    run(fill())


def test_a_proof_that_is_over_is_not_new(made: Made) -> None:
    async def told() -> None:
        async with made() as store:
            assert not await add(store, "a", now=LATER, until=LATER)
            assert await add(store, "b", now=LATER, until=LATER + 1)

    run(told())


def test_a_closed_store_refuses(made: Made) -> None:
    async def told() -> None:
        async with made() as store:
            pass
        with pytest.raises(ProofsUnavailable):
            await add(store, "a")

    run(told())


def test_of_two_gateways_that_are_shown_one_proof_at_once_one_takes_it(database: str) -> None:
    async def told() -> None:
        async with two(database) as states:
            here, there = (PostgresProofs(state) for state in states)
            for number in range(40):
                taken = await asyncio.gather(*(add(store, f"{number}") for store in (here, there) * 3))
                assert sum(taken) == 1

    run(told())


def test_ids_are_kept_as_digests_only(database: str) -> None:
    async def once() -> None:
        async with opened(database) as state:
            await add(PostgresProofs(state), "the-id-of-a-proof")

    run(once())
    ((text,),) = sql(database, "SELECT proof::text FROM onbehalf_state.proof")
    assert "the-id-of-a-proof" not in text
    assert b"the-id-of-a-proof".hex() not in text
