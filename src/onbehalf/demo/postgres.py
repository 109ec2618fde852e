"""A PostgreSQL server of one's own: on a free port of loopback, empty, and gone when it is no longer needed.

Debian's packages bring the programs; no service of the machine is used or changed. A server refuses to run as root, so
as root it runs as `postgres` or `nobody`, with its data in a directory of that user. For demos and tests only: unless
asked for, nothing is synced to disk.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["ServerFailed", "programs", "server"]

_SECONDS = 60
_SUPERUSER = "tester"
_SETTINGS = (
    "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=60", "shared_buffers=64MB",
    "log_min_messages=fatal", "log_statement=none", "autovacuum=off", "jit=off", "timezone=UTC",
)  # fmt: skip
_FLEETING = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class ServerFailed(Exception):
    """There is no server to start, or it did not start; the message is its last words."""


def programs() -> Path | None:
    """Where the newest server's programs lie; None where none is installed."""
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if versions:
        return max(versions, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)])
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def server(more: Sequence[str] = (), *, durable: bool = False) -> Iterator[str]:
    """The DSN of a superuser at a new server, whose database `postgres` is empty. Passwords are asked for (SCRAM).

    `more` are settings of it, beside those that it gets in any case. With `durable` what it commits is synced to disk.
    Raises ServerFailed.
    """
    found = programs()
    if found is None:
        raise ServerFailed("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    place = Path(tempfile.mkdtemp(prefix="postgres-"))
    password = secrets.token_hex(16)
    whom = _whom()
    try:
        if whom:
            os.chown(place, whom["user"], whom["group"])
        _initialised(found, place, password, whom)
        for last in (False, False, True):  # the port may be somebody else's by now
            dsn = make_conninfo(
                host="127.0.0.1", port=_free_port(), user=_SUPERUSER, password=password, dbname="postgres"
            )
            settings = (*_SETTINGS, *(() if durable else _FLEETING), *more)
            with _running(found, place, dsn, whom, settings, last=last) as ready:
                if ready:
                    yield dsn
                    return
    finally:
        shutil.rmtree(place, ignore_errors=True)


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
    raise ServerFailed("a server refuses to run as root, and there is neither `postgres` nor `nobody`")


def _initialised(found: Path, place: Path, password: str, whom: dict[str, Any]) -> None:
    secret = place / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if whom:
        os.chown(secret, whom["user"], whom["group"])
    done = subprocess.run(  # noqa: S603  # Debian's program, no shell
        (found / "initdb", "--pgdata", place / "data", "--username", _SUPERUSER, "--pwfile", secret, "--no-sync",
         "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
        capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=place, **whom,
    )  # fmt: skip
    if done.returncode != 0:
        raise ServerFailed(done.stderr)


@contextmanager
def _running(
    found: Path, place: Path, dsn: str, whom: dict[str, Any], settings: tuple[str, ...], *, last: bool
) -> Iterator[bool]:
    """The server, ended with the context. False where its port was taken."""
    port = conninfo_to_dict(dsn)["port"]
    given = [part for each in (*settings, f"port={port}") for part in ("-c", each)]
    # The shell ends the server when its input closes, which it also does when this process is killed.
    watched = '"$@" & pid=$!; (cat > /dev/null; kill -QUIT $pid) <&3 & wait $pid'
    with open(place / "log", "wb") as log:
        process = subprocess.Popen(  # noqa: S603  # our own words
            ("/bin/sh", "-c", f"exec 3<&0; {watched}", "sh", found / "postgres", "-D", place / "data", *given),
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=place, start_new_session=True, **whom,
        )  # fmt: skip
    try:
        ready = _ready(dsn, process)
        if last and not ready:
            raise ServerFailed((place / "log").read_text(errors="replace"))
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
