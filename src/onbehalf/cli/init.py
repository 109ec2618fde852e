"""`onbehalf init`: files to begin with, commented, that start as they are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.cli.screen import console, print_json
from onbehalf.config import json_schema
from onbehalf.errors import ConfigInvalid

__all__ = ["init"]

_NOTES = """
CREATE TABLE notes (tenant TEXT NOT NULL, id INTEGER NOT NULL, owner_id TEXT NOT NULL, text TEXT NOT NULL,
                    PRIMARY KEY (tenant, id));
INSERT INTO notes VALUES
  ('acme', 1, 'alice', 'Offer for the new office'), ('acme', 2, 'bob', 'Ideas for the retrospective'),
  ('acme', 3, 'bob', 'Holiday plans'), ('acme', 4, 'carol', 'Handover before leaving');
"""


def init(
    directory: Annotated[Path, typer.Argument(help="Where to write; made if missing.")] = Path(),
    resource: Annotated[str, typer.Option(help="The URL that clients will type.")] = "http://127.0.0.1:8100/mcp",
    issuer: Annotated[
        str, typer.Option(help="Your OAuth issuer, exactly as in its tokens' `iss`.")
    ] = "https://login.example.com",
    schema: Annotated[bool, typer.Option("--schema", help="Only print the JSON Schema of onbehalf.yaml.")] = False,
) -> None:
    """Write a commented onbehalf.yaml, people.yaml, policies and a small example database.

    Nothing that exists is overwritten. The files start as they are; then put in your issuer, people and tools.
    """
    if schema:
        print_json(json_schema())
        return
    marks = {"@RESOURCE@": resource, "@ISSUER@": issuer}
    house = files("onbehalf.cli") / "init_house"
    wanted = {name: entry for name, entry in _walk(house, "") if not name.endswith((".py", ".pyc"))}
    taken = sorted(name for name in (*wanted, "notes.db") if (directory / name).exists())
    if taken:
        raise ConfigInvalid(
            f"`{directory / taken[0]}` is there already", hint="name an empty directory, or move it away"
        )
    try:
        for name, entry in wanted.items():
            _write(directory / name, entry.read_text(encoding="utf-8"), marks)
        with closing(sqlite3.connect(directory / "notes.db")) as base:
            base.executescript(_NOTES)
    except (OSError, sqlite3.Error) as error:
        raise ConfigInvalid(f"`{directory}` cannot be written: {error}") from error
    screen = console()
    screen.print(f"Written to {directory.resolve()}: {', '.join(sorted(wanted))}, notes.db")
    screen.print("Next: put your issuer and people in, then")
    screen.print(f"  onbehalf check --config {directory / 'onbehalf.yaml'}")
    screen.print(f"  onbehalf serve --config {directory / 'onbehalf.yaml'}")


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += [] if entry.name == "__pycache__" else _walk(entry, f"{name}/")
        else:
            found.append((name, entry))
    return found


def _write(path: Path, text: str, marks: dict[str, str]) -> None:
    for mark, value in marks.items():
        text = text.replace(mark, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
