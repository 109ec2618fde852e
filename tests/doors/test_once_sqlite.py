from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onbehalf.doors.once_sqlite import SqliteOnce
from onbehalf.errors import ConfigInvalid, OnceUnavailable
from onbehalf.model import CallId, Digest, Earlier, UnixTime

KEY, OTHER = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
SENT = Digest("sha256:" + "a" * 64)


@pytest.fixture
def once(tmp_path: Path) -> Iterator[SqliteOnce]:
    opened = SqliteOnce.open(tmp_path / "once.db")
    yield opened
    opened.close()


def begun(once: SqliteOnce, call: str, *, key: Digest = KEY, now: int = 100, until: int = 160) -> Earlier | None:
    return asyncio.run(once.begin(key, CallId(call), SENT, now=UnixTime(now), until=UnixTime(until)))


def test_the_first_call_is_first_and_the_second_hears_of_it(once: SqliteOnce) -> None:
    assert begun(once, "first") is None
    assert begun(once, "other", key=OTHER) is None
    earlier = Earlier(call=CallId("first"), arguments=SENT, at=UnixTime(100), done=False)
    assert begun(once, "second") == earlier
    asyncio.run(once.done(KEY, CallId("first")))
    assert begun(once, "third") == Earlier(call=CallId("first"), arguments=SENT, at=UnixTime(100), done=True)


def test_a_call_without_effect_may_be_sent_again_and_only_its_own_row_goes(once: SqliteOnce) -> None:
    assert begun(once, "first") is None
    asyncio.run(once.forget(KEY, CallId("another")))
    assert begun(once, "second") is not None
    asyncio.run(once.forget(KEY, CallId("first")))
    assert begun(once, "third") is None
    asyncio.run(once.done(KEY, CallId("first")))  # late, and of a call that this row is not about any more
    fourth = begun(once, "fourth")
    assert fourth is not None
    assert not fourth.done


def test_after_its_time_a_call_is_new_again(once: SqliteOnce) -> None:
    assert begun(once, "first") is None
    assert begun(once, "second", now=159) is not None
    assert begun(once, "third", now=160, until=220) is None
    fourth = begun(once, "fourth", now=161)
    assert fourth is not None
    assert fourth.call == "third"


def test_of_many_at_once_exactly_one_is_first(tmp_path: Path) -> None:
    doors = [SqliteOnce.open(tmp_path / "once.db") for _ in range(3)]  # as many processes would

    async def run() -> list[Earlier | None]:
        calls = [
            door.begin(KEY, CallId(f"call{number}.{at}"), SENT, now=UnixTime(1), until=UnixTime(9))
            for number, door in enumerate(doors)
            for at in range(20)
        ]
        return await asyncio.gather(*calls)

    found = asyncio.run(run())
    assert found.count(None) == 1
    assert len({earlier.call for earlier in found if earlier}) == 1
    for door in doors:
        door.close()


def test_what_is_begun_is_still_begun_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "once.db"
    child = """
import asyncio, os, sys
from pathlib import Path
from onbehalf.doors.once_sqlite import SqliteOnce
once = SqliteOnce.open(Path(sys.argv[1]))
assert asyncio.run(once.begin(sys.argv[2], "first", "sha256:x", now=1, until=1000)) is None
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", child, str(path), KEY], env={**os.environ}, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    once = SqliteOnce.open(path)
    earlier = begun(once, "second", now=2)
    assert earlier is not None
    assert (earlier.call, earlier.done) == ("first", False)
    once.close()


def test_what_cannot_be_kept_is_an_error_and_never_a_yes(tmp_path: Path) -> None:
    once = SqliteOnce.open(tmp_path / "once.db")
    once.close()
    with pytest.raises(OnceUnavailable):
        begun(once, "first")
    (tmp_path / "junk.db").write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(ConfigInvalid):
        SqliteOnce.open(tmp_path / "junk.db")
    with pytest.raises(ConfigInvalid):
        SqliteOnce.open(tmp_path / "nowhere" / "once.db")


def shown(once: SqliteOnce, until: int) -> None:
    asyncio.run(once.shown(KEY, until=UnixTime(until)))


def taken(once: SqliteOnce, now: int, change: Digest = KEY) -> bool:
    return asyncio.run(once.take(change, now=UnixTime(now)))


def test_a_shown_change_is_taken_once_and_no_other_at_all(once: SqliteOnce) -> None:
    shown(once, 200)
    assert not taken(once, 100, OTHER)
    assert taken(once, 100)
    assert not taken(once, 100)
    shown(once, 200)
    assert taken(once, 199)


def test_a_change_shown_too_long_ago_cannot_be_taken(once: SqliteOnce) -> None:
    shown(once, 200)
    assert not taken(once, 200)
    assert not taken(once, 100)


def test_of_many_that_take_a_change_at_once_one_has_it(tmp_path: Path) -> None:
    doors = [SqliteOnce.open(tmp_path / "once.db") for _ in range(3)]
    shown(doors[0], 200)

    async def run() -> list[bool]:
        return await asyncio.gather(*(door.take(KEY, now=UnixTime(1)) for door in doors * 5))

    assert sum(asyncio.run(run())) == 1
    for door in doors:
        door.close()
