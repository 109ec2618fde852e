"""The demo's HR database on PostgreSQL: filled, walled in as docs/your-database.md says, and read as its owner.

What a company would do by hand, in the same order and with the same commands. Must not know the story.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from onbehalf.demo.data import World
from onbehalf.demo.files import HR_TABLES, hr_rows
from onbehalf.demo.postgres import ServerFailed, programs

__all__ = ["HrPostgres"]

_ROLES = {"reader": "gw_ro", "writer": "gw_rw"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HrPostgres:
    """One HR database. `owner` is the DSN of who made the tables."""

    owner: str = field(repr=False)
    directory: Path

    def fill(self, world: World) -> None:
        """Tables, rows and the secrets that the configuration refers to; nothing of an earlier demo stays."""
        with psycopg.connect(self.owner) as connection:
            connection.execute(HR_TABLES.encode())
            for table, rows in hr_rows(world).items():
                marks = sql.SQL(", ").join([sql.Placeholder()] * len(rows[0]))
                insert = sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(table), marks)
                connection.cursor().executemany(insert, rows)
        self._keep("wall.key", secrets.token_hex(32))
        for name, role in _ROLES.items():
            self._keep(f"{name}.dsn", make_conninfo(self.owner, user=role, password=secrets.token_hex(16)))

    def build_wall(self, said: Callable[..., str]) -> None:
        """Run what `onbehalf db wall` says, as the tables' owner. `said` gives what a command of ours prints."""
        self._psql(said("db", "wall"))
        self._psql(said("db", "wall", "--key"))
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for name, role in _ROLES.items():
                password = conninfo_to_dict((self.directory / "secrets" / f"{name}.dsn").read_text())["password"]
                connection.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(str(password)))
                )

    def _psql(self, text: str) -> None:
        """Run it as psql does. Raises ServerFailed."""
        found = programs()
        place = conninfo_to_dict(self.owner)
        where = make_conninfo(
            host=str(place["host"]), port=str(place["port"]), user=str(place["user"]), dbname="postgres"
        )
        command = (str(found / "psql") if found else "psql", "--quiet", "--no-psqlrc", "--dbname", where)
        done = subprocess.run(  # noqa: S603  # Debian's program, no shell; the password is not among the arguments
            command, input=text, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PGPASSWORD": str(place["password"])},
        )  # fmt: skip
        if done.returncode != 0 or "ERROR" in done.stderr:
            raise ServerFailed(f"the wall could not be built: {done.stderr}")

    def reviews(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """All reviews as they are, read as the tables' owner, by tenant and id."""
        with psycopg.connect(self.owner, row_factory=dict_row) as connection:
            return {(row["tenant"], row["id"]): row for row in connection.execute("SELECT * FROM reviews")}

    def seen_by_reader(self) -> int:
        """How many reviews somebody sees who has the gateway's own password, and no claim that it signed."""
        with psycopg.connect((self.directory / "secrets" / "reader.dsn").read_text()) as connection:
            found = connection.execute("SELECT count(*) FROM reviews").fetchone()
            return int(found[0]) if found else -1

    def _keep(self, name: str, secret: str) -> None:
        folder = self.directory / "secrets"
        folder.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secret)
