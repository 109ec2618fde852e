"""How the demo's story is told: the stage it plays on, the steps that were checked, and what answers look like.

Must not know a scene or the gateway's answers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from onbehalf.demo.data import DemoPerson, World
from onbehalf.demo.person_client import Told

__all__ = ["Stage", "Step", "StoryResult", "Teller", "first", "summary", "table"]

Verify = Callable[[], tuple[bool, str]]
Explain = Callable[[str], str]
Say = Callable[[str, DemoPerson, str], Awaitable[str]]
"""At an approval's address, log in as a person and say `yes` or `no`: the title of the page after it."""
Reviews = Callable[[], Mapping[tuple[str, str], Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where the story plays: the gateway's URL for clients, the data directory, and the two tools of an auditor.

    `say` is a person in a browser at an approval's page, `reviews` reads the reviews as they are in the database. On
    PostgreSQL, `seen_by_reader` counts those that the gateway's own role sees by itself.
    """

    gateway: str
    directory: Path
    world: World
    verify: Verify
    explain: Explain
    say: Say
    reviews: Reviews
    seen_by_reader: Callable[[], int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: whether it was as told, and what was seen."""

    title: str
    ok: bool
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryResult:
    """All steps, in order."""

    steps: tuple[Step, ...]

    @property
    def ok(self) -> bool:
        """Whether every step was as told. No steps is not a success."""
        return bool(self.steps) and all(step.ok for step in self.steps)


@dataclass(slots=True)
class Teller:
    """Narrates and keeps the steps."""

    console: Console
    steps: list[Step] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)
    """Call ids to explain later, by what they were."""

    def scene(self, text: str) -> None:
        self.console.print(f"\n[bold]{escape(text)}[/bold]")

    def check(self, title: str, ok: bool, seen: str) -> None:
        self.steps.append(Step(title=title, ok=ok, seen=seen))
        mark = "[green]ok[/green]  " if ok else "[red bold]WRONG[/red bold]"
        self.console.print(f"  {mark} {escape(title)}: {escape(seen)}", highlight=False)

    def show(self, text: str) -> None:
        for line in text.strip().splitlines():
            self.console.print(f"      [dim]{escape(line)}[/dim]", highlight=False)


def summary(told: Told) -> str:
    if told.done:
        return "1 row" if len(told.rows) == 1 else f"{len(told.rows)} rows"
    return f"refused ({told.denial}). {told.remedy or first(told.text)}"


def first(what: object) -> str:
    """The first line of a text; for an exception, of its innermost cause."""
    while isinstance(what, BaseExceptionGroup):
        what = what.exceptions[0]
    text = f"{type(what).__name__}: {what}" if isinstance(what, BaseException) else str(what)
    return text.strip().partition("\n")[0][:300]


def table(path: Path, name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """A table of a SQLite file as it is on disk, by tenant and id."""
    with closing(sqlite3.connect(path)) as base:
        base.row_factory = sqlite3.Row
        return {(row["tenant"], row["id"]): dict(row) for row in base.execute(f"SELECT * FROM {name}")}  # noqa: S608
