"""Two gateways of one resource, each a process with data of its own, that remember together in one database, or write
one record there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from company import Company, company, said
from onbehalf.doors import clock_system
from onbehalf.doors.ledger_keys import open_mask_key
from onbehalf.doors.signer_file import FileSigner
from ports import free_port

__all__ = ["beside", "put_back", "remembering", "served_twice", "sharing"]

_STATE = '\n  state: {postgres: {dsn: "file:state.dsn", connections: 3, timeout_seconds: 4}}'
_RECORD = """gateway:
  ledger:
    postgres:
      dsn: "env:LEDGER_DSN"
      eraser: "env:ERASER_DSN"
      gone_seconds: 1
      insecure_durability_for_tests: true
  public_log: leaves
"""
_PUT_BACK = """
DELETE FROM onbehalf_log.leaf WHERE idx >= {size};
DELETE FROM onbehalf_log.payload WHERE idx >= {size};
DELETE FROM onbehalf_log.kept_head WHERE size > {size};
DELETE FROM onbehalf_log.cosignature WHERE size > {size};
UPDATE onbehalf_log.head SET size = {size}, root = decode('{root}', 'base64'), note = '{note}';
"""


@contextmanager
def served_twice(here: Company, dsn: str) -> Iterator[Company]:
    """This gateway and another one, the latter of which is given; both run until the context ends."""
    remembering(here, dsn)
    with here.serving():
        there = beside(here)
        with there.serving():
            yield there


def remembering(here: Company, dsn: str) -> None:
    """Let it remember in this database."""
    (here.directory / "state.dsn").write_text(dsn, encoding="utf-8")
    here.edit("  limits: {call_seconds: 8}", f"  limits: {{call_seconds: 8}}{_STATE}")


def beside(here: Company) -> Company:
    """A second gateway of the resource of the first, with its keys and nothing else of its data."""
    directory = here.directory.parent / "there"
    shutil.copytree(here.directory, directory, ignore=shutil.ignore_patterns("data", "gateway.log"))
    shutil.copytree(here.directory / "data" / "keys", directory / "data" / "keys")
    gateway, admin = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    there = replace(here, directory=directory, gateway=gateway, admin=admin)
    for key, was, now in (("listen", here.gateway, gateway), ("admin", here.admin, admin)):
        there.edit(f'{key}: "{was.removeprefix("http://")}"', f'{key}: "{now.removeprefix("http://")}"')
    return there


def put_back(database: str, note: str) -> None:
    """Put a record back to when this was its head, as an owner does who restores a backup."""
    _, size, root, *_ = note.split("\n")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(_PUT_BACK.format(size=size, root=root, note=note).encode())


@contextmanager
def sharing(place: Path, database: str, setenv: Callable[[str, str], None]) -> Iterator[tuple[Company, Company]]:
    """Two replicas that write one record in a database, made as docs/replicas.md says; none is served yet."""
    login, eraser = (f"{each}_{conninfo_to_dict(database)['dbname']}" for each in ("gw", "er"))
    setenv("LEDGER_OWNER", database)
    setenv("LEDGER_DSN", make_conninfo(database, user=login, password="x"))
    setenv("ERASER_DSN", make_conninfo(database, user=eraser, password="x"))
    with company(place / "one") as one:
        one.edit("gateway:\n", _RECORD)
        made = said("db", "ledger", "-c", one.config, "--apply", "env:LEDGER_OWNER")
        assert made.code == 0, made
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE onbehalf_log_writer".encode())
            connection.execute(f"CREATE ROLE {eraser} LOGIN PASSWORD 'x' IN ROLE onbehalf_log_eraser".encode())
        FileSigner.open(one.directory / "data" / "keys", issuer=one.gateway, now=clock_system.now())
        open_mask_key(one.directory / "data" / "keys")
        shutil.copytree(one.directory, place / "two", ignore=shutil.ignore_patterns("data"))
        (place / "two" / "data").mkdir(mode=0o700)
        shutil.copytree(one.directory / "data" / "keys", place / "two" / "data" / "keys")
        gateway, admin = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        two = replace(one, directory=place / "two", gateway=gateway, admin=admin)
        for old, new in ((one.gateway, gateway), (one.admin, admin)):
            two.edit(f'"{old.removeprefix("http://")}"', f'"{new.removeprefix("http://")}"')
        yield one, two
