"""Proofs in a file and in memory. What both doors promise is in ports/test_proofs_contract.py."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from onbehalf.doors.proofs_sqlite import SqliteProofs
from onbehalf.errors import ConfigInvalid, ProofsUnavailable
from onbehalf.model import UnixTime

NOW = UnixTime(1_800_000_000)
LATER = UnixTime(NOW + 121)


@contextmanager
def opened(path: Path, *, now: int = NOW, most: int = 100, most_of_one_key: int = 10) -> Iterator[SqliteProofs]:
    store = SqliteProofs.open(path / "proofs.db", now=UnixTime(now), most=most, most_of_one_key=most_of_one_key)
    with closing(store):
        yield store


async def add(store: SqliteProofs, id_: str, *, key: str = "k", now: int = NOW, until: int = LATER) -> bool:
    return await store.add(key, id_, now=UnixTime(now), until=UnixTime(until))


def test_what_is_over_makes_room_and_is_not_new_when_the_clock_is_turned_back(tmp_path: Path) -> None:
    async def told() -> list[bool]:
        with opened(tmp_path, most=1) as store:
            first = await add(store, "a")
            second = await add(store, "b", now=LATER, until=LATER + 121)
            return [first, second, await add(store, "a"), await add(store, "c", until=LATER)]

    assert asyncio.run(told()) == [True, True, False, False]
    with closing(sqlite3.connect(tmp_path / "proofs.db")) as file:
        assert file.execute("SELECT count(*) FROM proof").fetchall() == [(1,)]


def test_what_cannot_be_written_is_refused_and_counts_as_used(tmp_path: Path) -> None:
    async def fail() -> None:
        with opened(tmp_path) as store:
            with closing(sqlite3.connect(tmp_path / "proofs.db")) as other:
                other.execute("DROP TABLE proof")
            for _ in range(3):
                answers = await asyncio.gather(*(add(store, "a"), add(store, "b")), return_exceptions=True)
                assert not any(answer is True for answer in answers), answers
            with pytest.raises(ProofsUnavailable):
                await add(store, "c")
            assert not await add(store, "a")
        with pytest.raises(ProofsUnavailable):
            await add(store, "d")  # closed

    asyncio.run(fail())


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "proofs.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigInvalid), opened(tmp_path):
        pass


def test_ids_are_kept_as_digests_only(tmp_path: Path) -> None:
    async def once() -> None:
        with opened(tmp_path) as store:
            await add(store, "the-id-of-a-proof")

    asyncio.run(once())
    assert b"the-id-of-a-proof" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
