"""What every store of the sign-in broker promises, asked of the file and of the database, by one gateway and by two."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onbehalf.broker.grant import Code, Granted, Reused
from onbehalf.broker.ports import Store
from onbehalf.broker.refused import BrokerUnavailable, OauthRefused
from onbehalf.doors import broker_postgres, broker_sqlite
from onbehalf.doors.broker_postgres import PostgresBroker
from onbehalf.doors.broker_sqlite import SqliteBroker
from onbehalf.model import UnixTime
from postgres import run as sql
from state_house import state_database, two

NOW = UnixTime(1_800_000_000)
GRANT = Granted(
    family="family-1", client="desktop", subject="alice", tenant="acme", resource="https://g/mcp",
    scope=("notes.read", "desk.write"), at=NOW, until=UnixTime(NOW + 1000), told={"groups": ["staff"]},
)  # fmt: skip
CODE = Code(granted=GRANT, redirect_uri="https://c/back", challenge="x" * 43)
Two = Callable[[], contextlib.AbstractAsyncContextManager[tuple[Store, Store]]]


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    with state_database(postgres) as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Two:
    """Two stores on one place, as two processes have them."""
    dsn = request.getfixturevalue("database") if request.param == "postgres" else ""

    @contextlib.asynccontextmanager
    async def pair() -> AsyncIterator[tuple[Store, Store]]:
        if dsn:
            async with two(dsn) as (here, there):
                yield PostgresBroker(here), PostgresBroker(there)
            return
        files = [SqliteBroker.open(tmp_path / "broker.db") for _ in range(2)]
        yield files[0], files[1]
        for each in files:
            each.close()

    return pair


def within(stores: Two, work: Callable[[Store, Store], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        async with stores() as (here, there):
            await work(here, there)

    asyncio.run(run())


async def granted(store: Store, name: str = "1", code: Code = CODE) -> str:
    """Keep a grant; its code."""
    kept = replace(code, granted=replace(code.granted, family=f"family-{name}"))
    await store.granted(f"code-{name}", kept, until=UnixTime(NOW + 60))
    return f"code-{name}"


def test_a_code_is_what_was_granted_once_and_its_reuse_anywhere_ends_the_grant(stores: Two) -> None:
    async def work(here: Store, there: Store) -> None:
        code = await granted(here)
        assert await there.take_code("another", now=NOW) is None
        assert await there.take_code(code, now=NOW) == CODE
        await there.keep_refresh("refresh-1", "family-1")
        assert await here.find_refresh("refresh-1", now=NOW) == GRANT
        assert await here.take_code(code, now=NOW) == Reused(family="family-1")
        assert "family-1" in here.ended
        assert await there.find_refresh("refresh-1", now=NOW) is None
        assert not await there.end("family-1", "again")

    within(stores, work)


def test_a_code_that_is_over_is_none_and_spent(stores: Two) -> None:
    async def work(here: Store, there: Store) -> None:
        code = await granted(here)
        assert await here.take_code(code, now=UnixTime(NOW + 60)) is None
        assert await there.take_code(code, now=NOW) == Reused(family="family-1")

    within(stores, work)


def test_of_many_that_show_one_code_at_once_on_two_gateways_one_has_it_and_the_grant_is_over(stores: Two) -> None:
    async def work(here: Store, there: Store) -> None:
        for number in range(10):
            code = await granted(here, f"{number}")
            taken = await asyncio.gather(*(store.take_code(code, now=NOW) for store in (here, there) * 3))
            assert sum(isinstance(each, Code) for each in taken) == 1
            assert sum(isinstance(each, Reused) for each in taken) == 5
            await here.keep_refresh(f"refresh-{number}", f"family-{number}")
            assert await there.find_refresh(f"refresh-{number}", now=NOW) is None

    within(stores, work)


def test_a_refresh_token_is_good_once_and_its_reuse_anywhere_ends_the_grant(stores: Two) -> None:
    async def work(here: Store, there: Store) -> None:
        await granted(here)
        await here.keep_refresh("first", "family-1")
        assert await there.find_refresh("first", now=UnixTime(NOW + 999)) == GRANT
        assert await there.find_refresh("first", now=UnixTime(NOW + 1000)) is None
        assert not await here.rotate("unknown", "x")
        assert await here.find_refresh("x", now=NOW) is None
        assert await there.rotate("first", "second")
        assert await here.find_refresh("second", now=NOW) == GRANT
        assert not await here.rotate("first", "stolen")
        assert "family-1" in here.ended
        for refresh in ("first", "second", "stolen"):
            assert await there.find_refresh(refresh, now=NOW) is None

    within(stores, work)


def test_of_many_that_use_one_refresh_token_at_once_on_two_gateways_one_wins_and_the_family_is_over(
    stores: Two,
) -> None:
    async def work(here: Store, there: Store) -> None:
        for number in range(15):
            await granted(here, f"{number}")
            await here.keep_refresh(f"r{number}", f"family-{number}")
            won = await asyncio.gather(
                *(store.rotate(f"r{number}", f"f{number}.{at}") for at, store in enumerate((here, there, here, there)))
            )
            assert sum(won) == 1
            assert await here.find_refresh(f"f{number}.{won.index(True)}", now=NOW) is None

    within(stores, work)


def test_a_grant_is_bound_to_the_first_key(stores: Two) -> None:
    async def work(here: Store, there: Store) -> None:
        await granted(here)
        await here.keep_refresh("first", "family-1")
        await asyncio.gather(here.bind("family-1", "key-1"), there.bind("family-1", "key-1"))
        await there.bind("family-1", "key-2")
        found = await here.find_refresh("first", now=NOW)
        assert found is not None
        assert found.key == "key-1"

    within(stores, work)


def test_an_assertion_is_taken_once_by_its_issuer_and_id(stores: Two) -> None:
    async def work(here: Store, there: Store) -> None:
        later = UnixTime(NOW + 60)
        assert await here.once("a", "1", until=later, now=NOW)
        assert not await there.once("a", "1", until=later, now=NOW)
        assert await there.once("a", "2", until=later, now=NOW)
        assert await there.once("b", "1", until=later, now=NOW)
        assert await there.once("b", "odd \0 one", until=later, now=NOW)

    within(stores, work)


def test_of_two_gateways_that_are_shown_one_assertion_at_once_one_takes_it(stores: Two) -> None:
    async def work(here: Store, there: Store) -> None:
        later = UnixTime(NOW + 60)
        for number in range(25):
            asked = (store.once("a", f"{number}", until=later, now=NOW) for store in (here, there) * 3)
            assert sum(await asyncio.gather(*asked)) == 1

    within(stores, work)


def test_a_client_that_registered_is_known_to_both_and_others_are_not(stores: Two) -> None:
    async def work(here: Store, there: Store) -> None:
        await here.register("client-1", {"client_name": "One \N{SNOWMAN}"}, now=NOW)
        assert await there.client("client-1", now=NOW) == {"client_name": "One \N{SNOWMAN}"}
        for odd in ("client-2", "", "a\0b", "\N{SNOWMAN}"):
            assert await there.client(odd, now=NOW) is None

    within(stores, work)


def test_clients_that_are_not_used_make_room_and_more_than_there_is_room_for_are_refused(
    stores: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (broker_sqlite, broker_postgres):
        monkeypatch.setattr(module, "MOST_CLIENTS", 2)

    async def work(here: Store, there: Store) -> None:
        await here.register("client-1", {}, now=NOW)
        await there.register("client-2", {}, now=NOW)
        assert await here.client("client-2", now=NOW) is not None
        with pytest.raises(OauthRefused, match="too many clients"):
            await here.register("client-3", {}, now=NOW)
        await there.register("client-4", {}, now=UnixTime(NOW + 86_401))  # a day on: the first was never used
        assert await here.client("client-1", now=UnixTime(NOW + 86_401)) is None
        assert await here.client("client-2", now=UnixTime(NOW + 86_401)) is not None

    within(stores, work)


def test_a_closed_store_is_an_error_and_never_a_yes(stores: Two) -> None:
    async def run() -> None:
        async with stores() as (here, _):
            pass
        for work in (
            here.take_code("x", now=NOW), here.rotate("x", "y"), here.find_refresh("x", now=NOW),
            here.once("a", "1", until=UnixTime(NOW + 60), now=NOW), here.end("x", ""), here.client("x", now=NOW),
        ):  # fmt: skip
            with pytest.raises(BrokerUnavailable):
                await work

    asyncio.run(run())


def test_codes_tokens_and_assertions_are_kept_as_digests_only(database: str) -> None:
    async def run() -> None:
        async with two(database) as (here, _):
            store = PostgresBroker(here)
            await granted(store)
            await store.keep_refresh("refresh-secret", "family-1")
            await store.once("issuer", "assertion-secret", until=UnixTime(NOW + 60), now=NOW)

    asyncio.run(run())
    kept = str(sql(database, "SELECT (SELECT jsonb_agg(to_jsonb(code)) FROM onbehalf_state.code),"
                             "(SELECT jsonb_agg(to_jsonb(refresh)) FROM onbehalf_state.refresh),"
                             "(SELECT jsonb_agg(to_jsonb(assertion)) FROM onbehalf_state.assertion)"))  # fmt: skip
    for secret in ("code-1", "refresh-secret", "assertion-secret"):
        assert secret not in kept
        assert secret.encode().hex() not in kept
