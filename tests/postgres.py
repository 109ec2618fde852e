"""PostgreSQL for tests: one server of a run's own, and databases of a test's own in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from onbehalf.demo.postgres import programs, server

__all__ = ["PROGRAMS", "database", "fresh", "postgres", "run", "server"]

PROGRAMS = programs()


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
