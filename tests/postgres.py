"""A real PostgreSQL for tests: a server of its own on a free port of loopback, empty, and gone when the tests are.

Debian's packages bring the programs; no service of the machine is used or changed. A server refuses to run as root, so
as root it runs as `postgres` or `nobody`, with its data in a directory of that user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

__all__ = ["PROGRAMS", "database", "fresh", "postgres", "run", "server"]

_SECONDS = 60
_SUPERUSER = "tester"
_SETTINGS = (
    "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "synchronous_commit=off",
    "full_page_writes=off", "max_connections=60", "shared_buffers=64MB", "log_min_messages=fatal", "log_statement=none",
    "autovacuum=off", "jit=off", "timezone=UTC",
)  # fmt: skip


def _programs() -> Path | None:
    """Where the newest server's programs lie."""
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if versions:
        return max(versions, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)])
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


PROGRAMS = _programs()


@contextmanager
def server() -> Iterator[str]:
    """The DSN of a superuser at a new server, whose database `postgres` is empty. Passwords are asked for (SCRAM)."""
    assert PROGRAMS is not None, "PostgreSQL is not installed"
    place = Path(tempfile.mkdtemp(prefix="postgres-"))
    password = secrets.token_hex(16)
    whom = _whom()
    try:
        if whom:
            os.chown(place, whom["user"], whom["group"])
        _initialised(place, password, whom)
        for last in (False, False, True):  # the port may be somebody else's by now
            dsn = make_conninfo(
                host="127.0.0.1", port=_free_port(), user=_SUPERUSER, password=password, dbname="postgres"
            )
            with _running(place, dsn, whom, last=last) as ready:
                if ready:
                    yield dsn
                    return
    finally:
        shutil.rmtree(place, ignore_errors=True)


def run(dsn: str, text: str) -> list[tuple[Any, ...]]:
    """What some SQL gives (its last statement's rows), done and committed as the DSN's user."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(text.encode())
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []


@contextmanager
def fresh(dsn: str) -> Iterator[str]:
    """The DSN of the same user at a new database of that server, dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield make_conninfo(dsn, dbname=name)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of a superuser at one server for the whole run. Skips, loudly, only where none is installed."""
    if PROGRAMS is None:
        pytest.skip("POSTGRESQL IS NOT INSTALLED, so nothing here was tested (apt-get install postgresql)")
    with server() as dsn:
        yield dsn


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """The DSN of a superuser at a database of the test's own."""
    with fresh(postgres) as dsn:
        yield dsn


def _free_port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _whom() -> dict[str, Any]:
    """As whom the server runs: as this user, but for root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("a server refuses to run as root, and there is neither `postgres` nor `nobody`")


def _initialised(place: Path, password: str, whom: dict[str, Any]) -> None:
    secret = place / "password"
    secret.write_text(password)
    if whom:
        os.chown(secret, whom["user"], whom["group"])
    assert PROGRAMS is not None
    done = subprocess.run(
        (PROGRAMS / "initdb", "--pgdata", place / "data", "--username", _SUPERUSER, "--pwfile", secret, "--no-sync",
         "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
        capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=place, **whom,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@contextmanager
def _running(place: Path, dsn: str, whom: dict[str, Any], *, last: bool) -> Iterator[bool]:
    """The server, ended with the context. False where its port was taken."""
    assert PROGRAMS is not None
    port = psycopg.conninfo.conninfo_to_dict(dsn)["port"]
    settings = [part for each in (*_SETTINGS, f"port={port}") for part in ("-c", each)]
    # The shell ends the server when its input closes, which it also does when these tests are killed.
    watched = '"$@" & pid=$!; (cat > /dev/null; kill -QUIT $pid) <&3 & wait $pid'
    with open(place / "log", "wb") as log:
        process = subprocess.Popen(
            ("/bin/sh", "-c", f"exec 3<&0; {watched}", "sh", PROGRAMS / "postgres", "-D", place / "data", *settings),
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=place, **whom,
        )  # fmt: skip
    try:
        ready = _ready(dsn, process)
        assert ready or not last, (place / "log").read_text(errors="replace")
        yield ready
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(dsn: str, process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(dsn, connect_timeout=2):
            return True
        time.sleep(0.02)
    return False
