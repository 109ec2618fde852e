"""What every Vault promises, asked of the file and of the database, by one gateway and by two."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onbehalf.connecting import Account, Owner, Vault
from onbehalf.doors.vault_postgres import PostgresVault
from onbehalf.doors.vault_sqlite import SqliteVault
from onbehalf.errors import VaultUnavailable
from onbehalf.model import UnixTime
from postgres import run as sql
from state_house import state_database, two

KEY = b"k" * 32
ALICE = Owner(tenant="acme", person="alice", upstream="code")
ACCOUNT = Account(access="secret-access", refresh="secret-refresh", until=7)
OTHERS = (replace(ALICE, tenant="globex"), replace(ALICE, person="bob"), replace(ALICE, upstream="tickets"))
NOW = UnixTime(1000)
Two = Callable[[], contextlib.AbstractAsyncContextManager[tuple[Vault, Vault]]]


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    with state_database(postgres) as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "postgres"])
def vaults(request: pytest.FixtureRequest, tmp_path: Path) -> Two:
    """Two vaults on one place, as two processes have them."""
    dsn = request.getfixturevalue("database") if request.param == "postgres" else ""

    @contextlib.asynccontextmanager
    async def pair() -> AsyncIterator[tuple[Vault, Vault]]:
        if dsn:
            async with two(dsn) as (here, there):
                yield PostgresVault(here, secret=KEY), PostgresVault(there, secret=KEY)
            return
        files = [SqliteVault.open(tmp_path / "vault.db", secret=KEY) for _ in range(2)]
        yield files[0], files[1]
        for each in files:
            each.close()

    return pair


def within(vaults: Two, work: Callable[[Vault, Vault], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        async with vaults() as (here, there):
            await work(here, there)

    asyncio.run(run())


def test_what_is_kept_is_found_by_its_owner_alone_on_each_gateway(vaults: Two) -> None:
    async def work(here: Vault, there: Vault) -> None:
        await here.keep(ALICE, ACCOUNT)
        assert await there.find(ALICE) == ACCOUNT
        assert [await there.find(other) for other in OTHERS] == [None] * 3
        await there.keep(ALICE, Account(access="newer"))
        assert await here.find(ALICE) == Account(access="newer")
        assert [await here.drop(ALICE), await there.drop(ALICE), await here.find(ALICE)] == [True, False, None]

    within(vaults, work)


def test_a_closed_vault_is_an_error(vaults: Two) -> None:
    async def run() -> None:
        async with vaults() as (here, _):
            pass
        for work in (here.find(ALICE), here.keep(ALICE, ACCOUNT), here.drop(ALICE)):
            with pytest.raises(VaultUnavailable):
                await work

    asyncio.run(run())


def test_of_two_gateways_one_renews_a_login_until_it_is_kept_or_its_time_is_over(database: str) -> None:
    async def run() -> None:
        async with two(database) as states:
            here, there = (PostgresVault(state, secret=KEY) for state in states)
            assert not await here.renewing(ALICE, now=NOW, until=UnixTime(NOW + 60)), "there is nothing to renew"
            await here.keep(ALICE, ACCOUNT)
            for number in range(15):
                now = UnixTime(NOW + 100 * number)
                claims = (vault.renewing(ALICE, now=now, until=UnixTime(now + 60)) for vault in (here, there) * 3)
                assert sum(await asyncio.gather(*claims)) == 1
            assert not await there.renewing(ALICE, now=UnixTime(now + 59), until=UnixTime(now + 119))
            await here.keep(ALICE, ACCOUNT)
            assert await there.renewing(ALICE, now=UnixTime(now + 59), until=UnixTime(now + 119))

    asyncio.run(run())


def test_what_is_moved_changed_or_sealed_with_another_key_does_not_open_and_nothing_is_readable(database: str) -> None:
    async def run() -> None:
        async with two(database) as (state, _):
            vault = PostgresVault(state, secret=KEY)
            await vault.keep(ALICE, ACCOUNT)
            assert "secret-" not in str(sql(database, "SELECT encode(sealed, 'escape') FROM onbehalf_state.account"))
            with pytest.raises(VaultUnavailable):
                await PostgresVault(state, secret=b"x" * 32).find(ALICE)
            sql(database, "UPDATE onbehalf_state.account SET person = 'bob'")
            with pytest.raises(VaultUnavailable):
                await vault.find(replace(ALICE, person="bob"))
            sql(database, "UPDATE onbehalf_state.account SET sealed = ''")
            with pytest.raises(VaultUnavailable):
                await vault.find(replace(ALICE, person="bob"))

    asyncio.run(run())
