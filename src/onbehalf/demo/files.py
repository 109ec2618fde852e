"""Writes the demo's data directory: people, databases, configuration and policies.

Files that a reader is meant to look at (configuration, policies) lie as they are in house/; the rest is
made from data.py. Must not start anything.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml

from onbehalf.demo.data import World
from onbehalf.model import Json

__all__ = ["HR_TABLES", "Database", "Places", "hr_rows", "people_yaml", "write"]

Database = Literal["sqlite", "postgres"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the demo listens, as origins such as `http://127.0.0.1:8100`."""

    gateway: str
    admin: str
    issuer: str
    tickets: str
    orders: str

    @property
    def resource(self) -> str:
        """The gateway's resource identifier, which is also the URL a client types."""
        return f"{self.gateway}/mcp"


def write(directory: Path, world: World, places: Places, *, database: Database = "sqlite") -> Path:
    """Everything into `directory`, anew; the path of `onbehalf.yaml`. On PostgreSQL, HR's rows are not of it."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(directory / "gateway-data", ignore_errors=True)  # the record of the last demo: other ports, other log
    (directory / "people.yaml").write_text(people_yaml(world, issuer=places.issuer), encoding="utf-8")
    (directory / "hr.db").unlink(missing_ok=True)
    if database == "sqlite":
        _hr(directory / "hr.db", world)
    _tickets(directory / "tickets.db", world)
    _orders(directory / "orders.db", world)
    house = files("onbehalf.demo") / "house"
    document = (files("onbehalf.demo") / "orders.json").read_bytes()
    (directory / "orders.json").write_bytes(document)
    policies = directory / "policies"
    policies.mkdir(exist_ok=True)
    for entry in house.iterdir():
        if entry.name.endswith((".cedar", ".cedarschema")):
            (policies / entry.name).write_text(entry.read_text(encoding="utf-8"), encoding="utf-8")
    text = (house / "onbehalf.yaml").read_text(encoding="utf-8")
    if database == "postgres":
        text = _on_postgres(text, (house / "hr-postgres.yaml").read_text(encoding="utf-8"))
    for mark, value in (
        ("@GATEWAY@", places.gateway),
        ("@LISTEN@", urlsplit(places.gateway).netloc),
        ("@ADMIN@", urlsplit(places.admin).netloc),
        ("@ISSUER@", places.issuer),
        ("@TICKETS@", places.tickets),
        ("@ORDERS@", places.orders),
        ("@DIGEST@", f"sha256:{hashlib.sha256(document).hexdigest()}"),
    ):
        text = text.replace(mark, value)
    config = directory / "onbehalf.yaml"
    config.write_text(text, encoding="utf-8")
    return config


def _on_postgres(text: str, other: str) -> str:
    """The configuration with HR on PostgreSQL: how it is reached, and one tool that writes."""
    reached, tool = other.split("    tools:\n")
    start, tools, end = text.index("    kind: sql\n"), text.index("    entities:\n"), text.index("  desk:\n")
    before = text.index("    # Where a scoped tool's policies")
    assert start < before < tools < end
    return text[:start] + reached + text[before:end] + tool + text[end:]


def people_yaml(world: World, *, issuer: str) -> str:
    """The directory source: positions, groups, people and their logins at `issuer`."""
    tenants: dict[str, Json] = {}
    for tenant, above in world.positions.items():
        people: dict[str, Json] = {}
        for person in (p for p in world.people if p.tenant == tenant):
            entry: dict[str, Json] = {"name": person.name}
            if person.position:
                entry["position"] = person.position
            entry["groups"] = list(person.groups)
            entry["active"] = person.active
            entry["attributes"] = {"department": person.department}
            entry["logins"] = [{"issuer": issuer, "subject": person.subject}]
            people[person.id] = entry
        tenants[tenant] = {
            "positions": {position: parent or None for position, parent in above.items()},
            "groups": {"hr": [], "hr-partners": ["hr"]},
            "people": people,
        }
    return yaml.safe_dump({"tenants": tenants}, sort_keys=False, allow_unicode=True, width=120)


HR_TABLES = """
CREATE TABLE people (
  tenant TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, position TEXT, PRIMARY KEY (tenant, id));
CREATE TABLE position_tree (
  tenant TEXT NOT NULL, below TEXT NOT NULL, above TEXT NOT NULL, PRIMARY KEY (tenant, above, below));
CREATE TABLE reviews (
  tenant TEXT NOT NULL, id TEXT NOT NULL, subject_id TEXT NOT NULL, author_id TEXT NOT NULL,
  period TEXT NOT NULL, rating INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 5),
  status TEXT NOT NULL CHECK (status IN ('draft', 'final')), feedback TEXT NOT NULL,
  PRIMARY KEY (tenant, id),
  FOREIGN KEY (tenant, subject_id) REFERENCES people (tenant, id),
  FOREIGN KEY (tenant, author_id) REFERENCES people (tenant, id));
CREATE INDEX reviews_by_subject ON reviews (tenant, subject_id);
"""
"""The HR tables, for SQLite and PostgreSQL."""


def hr_rows(world: World) -> dict[str, list[tuple[str | int | None, ...]]]:
    """Table to its rows, in the order to write them."""
    return {
        "people": [(p.tenant, p.id, p.name, p.position or None) for p in world.people],
        "position_tree": [*_tree(world)],
        "reviews": [
            (r.tenant, r.id, r.subject_id, r.author_id, r.period, r.rating, r.status, r.feedback) for r in world.reviews
        ],
    }


def _hr(path: Path, world: World) -> None:
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as base:
        base.executescript(HR_TABLES)
        for table, rows in hr_rows(world).items():
            base.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)  # noqa: S608
    base.close()


def _tree(world: World) -> Iterator[tuple[str, str, str]]:
    """Every position with every one above it, by tenant."""
    for tenant, above in world.positions.items():
        for position in above:
            over = above[position]
            while over:
                yield tenant, position, over
                over = above[over]


def _tickets(path: Path, world: World) -> None:
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as base:
        base.executescript(
            """
            CREATE TABLE tickets (
              tenant TEXT NOT NULL, id TEXT NOT NULL, owner_id TEXT NOT NULL, title TEXT NOT NULL,
              status TEXT NOT NULL CHECK (status IN ('open', 'in_progress', 'closed')),
              priority TEXT NOT NULL, queue TEXT NOT NULL, comment TEXT NOT NULL DEFAULT '', PRIMARY KEY (tenant, id));
            """
        )
        base.executemany(
            "INSERT INTO tickets (tenant, id, owner_id, title, status, priority, queue) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(t.tenant, t.id, t.owner_id, t.title, t.status, t.priority, t.queue) for t in world.tickets],
        )
    base.close()


def _orders(path: Path, world: World) -> None:
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as base:
        base.executescript(
            """
            CREATE TABLE orders (
              id TEXT NOT NULL, tenant TEXT NOT NULL, owner_id TEXT NOT NULL,
              status TEXT NOT NULL CHECK (status IN ('open', 'shipped', 'cancelled')), total INTEGER NOT NULL,
              customer TEXT NOT NULL, email TEXT NOT NULL, PRIMARY KEY (tenant, id));
            """
        )
        base.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(o.id, o.tenant, o.owner_id, o.status, o.total, o.customer, o.email) for o in world.orders],
        )
    base.close()
