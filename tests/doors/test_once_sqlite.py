"""Writing calls in a file: durable, and refused where that fails. The rest is in ports/test_once_contract.py."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onbehalf.doors.once_sqlite import SqliteOnce
from onbehalf.errors import ConfigInvalid, OnceUnavailable
from onbehalf.model import CallId, Digest, Earlier, UnixTime

KEY, OTHER = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
SENT = Digest("sha256:" + "a" * 64)


def begun(once: SqliteOnce, call: str, *, key: Digest = KEY, now: int = 100, until: int = 160) -> Earlier | None:
    return asyncio.run(once.begin(key, CallId(call), SENT, now=UnixTime(now), until=UnixTime(until)))


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
