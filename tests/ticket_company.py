"""A company whose desk is the demo's ticket system: an MCP server in a process of its own that believes call tokens
only, and keeps a record of the calls it took."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from company import Company, company

TICKETS = """
CREATE TABLE tickets (tenant TEXT, id TEXT, owner_id TEXT, title TEXT, status TEXT, priority TEXT, queue TEXT,
  comment TEXT DEFAULT '');
INSERT INTO tickets VALUES ('acme', 'T-1', 'alice', 'A printer', 'open', 'low', 'it', ''),
  ('acme', 'T-2', 'bob', 'A lamp', 'open', 'low', 'it', '');
"""


@dataclass(kw_only=True)
class Tickets:
    """The ticket system: `calls` is its own record, `audience` what call tokens for it say."""

    around: Company
    process: subprocess.Popen[str]
    url: str
    calls: Path

    @property
    def audience(self) -> str:
        return f"{self.url}/mcp"

    def rows(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.calls)) as base:
            base.row_factory = sqlite3.Row
            return [dict(row) for row in base.execute("SELECT * FROM onbehalf_calls ORDER BY channel, n")]


@contextmanager
def ticketed(directory: Path) -> Iterator[Tickets]:
    """The company's files, and the ticket system running. The gateway is not."""
    with company(directory, desk=False) as around:
        data = directory / "tickets"
        data.mkdir()
        with closing(sqlite3.connect(data / "tickets.db")) as base:
            base.executescript(TICKETS)
        command = [sys.executable, "-m", "onbehalf.demo.tickets", "--data", data, "--gateway", around.gateway]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            around.edit(around.desk.url, url)
            around.edit('protocol: "2026-07-28"', "protocol: auto")
            around.edit("desk_read: {action: readDesk}", "desk_read: {action: readDesk, remote: list_tickets}")
            around.edit("desk_write: {action: writeDesk,", "desk_write: {action: writeDesk, remote: update_ticket,")
            try:
                yield Tickets(around=around, process=process, url=url, calls=data / "ticket-calls.db")
            finally:
                process.kill()
                process.wait(10)
