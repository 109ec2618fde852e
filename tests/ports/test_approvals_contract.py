"""What every Approvals promises, asked of the file and of the database, by one gateway and by two."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onbehalf.doors.approvals_postgres import PostgresApprovals
from onbehalf.doors.approvals_sqlite import SqliteApprovals
from onbehalf.errors import ApprovalsUnavailable, TooManyApprovals
from onbehalf.model import Approval, CallId, Digest, Json, UnixTime, Vote
from onbehalf.ports import Approvals
from postgres import run as sql
from state_house import state_database, two

SECRET = b"s" * 32
ABOUT: Json = {"arguments": {"note": "confidential-9876"}}
NEW = Approval(
    id="id-1", binding=Digest("sha256:1"), tenant="acme", person="bob", call=CallId("call_1"),
    approvers=frozenset({"manager", "self"}), at=UnixTime(100), until=UnixTime(200),
)  # fmt: skip
Two = Callable[[], contextlib.AbstractAsyncContextManager[tuple[Approvals, Approvals]]]


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    with state_database(postgres) as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "postgres"])
def doors(request: pytest.FixtureRequest, tmp_path: Path) -> Two:
    """Two doors on one place, as two processes have them."""
    dsn = request.getfixturevalue("database") if request.param == "postgres" else ""

    @contextlib.asynccontextmanager
    async def pair() -> AsyncIterator[tuple[Approvals, Approvals]]:
        if dsn:
            async with two(dsn) as (here, there):
                yield PostgresApprovals(here, secret=SECRET), PostgresApprovals(there, secret=SECRET)
            return
        files = [SqliteApprovals.open(tmp_path / "approvals.db", secret=SECRET) for _ in range(2)]
        yield files[0], files[1]
        for each in files:
            each.close()

    return pair


def within(doors: Two, work: Callable[[Approvals, Approvals], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        async with doors() as (here, there):
            await work(here, there)

    asyncio.run(run())


async def find(kept: Approvals, now: int = 150, id: str = "id-1") -> Approval | None:
    found = await kept.find(id, now=UnixTime(now))
    return found[0] if found else None


async def approve(kept: Approvals, person: str = "dana", *, now: int = 150) -> bool:
    return await kept.approve("id-1", Vote(person=person, at=UnixTime(now)))


async def take(kept: Approvals, now: int = 150, id: str = "id-1") -> bool:
    return await kept.take(id, now=UnixTime(now))


async def refuse(kept: Approvals, now: int = 150) -> bool:
    return await kept.refuse("id-1", now=UnixTime(now))


def test_what_is_asked_again_anywhere_is_the_first_with_its_votes(doors: Two) -> None:
    async def work(here: Approvals, there: Approvals) -> None:
        assert await here.ask(NEW, ABOUT) == NEW
        assert await approve(there, "dana of the north")
        again = await there.ask(replace(NEW, id="id-2", call=CallId("call_2"), at=UnixTime(120)), ABOUT)
        assert again == replace(NEW, votes=(Vote(person="dana of the north", at=UnixTime(150)),))
        assert await there.find("id-1", now=UnixTime(150)) == (again, ABOUT)
        assert await find(here, id="id-2") is None

    within(doors, work)


def test_one_person_has_one_vote(doors: Two) -> None:
    async def work(here: Approvals, there: Approvals) -> None:
        await here.ask(NEW, ABOUT)
        assert sum(await asyncio.gather(*(approve(door) for door in (here, there) * 4))) == 1
        assert await approve(there, "olga")
        found = await find(here)
        assert found is not None
        assert [vote.person for vote in found.votes] == ["dana", "olga"]

    within(doors, work)


def test_of_many_calls_that_use_it_at_once_on_two_gateways_one_does(doors: Two) -> None:
    async def work(here: Approvals, there: Approvals) -> None:
        for number in range(15):
            new = replace(NEW, id=f"id-{number}")
            assert (await here.ask(new, ABOUT)).id == new.id  # the one before is used, so this one is asked for anew
            assert sum(await asyncio.gather(*(take(door, id=new.id) for door in (here, there) * 4))) == 1
            assert await find(there, id=new.id) is None

    within(doors, work)


def test_of_many_that_ask_for_the_same_at_once_on_two_gateways_all_get_one(doors: Two) -> None:
    async def work(here: Approvals, there: Approvals) -> None:
        for number in range(15):
            asked = [
                door.ask(replace(NEW, id=f"id-{number}.{at}.{id(door)}", binding=Digest(f"b{number}"), person=f"p{at}"),
                         ABOUT)
                for at in range(3) for door in (here, there)
            ]  # fmt: skip
            assert len({each.id for each in await asyncio.gather(*asked)}) == 1

    within(doors, work)


def test_what_is_refused_stays_refused(doors: Two) -> None:
    async def work(here: Approvals, there: Approvals) -> None:
        await here.ask(NEW, ABOUT)
        assert await refuse(there)
        assert not await refuse(here)
        assert not await approve(here)
        assert not await take(here)
        assert (await here.ask(replace(NEW, id="id-2"), ABOUT)).refused

    within(doors, work)


def test_of_a_use_and_a_refusal_at_once_one_holds(doors: Two) -> None:
    async def work(here: Approvals, there: Approvals) -> None:
        for number in range(10):
            new = replace(NEW, id=f"id-{number}", binding=Digest(f"b{number}"))
            await here.ask(new, ABOUT)
            done = await asyncio.gather(take(here, id=new.id), there.refuse(new.id, now=UnixTime(150)))
            assert sum(done) == 1

    within(doors, work)


def test_what_is_over_is_gone(doors: Two) -> None:
    async def work(here: Approvals, there: Approvals) -> None:
        await here.ask(NEW, ABOUT)
        assert await approve(here)
        assert await find(there, now=199) is not None
        assert await find(there, now=200) is None
        assert not any([await approve(here, now=200), await take(here, now=200), await refuse(here, now=200)])
        after = await here.ask(replace(NEW, id="id-2", at=UnixTime(200), until=UnixTime(300)), ABOUT)
        assert (after.id, after.votes) == ("id-2", ())
        assert await find(here, now=150) is None

    within(doors, work)


def test_of_one_persons_calls_only_so_many_wait(doors: Two) -> None:
    async def work(here: Approvals, there: Approvals) -> None:
        async def another(number: int, person: str = "bob") -> Approval:
            new = replace(NEW, id=f"{person}-{number}", binding=Digest(f"{person}-{number}"), person=person)
            return await (here, there)[number % 2].ask(new, ABOUT)

        for number in range(20):
            await another(number)
        with pytest.raises(TooManyApprovals, match="20 calls"):
            await another(20)
        assert (await another(3)).id == "bob-3"
        assert (await another(1, "carol")).id == "carol-1"

    within(doors, work)


def test_a_closed_door_is_an_error_and_never_a_yes(doors: Two) -> None:
    async def run() -> None:
        async with doors() as (here, _):
            pass
        for work in (here.ask(NEW, ABOUT), take(here), approve(here), find(here)):
            with pytest.raises(ApprovalsUnavailable, match="what was approved"):
                await work

    asyncio.run(run())


def test_what_it_is_about_is_sealed_bound_to_its_row_and_needs_the_same_secret(database: str) -> None:
    async def run() -> None:
        async with two(database) as (here, there):
            kept = PostgresApprovals(here, secret=SECRET)
            await kept.ask(NEW, ABOUT)
            await kept.ask(replace(NEW, id="id-2", binding=Digest("sha256:2")), ABOUT)
            ((text,),) = sql(database, "SELECT string_agg(encode(about, 'escape'), '') FROM onbehalf_state.approval")
            assert "confidential" not in text
            with pytest.raises(ApprovalsUnavailable):
                await find(PostgresApprovals(there, secret=b"t" * 32))
            sql(database, "UPDATE onbehalf_state.approval SET about = (SELECT about FROM onbehalf_state.approval"
                          " WHERE id = 'id-2') WHERE id = 'id-1'")  # fmt: skip
            with pytest.raises(ApprovalsUnavailable):
                await find(kept)
            assert await find(kept, id="id-2") is not None

    asyncio.run(run())
