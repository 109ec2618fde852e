"""Approvals at rest: found by what they are of, voted once, used once, sealed, and durable."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from onbehalf.doors.approvals_sqlite import SqliteApprovals
from onbehalf.errors import ApprovalsUnavailable, ConfigInvalid, TooManyApprovals
from onbehalf.model import Approval, CallId, Digest, Json, UnixTime, Vote

SECRET = b"s" * 32
ABOUT: Json = {"arguments": {"note": "confidential-9876"}}
NEW = Approval(
    id="id-1", binding=Digest("sha256:1"), tenant="acme", person="bob", call=CallId("call_1"),
    approvers=frozenset({"manager", "self"}), at=UnixTime(100), until=UnixTime(200),
)  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[SqliteApprovals]:
    opened = SqliteApprovals.open(tmp_path / "approvals.db", secret=SECRET)
    yield opened
    opened.close()


def ask(kept: SqliteApprovals, new: Approval = NEW) -> Approval:
    return asyncio.run(kept.ask(new, ABOUT))


def find(kept: SqliteApprovals, now: int = 150, id: str = "id-1") -> Approval | None:
    found = asyncio.run(kept.find(id, now=UnixTime(now)))
    return found[0] if found else None


def approve(kept: SqliteApprovals, person: str = "dana", *, now: int = 150, id: str = "id-1") -> bool:
    return asyncio.run(kept.approve(id, Vote(person=person, at=UnixTime(now))))


def take(kept: SqliteApprovals, now: int = 150) -> bool:
    return asyncio.run(kept.take("id-1", now=UnixTime(now)))


def refuse(kept: SqliteApprovals, now: int = 150) -> bool:
    return asyncio.run(kept.refuse("id-1", now=UnixTime(now)))


def test_what_is_asked_again_is_the_first_with_its_votes(kept: SqliteApprovals) -> None:
    assert ask(kept) == NEW
    assert approve(kept)
    again = ask(kept, replace(NEW, id="id-2", call=CallId("call_2"), at=UnixTime(120)))
    assert again == replace(NEW, votes=(Vote(person="dana", at=UnixTime(150)),))
    assert asyncio.run(kept.find("id-1", now=UnixTime(150))) == (again, ABOUT)
    assert find(kept, id="id-2") is None


def test_one_person_has_one_vote(kept: SqliteApprovals) -> None:
    ask(kept)
    assert approve(kept)
    assert not approve(kept)
    assert approve(kept, "olga")
    found = find(kept)
    assert found is not None
    assert [vote.person for vote in found.votes] == ["dana", "olga"]


def test_it_is_used_once_also_by_many_at_once(kept: SqliteApprovals) -> None:
    ask(kept)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: take(kept), range(16)))
    assert taken.count(True) == 1
    assert find(kept) is None
    assert not approve(kept)
    assert not refuse(kept)
    assert ask(kept, replace(NEW, id="id-2")).id == "id-2"  # the next call of the same is asked for anew


def test_two_processes_use_it_once(kept: SqliteApprovals, tmp_path: Path) -> None:
    ask(kept)
    other = SqliteApprovals.open(tmp_path / "approvals.db", secret=SECRET)
    assert [take(other), take(kept)] == [True, False]
    other.close()


def test_what_is_refused_stays_refused(kept: SqliteApprovals) -> None:
    ask(kept)
    assert refuse(kept)
    assert not refuse(kept)
    assert not approve(kept)
    assert not take(kept)
    assert ask(kept, replace(NEW, id="id-2")).refused


def test_what_is_over_is_gone(kept: SqliteApprovals) -> None:
    ask(kept)
    assert find(kept, now=199) is not None
    assert find(kept, now=200) is None
    for late in (approve(kept, now=200), take(kept, now=200), refuse(kept, now=200)):
        assert not late
    assert ask(kept, replace(NEW, id="id-2", at=UnixTime(200), until=UnixTime(300))).id == "id-2"
    assert find(kept, now=150) is None


def test_of_one_persons_calls_only_so_many_wait(kept: SqliteApprovals) -> None:
    def another(number: int, person: str = "bob") -> Approval:
        return ask(kept, replace(NEW, id=f"{person}-{number}", binding=Digest(f"{person}-{number}"), person=person))

    for number in range(20):
        another(number)
    with pytest.raises(TooManyApprovals, match="20 calls"):
        another(20)
    assert another(3).id == "bob-3"
    assert another(1, "carol").id == "carol-1"


def test_what_it_is_about_is_sealed_and_bound_to_its_row(kept: SqliteApprovals, tmp_path: Path) -> None:
    ask(kept)
    ask(kept, replace(NEW, id="id-2", binding=Digest("sha256:2")))
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert not any(b"confidential" in each for each in files)
    with closing(sqlite3.connect(tmp_path / "approvals.db")) as raw:
        raw.execute("UPDATE approval SET about = (SELECT about FROM approval WHERE id = 'id-2') WHERE id = 'id-1'")
        raw.commit()
    with pytest.raises(ApprovalsUnavailable):
        find(kept)
    assert find(kept, id="id-2") is not None


def test_it_survives_being_opened_again_and_needs_the_same_secret(tmp_path: Path) -> None:
    first = SqliteApprovals.open(tmp_path / "a.db", secret=SECRET)
    ask(first)
    first.close()
    assert (tmp_path / "a.db").stat().st_mode & 0o077 == 0
    second = SqliteApprovals.open(tmp_path / "a.db", secret=SECRET)
    assert find(second) == NEW
    second.close()
    third = SqliteApprovals.open(tmp_path / "a.db", secret=b"t" * 32)
    with pytest.raises(ApprovalsUnavailable):
        find(third)
    third.close()


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid):
        SqliteApprovals.open(tmp_path / "missing" / "a.db", secret=SECRET)
    (tmp_path / "a.db").write_text("no database " * 100)
    with pytest.raises(ConfigInvalid):
        SqliteApprovals.open(tmp_path / "a.db", secret=SECRET)
    opened = SqliteApprovals.open(tmp_path / "b.db", secret=SECRET)
    opened.close()
    with pytest.raises(ApprovalsUnavailable, match="what was approved"):
        ask(opened)
