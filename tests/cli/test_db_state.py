"""`db state` as somebody uses it who lets several gateways remember together, along docs/replicas.md."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from company import said
from onbehalf import config
from postgres import PROGRAMS, run

ROLE = "gw_state_of_tests"
PAGE = Path(__file__).parents[2] / "docs" / "replicas.md"


@pytest.fixture
def owned(database: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("OWNER_DSN", database)
    yield database
    if run(database, f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'"):
        run(database, f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def tables(dsn: str) -> int:
    ((count,),) = run(dsn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'onbehalf_state'")
    return int(count)


def test_the_settings_of_the_page_are_a_configuration_and_its_reference_is_the_only_secret() -> None:
    example = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    state = config.parse(example).gateway.state
    assert state is not None
    assert state.postgres.dsn == "env:ONBEHALF_STATE_DSN"


def test_what_is_printed_builds_the_tables_by_psql_and_can_be_run_again(owned: str) -> None:
    printed = said("db", "state", "--role", ROLE)
    assert printed.code == 0
    assert PROGRAMS is not None
    for _ in range(2):
        done = subprocess.run(
            (PROGRAMS / "psql", "--no-psqlrc", owned), input=printed.out, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert tables(owned) == 16


def test_apply_makes_them_as_the_owner_and_says_what_is_next(owned: str) -> None:
    for _ in range(2):
        done = said("db", "state", "--apply", "env:OWNER_DSN", "--role", ROLE)
        assert done.code == 0, done.err
        assert f"set the password of `{ROLE}`" in done.out
    assert tables(owned) == 16
    run(owned, f"ALTER ROLE {ROLE} PASSWORD 'x'")
    assert run(make_conninfo(owned, user=ROLE, password="x"), "SELECT number FROM onbehalf_state.version") == [(2,)]


def test_tables_of_another_release_are_left_as_they_are(owned: str) -> None:
    assert said("db", "state", "--apply", "env:OWNER_DSN", "--role", ROLE).code == 0
    run(owned, "UPDATE onbehalf_state.version SET number = 7")
    done = said("db", "state", "--apply", "env:OWNER_DSN", "--role", ROLE)
    assert (done.code, "nothing was made: there are tables of another release, expected version 2" in done.err) == (
        2,
        True,
    ), done.err


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("env:NOBODY_SET_THIS", "refers to nothing"), ("postgresql://a:sesame@b/c", "is no reference"),
        ("env:BAD_DSN", "refers to no DSN"), ("env:FAR_DSN", "sslmode=disable"), ("env:NO_RIGHT", "nothing was made"),
    ],
)  # fmt: skip
def test_what_cannot_be_applied_is_said_without_the_secret(
    reference: str, told: str, owned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_DSN", "no dsn, but sesame")
    monkeypatch.setenv("FAR_DSN", "postgresql://a:sesame@db.example.com/c?sslmode=disable")
    monkeypatch.setenv("NO_RIGHT", make_conninfo(owned, password="sesame"))
    done = said("db", "state", "--apply", reference, "--role", ROLE)
    assert done.code == 2
    assert told in done.err
    assert "sesame" not in done.err
    assert tables(owned) == 0


def test_a_name_that_is_none_of_a_role_is_refused() -> None:
    assert "is no name" in said("db", "state", "--role", "x" * 64).err
    assert 'CREATE ROLE "o""d\'d"' in said("db", "state", "--role", "o\"d'd").out
