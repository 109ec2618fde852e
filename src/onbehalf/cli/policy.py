"""`onbehalf policy replay`: what other policies would make of the decisions on record."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.build import narrowed, sketched
from onbehalf.cli.explain import opened
from onbehalf.cli.policy_bundles import bundles_of, why_not
from onbehalf.cli.reading import Purpose, noted
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json, quoted
from onbehalf.doors import clock_system
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.engine_cedar_values import engine_name
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.leaf import Record
from onbehalf.explain.reading import Read
from onbehalf.model import Json, UnixTime
from onbehalf.places import load_settings, paths
from onbehalf.replaying import Again, Replay, Was

__all__ = ["app"]

app = typer.Typer(help="Try policies on what was decided before.", no_args_is_help=True)

_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_GROUPS = 10_000
_SHOWN = 3
_MAX_DIFFERING = 100
_RANKS = {"deny": 0, "ask": 1, "allow": 2}
_KINDS = {"loses": 0, "gains": 1, "obligations": 2, "reason": 3}


@app.callback()
def _group() -> None:
    """Try policies on what was decided before."""


@dataclass(slots=True)
class _Group:
    """Decisions of one person about one tool that come out differently in one way."""

    count: int = 0
    calls: list[str] = field(default_factory=list)


_Owed = tuple[tuple[bytes, ...], tuple[bytes, ...]]
_Way = tuple[str, str, str, str, str, _Owed]
"""How, who, what, how it was and how it would be, and for other obligations both."""


@dataclass(slots=True)
class _Tally:
    """What came of a replay. Its size grows with people and tools, up to a bound, not with the record."""

    decisions: int = 0
    same: int = 0
    rows: int = 0
    why_not: dict[str, int] = field(default_factory=dict)
    groups: dict[_Way, _Group] = field(default_factory=dict)
    beyond: int = 0
    held: int = 0
    unkept: int = 0
    differing: int = 0
    differ: list[dict[str, Json]] = field(default_factory=list)
    first: int | None = None
    end: int | None = None
    opened: int = 0

    def saw(self, record: Record) -> None:
        """The next record, of whatever kind."""
        self.first = record.index if self.first is None else self.first
        self.end = record.index + 1
        self.opened += not record.erased

    def take(self, again: Again) -> None:
        """The next decision."""
        self.decisions += 1
        if again.why_not or again.was is None or again.now is None:
            self.why_not[again.why_not] = self.why_not.get(again.why_not, 0) + 1
            return
        self.rows += again.mapped
        if again.differs is None:
            self.unkept += 1
        elif again.differs:
            self.differing += 1
            if len(self.differ) < _MAX_DIFFERING:
                self.differ.append({"call": again.record.call, "record": again.record.index, "text": again.differs})
        else:
            self.held += 1
        kind = _changed(again.was, again.now)
        if not kind:
            self.same += 1
            return
        who, what = _who(again), _tool(again)
        owed = (again.was.obligations, again.now.obligations) if kind == "obligations" else ((), ())
        key = (kind, who, what, str(again.was), str(again.now), owed)
        if key not in self.groups and len(self.groups) >= _MAX_GROUPS:
            self.beyond += 1
            return
        group = self.groups.setdefault(key, _Group())
        group.count += 1
        if len(group.calls) < _SHOWN and again.record.call not in group.calls:
            group.calls.append(again.record.call)

    @property
    def exit(self) -> int:
        """1 where policies on record no longer say what they said, 3 where others would change something, 0 else."""
        return 1 if self.differing else 3 if self.groups else 0


@app.command("replay")
def replay(
    bundle: Annotated[Path, typer.Option(help="A directory of other policies.", metavar="DIR")],
    config: ConfigFile = Path("onbehalf.yaml"),
    since: Annotated[str, typer.Option(help="How far back: 30m, 12h, 7d, 2w, or a time (UTC).")] = "7d",
    purpose: Purpose = "",
    as_json: AsJson = False,
) -> None:
    """Decide recorded calls again under other policies: who gains, who loses, by person and tool.

    Each decision is made again from what its record says was asked: the person's groups and positions
    of that time, the resource, the login. Under its own policies too, which shows whether the engine
    still says what it said. Nothing is sent, and nothing recorded but that you read. Rows of answers
    are on no record.

    Exit 0: nothing would change. 3: something would. 1: policies on record no longer say the same.

    Example: onbehalf policy replay --since 7d --bundle new/
    """
    start = _since(since)
    settings = load_settings(config)
    tools = [*sketched(settings).values()]
    candidate = CedarEngine.load(bundle, tools=tools, narrowed=narrowed(settings))
    actions = {tool.action for tool in tools}
    reader, tally = opened(config), _Tally()
    places = paths(config, settings)
    again = Replay(bundles_of(places), other=lambda action: candidate if action in actions else None)
    try:
        for record in reader.since(start):
            tally.saw(record)
            if (made := again.again(record)) is not None:
                tally.take(made)
    finally:
        reader.close()
    filters: dict[str, Json] = {"since": start, "policy": candidate.policy}
    read = Read(
        command="policy replay", start=tally.first, end=tally.end, records=tally.opened, filters=filters,
        purpose=purpose,
    )  # fmt: skip
    noted(places, read)
    if as_json:
        print_json(_told(tally, start, candidate))
    else:
        _print(tally, start, candidate)
    raise typer.Exit(tally.exit)


def _since(text: str) -> UnixTime:
    if (span := _SPAN.fullmatch(text)) is not None:
        return UnixTime(max(0, clock_system.now() - int(span[1]) * _SECONDS[span[2]]))
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigInvalid(f"`{text}` is no span or time", hint="such as 7d, 12h, or 2026-11-01") from error
    return UnixTime(max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())))


def _changed(was: Was, now: Was) -> str:
    """In which way it comes out differently; "" for no difference."""
    ranks = _RANKS.get(was.effect, 0), _RANKS[now.effect]
    if ranks[0] != ranks[1]:
        return "gains" if ranks[1] > ranks[0] else "loses"
    if was.effect == "deny":
        return "reason" if was.code != now.code else ""
    return "obligations" if was.obligations != now.obligations else ""


def _who(again: Again) -> str:
    for kind in ("person", "service"):
        found = again.record.facts.get(kind)
        if isinstance(found, dict):
            return f"service {found.get('id')}" if kind == "service" else str(found.get("id"))
    return ""


def _tool(again: Again) -> str:
    tool, purpose = again.record.facts.get("tool"), again.record.facts.get("purpose")
    name = str(tool.get("name")) if isinstance(tool, dict) else ""
    return f"{name} ({purpose})" if purpose else name


def _told(tally: _Tally, start: int, candidate: CedarEngine) -> dict[str, Json]:
    changes: list[Json] = []
    for (kind, who, what, was, now, owed), group in _ordered(tally):
        told: dict[str, Json] = {
            "change": kind, "who": who, "tool": what, "was": was, "now": now, "decisions": group.count,
            "calls": [*group.calls],
        }  # fmt: skip
        if kind == "obligations":
            told["obligations"] = {"was": _texts(owed[0]), "now": _texts(owed[1])}
        changes.append(told)
    return {
        "since": start, "policy": candidate.policy, "engine": engine_name(), "decisions": tally.decisions,
        "same": tally.same, "changes": changes, "changes_not_listed": tally.beyond, "not_replayed": {**tally.why_not},
        "control": {
            "same": tally.held, "differs": tally.differing, "policies_not_kept": tally.unkept,
            "differing": [*tally.differ],
        },
        "exit": tally.exit,
    }  # fmt: skip


def _texts(owed: tuple[bytes, ...]) -> list[Json]:
    return [each.decode() for each in owed]


def _ordered(tally: _Tally) -> list[tuple[_Way, _Group]]:
    return sorted(tally.groups.items(), key=lambda each: (_KINDS[each[0][0]], each[0]))


def _print(tally: _Tally, start: int, candidate: CedarEngine) -> None:
    screen = console()
    when = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    screen.print(f"{tally.decisions} decisions since {when}, made again under {candidate.policy[:19]}…")
    for (kind, who, what, was, now, owed), group in _ordered(tally):
        such = ", ".join(group.calls)
        screen.print(
            f"[bold]{kind:<11}[/bold] {quoted(who)}  {quoted(what)}: {quoted(was)}, then {quoted(now)}; "
            f"{group.count} decisions, such as {quoted(such)}"
        )
        if kind == "obligations":
            before, after = (" ".join(map(str, _texts(each))) or "none" for each in owed)
            screen.print(f"            was {quoted(before)}\n            now {quoted(after)}")
    if tally.beyond:
        screen.print(f"{tally.beyond} more decisions change, in more ways than are listed here.")
    screen.print(f"{tally.same} come out the same." if tally.groups else f"Nothing changes: {tally.same} the same.")
    for why, count in sorted(tally.why_not.items()):
        screen.print(f"not made again: {count} {why_not(why)}")
    if tally.rows:
        screen.print(f"{tally.rows} are of tools that answer with rows: which rows policies let through is not shown.")
    screen.print(
        f"Control, under the policies that each decision names: {tally.held} as on record, {tally.differing} not, "
        f"{tally.unkept} whose policies are not kept here."
    )
    for each in tally.differ[:10]:
        screen.print(f"[bold red]differs[/bold red]  record {each['record']}: {quoted(str(each['text']))}")
    if tally.differing:
        screen.print("The engine is another than it was, or the record is not what this gateway wrote.")
