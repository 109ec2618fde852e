"""The tickets on disk. Every question names a tenant; there is none that does not. Must not know MCP."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pydantic import BaseModel

__all__ = ["TicketRow", "TicketStore"]


class TicketRow(BaseModel):
    """One ticket as it is told."""

    tenant: str
    id: str
    owner_id: str
    title: str
    status: str
    priority: str
    queue: str
    comment: str


_COLUMNS = "tenant, id, owner_id, title, status, priority, queue, comment"


class TicketStore:
    """Tickets in a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, tenant: str, *, status: str, owner_id: str, queue: str) -> list[TicketRow]:
        """The tenant's tickets, by id; "" does not filter."""
        where = "tenant = ? AND (? = '' OR status = ?) AND (? = '' OR owner_id = ?) AND (? = '' OR queue = ?)"
        values = (tenant, status, status, owner_id, owner_id, queue, queue)
        return self._rows(f"SELECT {_COLUMNS} FROM tickets WHERE {where} ORDER BY id", values)  # noqa: S608  # constants

    def get(self, tenant: str, ticket_id: str) -> TicketRow | None:
        """One ticket of this tenant."""
        found = self._rows(f"SELECT {_COLUMNS} FROM tickets WHERE tenant = ? AND id = ?", (tenant, ticket_id))  # noqa: S608
        return found[0] if found else None

    def update(self, tenant: str, ticket_id: str, *, status: str, comment: str) -> TicketRow | None:
        """Change what is not ""; the ticket as it is then, or None where there is none."""
        with closing(sqlite3.connect(self._path, timeout=5)) as base, base:
            base.execute(
                "UPDATE tickets SET status = CASE ? WHEN '' THEN status ELSE ? END,"
                " comment = CASE ? WHEN '' THEN comment ELSE ? END WHERE tenant = ? AND id = ?",
                (status, status, comment, comment, tenant, ticket_id),
            )
        return self.get(tenant, ticket_id)

    def _rows(self, statement: str, values: tuple[str, ...]) -> list[TicketRow]:
        with closing(sqlite3.connect(self._path, timeout=5)) as base:
            base.row_factory = sqlite3.Row
            return [TicketRow(**dict(row)) for row in base.execute(statement, values)]
