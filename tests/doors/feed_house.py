"""Feeds for tests: a made-up company as lines, a digest of what is in force, and a load in a process of its own."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from doors.directory_house import ISSUER
from onbehalf.doors.directory_file import FileFeed
from onbehalf.doors.directory_load import Loaded, load
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.model import UnixTime

NOW = UnixTime(1_800_000_000)
_TABLES = {
    "position": "id", "position_edge": "below, above", "position_above": "below, above", "grouping": "id",
    "grouping_edge": "below, above", "grouping_above": "below, above",
    "person": "id, name, position, active, attributes", "membership": "person, grouping",
    "login": "issuer, subject, person",
}  # fmt: skip
_LOADING = """
import sys
from pathlib import Path
from onbehalf.doors.directory_file import FileFeed
from onbehalf.doors.directory_load import load
load(Path(sys.argv[1]), "acme", FileFeed(Path(sys.argv[2])), now=1,
     progress=lambda said: print(said.step, said.done, flush=True))
"""


def line(n: int, **changes: object) -> dict[str, object]:
    """Person `n` of a tree of managers with eight below each."""
    made: dict[str, object] = {
        "id": f"e{n}", "name": f"Person {n}", "manager": f"e{(n - 1) // 8}" if n else None,
        "groups": [f"unit{n % 7}"], "attributes": {"department": f"d{n % 3}"},
        "logins": [{"issuer": ISSUER, "subject": f"s{n}"}],
    }  # fmt: skip
    return {**made, **changes}


def jsonl(path: Path, lines: Iterable[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    return path


def company_csv(path: Path, people: int) -> Path:
    """The same people as `line` tells, with a name over two lines in between."""
    with path.open("w", encoding="utf-8") as file:
        file.write("\ufeffid,name,manager,groups,attribute.department,subject,issuer\r\n")
        for n in range(people):
            manager = f"e{(n - 1) // 8}" if n else ""
            file.write(f'e{n},"Person {n}",{manager},unit{n % 7};,d{n % 3},s{n},{ISSUER}\r\n')
    return path


def opened(path: Path) -> SqliteDirectory:
    return SqliteDirectory.open(path)


def loaded(path: Path, feed: Path, *, tenant: str = "acme", at_most: float = 0.1, now: int = NOW) -> Loaded:
    return load(path, tenant, FileFeed(feed), now=UnixTime(now), deactivates_at_most=at_most)


def content(path: Path, tenant: str = "acme") -> str:
    """A digest of all rows that are in force for a tenant."""
    found = hashlib.sha256()
    with closing(sqlite3.connect(path)) as reading:
        for table, columns in _TABLES.items():
            query = f"SELECT {columns} FROM {table} JOIN tenant t USING (book) WHERE t.id = ? ORDER BY {columns}"
            query = query.replace("SELECT id", f"SELECT {table}.id").replace("ORDER BY id", f"ORDER BY {table}.id")
            for row in reading.execute(query, (tenant,)):
                found.update(repr((table, row)).encode())
    return found.hexdigest()


def killed(path: Path, feed: Path, *, step: str, done: int) -> None:
    """A load in a process of its own, killed (SIGKILL) as soon as it says that it is so far."""
    with subprocess.Popen(
        [sys.executable, "-c", _LOADING, str(path), str(feed)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for said in child.stdout:
            name, _, reached = said.partition(" ")
            if name == step and int(reached) >= done:
                child.kill()
                break
        else:
            raise AssertionError(f"the load never came to {step} {done}")
        child.wait(60)
    assert child.returncode == -9
