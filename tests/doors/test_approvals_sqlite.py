"""Approvals in a file: sealed and durable. What both doors promise is in ports/test_approvals_contract.py."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from onbehalf.doors.approvals_sqlite import SqliteApprovals
from onbehalf.errors import ApprovalsUnavailable, ConfigInvalid
from onbehalf.model import Approval, CallId, Digest, Json, UnixTime

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
