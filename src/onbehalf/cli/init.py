"""`onbehalf init`: files to begin with, commented, that start as they are."""

from __future__ import annotations

import json
import shlex
import sqlite3
from contextlib import closing
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.cli.screen import console, print_json, quoted
from onbehalf.config import json_schema, parse
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
    """Write onbehalf.yaml, people.yaml, policies and a small database, commented.

    Nothing that exists is overwritten. The files start as they are; then put in your issuer,
    people and tools, and let onbehalf check tell you what is missing.

    Example: onbehalf init gateway --issuer https://login.your-company.example
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
    texts = {name: _marked(entry.read_text(encoding="utf-8"), marks) for name, entry in wanted.items()}
    parse(texts["onbehalf.yaml"])  # before anything is written: a URL that could not be served
    try:
        for name, text in texts.items():
            _write(directory / name, text)
        with closing(sqlite3.connect(directory / "notes.db")) as base:
            base.executescript(_NOTES)
    except (OSError, sqlite3.Error) as error:
        raise ConfigInvalid(f"`{directory}` cannot be written: {error}", hint="name another directory") from error
    screen, config = console(), quoted(shlex.quote(str(directory / "onbehalf.yaml")))
    screen.print(f"Written to {quoted(str(directory.resolve()))}: {', '.join(sorted(wanted))}, notes.db")
    screen.print("Next: put your issuer and people in, then")
    screen.print(f"  onbehalf check --config {config}")
    screen.print(f"  onbehalf serve --config {config}")


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += [] if entry.name == "__pycache__" else _walk(entry, f"{name}/")
        else:
            found.append((name, entry))
    return found


def _marked(text: str, marks: dict[str, str]) -> str:
    for mark, value in marks.items():
        text = text.replace(mark, json.dumps(value, ensure_ascii=False)[1:-1])  # they stand in double quotes
    return text


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
