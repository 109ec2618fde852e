"""One small directory for the tests of its file, and ways to ask it and to tamper with it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.errors import DirectoryUnavailable
from onbehalf.model import Caller, Entity, Person
from validate import policy_house

ISSUER = policy_house.EVIDENCE.issuer
LOGIN = f"logins: [{{issuer: '{ISSUER}', subject: "
TEXT = f"""
tenants:
  acme:
    positions: {{ceo: null, lead: ceo, ic: lead, ic2: lead}}
    groups: {{all: [], staff: [all], hr: [staff]}}
    people:
      dana: {{name: Dana, position: lead, groups: [hr], attributes: {{department: hr}}, {LOGIN}u-1}}]}}
      bob: {{name: Bob, position: ic, groups: [staff], {LOGIN}u-2}}]}}
      gone: {{name: Gone, position: ic, active: false, {LOGIN}u-3}}]}}
      free: {{name: Free, {LOGIN}u-4}}]}}
  globex:
    positions: {{ceo: null, boss: ceo}}
    groups: {{hr: []}}
    people:
      bob: {{name: Other Bob, position: boss, groups: [hr], {LOGIN}u-9}}]}}
      erin: {{name: Erin, position: ceo, {LOGIN}u-5}}]}}
"""
NEXT = TEXT.replace("name: Bob, position: ic, groups: [staff]", "name: Robert, position: ic2, groups: [hr]")


def caller(subject: str, tenant: str = "acme") -> Caller:
    made = policy_house.caller(tenant=tenant)
    return Caller(
        subject=subject, tenant=tenant, client="chat", actors=(), scopes=frozenset(), evidence=made.evidence
    )  # fmt: skip


def person(directory: SqliteDirectory, subject: str, tenant: str = "acme") -> Person:
    return asyncio.run(directory.person(caller(subject, tenant)))


def users(directory: SqliteDirectory, *ids: str, tenant: str = "acme") -> list[Entity]:
    return [each for each in asyncio.run(directory.people(tenant, ids)) if each.ref.type == "User"]


def raw(path: Path, *statements: str, constraints: bool = True) -> None:
    """Another program with the file in hand."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"PRAGMA foreign_keys = {constraints:d}")
        other.execute(f"PRAGMA ignore_check_constraints = {not constraints:d}")
        for statement in statements:
            other.execute(statement)


def unavailable(what: Callable[[], object]) -> DirectoryUnavailable:
    with pytest.raises(DirectoryUnavailable) as caught:
        what()
    assert caught.value.hint
    return caught.value
