"""The vault: one login a row, sealed for whose it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onbehalf.connecting import Account, Owner
from onbehalf.doors.vault_sqlite import SqliteVault
from onbehalf.errors import ConfigInvalid, VaultUnavailable

KEY = b"k" * 32
ALICE = Owner(tenant="acme", person="alice", upstream="code")
ACCOUNT = Account(access="secret-access", refresh="secret-refresh", until=7)
OTHERS = (replace(ALICE, tenant="globex"), replace(ALICE, person="bob"), replace(ALICE, upstream="tickets"))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vault.db"


def test_what_is_kept_is_found_by_its_owner_alone_and_after_a_restart(path: Path) -> None:
    vault = SqliteVault.open(path, secret=KEY)
    run(vault.keep(ALICE, ACCOUNT))
    vault.close()
    vault = SqliteVault.open(path, secret=KEY)
    assert run(vault.find(ALICE)) == ACCOUNT
    assert [run(vault.find(other)) for other in OTHERS] == [None] * 3
    newer = Account(access="newer")
    run(vault.keep(ALICE, newer))
    assert run(vault.find(ALICE)) == newer
    assert run(vault.drop(ALICE)) is True
    assert run(vault.drop(ALICE)) is False
    assert run(vault.find(ALICE)) is None
    vault.close()


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_moved_to_another_owner_does_not_open(path: Path, other: Owner) -> None:
    vault = SqliteVault.open(path, secret=KEY)
    run(vault.keep(ALICE, ACCOUNT))
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(
            "UPDATE account SET tenant = ?, person = ?, upstream = ?", (other.tenant, other.person, other.upstream)
        )
    with pytest.raises(VaultUnavailable):
        run(vault.find(other))
    assert run(vault.find(ALICE)) is None
    vault.close()


def test_another_key_or_a_changed_byte_opens_nothing(path: Path) -> None:
    vault = SqliteVault.open(path, secret=KEY)
    run(vault.keep(ALICE, ACCOUNT))
    other = SqliteVault.open(path, secret=b"x" * 32)
    with pytest.raises(VaultUnavailable):
        run(other.find(ALICE))
    with closing(sqlite3.connect(path)) as base, base:
        (sealed,) = base.execute("SELECT sealed FROM account").fetchone()
        for changed in (sealed[:-1], bytes([sealed[0] ^ 1]) + sealed[1:], sealed[:-1] + bytes([sealed[-1] ^ 1]), b""):
            base.execute("UPDATE account SET sealed = ?", (changed,))
            base.commit()
            with pytest.raises(VaultUnavailable):
                run(vault.find(ALICE))
    vault.close()
    other.close()


def test_nothing_of_it_is_readable_in_the_file_or_in_what_is_shown_of_it(path: Path) -> None:
    vault = SqliteVault.open(path, secret=KEY)
    run(vault.keep(ALICE, ACCOUNT))
    run(vault.drop(ALICE))
    run(vault.keep(ALICE, ACCOUNT))
    vault.close()
    for file in path.parent.iterdir():
        assert b"secret-" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0
    assert "secret" not in repr(ACCOUNT)
    assert "secret" not in str(ACCOUNT)


def test_a_file_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "vault.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigInvalid):
        SqliteVault.open(tmp_path / "vault.db", secret=KEY)
