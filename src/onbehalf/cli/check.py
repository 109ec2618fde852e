"""`onbehalf check`: everything that can be known before anyone relies on the gateway, one line each.

Reads and asks; changes nothing but what building the directory in a scratch place needs. The gateway may be running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer
from msgspec import UnsetType

from onbehalf.build import mcp_server, narrowed, open_database, open_upstream, sketched
from onbehalf.build_people import load_people
from onbehalf.build_proof import certificate_headers
from onbehalf.cli.check_exchange import said_of_exchanges
from onbehalf.cli.check_person import Who, shown
from onbehalf.cli.check_signals import said_of_streams
from onbehalf.cli.check_state import said_of_state
from onbehalf.cli.check_tls import said_of_tls
from onbehalf.cli.check_witnesses import said_of_witnesses
from onbehalf.cli.deny_path import open_doors, wide_doors
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json, quoted
from onbehalf.config import (
    IssuerSettings,
    McpUpstream,
    OpenapiUpstream,
    PostgresUpstream,
    Settings,
    SqlUpstream,
    broker_issuer,
    login_rule,
)
from onbehalf.doors.clock_remote import clock_offset
from onbehalf.doors.clock_system import now
from onbehalf.doors.directory_file import is_feed
from onbehalf.doors.directory_pushed_configured import require_alone, scim_tenants
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.directory_tell import tenants
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.issuer_client import TokenClient
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.issuer_introspection import introspection_clients
from onbehalf.errors import IdentifyError, OnbehalfError
from onbehalf.model import Json, Presented, Tool
from onbehalf.places import Paths, load_settings, paths
from onbehalf.validate import route, tools

__all__ = ["check"]

_CLOCK_SECONDS = 10.0
_Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    level: _Level
    what: str
    text: str
    hint: str = ""


@dataclass(slots=True)
class _Findings:
    """What was looked at, in order."""

    found: list[_Finding] = field(default_factory=list)

    def say(self, level: _Level, what: str, text: str, hint: str = "") -> None:
        self.found.append(_Finding(level=level, what=what, text=text, hint=hint))

    @contextlib.contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """A refusal inside is a problem, not the end."""
        try:
            yield
        except OnbehalfError as error:
            self.say("problem", what, error.message, error.hint)


def check(
    config: ConfigFile = Path("onbehalf.yaml"),
    as_json: AsJson = False,
    person: Annotated[
        str, typer.Option("--as", help="TENANT/PERSON: also say which tools this person is shown, and why not.")
    ] = "",
    service: Annotated[
        str, typer.Option("--as-service", help="TENANT/SERVICE: the same for a program that calls by itself.")
    ] = "",
    client: Annotated[str, typer.Option(help="With --as: the OAuth client id they use.")] = "onbehalf-check",
    scope: Annotated[str | None, typer.Option(help="The scopes of their token; else all.")] = None,
) -> None:
    """Check everything before anyone relies on it, and that what must be denied is.

    Configuration, policies, people, databases, MCP servers, issuers and the clock, one line each
    with what to do. Changes nothing; the gateway may be running. Exit 1 if there is a problem;
    warnings are for you to judge. "Connected, but no tools": --as TENANT/PERSON says why, tool by
    tool; these lines are about the person, and change the exit code only where no tool is shown.

    Example: onbehalf check --config onbehalf.yaml --as acme/alice
    """
    logging.getLogger("onbehalf").addHandler(logging.NullHandler())  # what doors log stands among the findings
    who = Who.parsed(person, service, client=client, scope=scope)
    found = asyncio.run(_checked(config, who))
    problems = sum(each.level == "problem" for each in found)
    if as_json:
        rows: list[Json] = [
            {"level": each.level, "what": each.what, "text": each.text, "hint": each.hint} for each in found
        ]
        print_json({"ok": not problems, "findings": rows})
    else:
        _print(found, problems)
    raise typer.Exit(1 if problems else 0)


def _print(found: list[_Finding], problems: int) -> None:
    screen, colours = console(), {"ok": "green", "warning": "yellow", "problem": "red bold"}
    for each in found:
        screen.print(f"[{colours[each.level]}]{each.level:<8}[/] {quoted(each.what)}: {quoted(each.text)}")
        if each.hint:
            screen.print(f"         what to do: {quoted(each.hint)}")
    screen.print(f"\n{problems or 'No'} problem{'' if problems == 1 else 's'} found.")


async def _checked(config: Path, who: Who | None) -> list[_Finding]:
    findings = _Findings()
    with findings.trying("configuration"):
        settings = load_settings(config)
        places = paths(config, settings)
        sketches = sketched(settings)
        findings.say(
            "ok",
            "configuration",
            f"{config} is understood; {_count(len(sketches), 'tool')}, resource {settings.gateway.resource}",
        )
        if settings.gateway.insecure_http_for_tests:
            findings.say("warning", "configuration", "`insecure_http_for_tests` is on", "remove it outside of tests")
        with findings.trying("certificates"):
            certificate_headers(settings, places)
        with findings.trying("tls"):
            for told in said_of_tls(settings, base=places.config.resolve().parent, now=now()):
                findings.say(*told)
        with findings.trying("witnesses"):
            for told in said_of_witnesses(settings, base=places.config.resolve().parent, keys=places.keys):
                findings.say(*told)
        _people(findings, places, settings)
        _policies(findings, places, settings, sketches)
        await _upstreams(findings, settings, places)
        base = places.config.resolve().parent
        with findings.trying("issuers"):
            await _issuers(findings, settings, base)
        with findings.trying("exchange"):
            async for said in said_of_exchanges(settings, base=base):
                findings.say(*said)
        with findings.trying("state"):
            async for said in said_of_state(settings, base=base):
                findings.say(*said)
        with findings.trying("signals"):
            async for said in said_of_streams(settings, base=base, revocations=places.revocations):
                findings.say(*said)
        if who is not None:
            await _shown(findings, who, settings, places, sketches)
    return findings.found


async def _shown(
    findings: _Findings, who: Who, settings: Settings, places: Paths, sketches: Mapping[str, Tool]
) -> None:
    """What one person is shown. That a policy keeps a tool from somebody is no problem of the gateway."""
    missing = {each.what: each.text for each in findings.found if each.level == "problem"}
    with findings.trying(f"{who.tenant}/{who.name}"):
        for each in await shown(who, settings, places, sketches, missing=missing):
            hidden = each.what.startswith("tool ") and each.level == "problem"
            level: _Level = "warning" if hidden else each.level
            findings.say(level, f"{who.tenant}/{who.name}: {each.what}", each.text, each.hint)


def _people(findings: _Findings, places: Paths, settings: Settings) -> None:
    with findings.trying("people"):
        people = load_people(places)
        require_alone(settings.directory, people)
        scim_tenants(settings.directory.scim, base=places.config.resolve().parent)
        if is_feed(places.people):
            _fed(findings, places)
            return
        with tempfile.TemporaryDirectory() as scratch:
            directory = SqliteDirectory.open(Path(scratch) / "directory.db")
            try:
                directory.load(people)
            finally:
                directory.close()
        findings.say("ok", "people", f"{places.people} holds together")


def _fed(findings: _Findings, places: Paths) -> None:
    """What was loaded; the file itself is checked as it is loaded."""
    for each in tenants(places.directory):
        told = f"{each.tenant} has {each.active} active people from {each.source}"
        if each.problem:
            findings.say("warning", "people", f"{told}; the last load failed: {each.problem}", "load it again")
        else:
            findings.say("ok", "people", told)


def _policies(findings: _Findings, places: Paths, settings: Settings, sketches: Mapping[str, Tool]) -> None:
    with findings.trying("policies"):
        engine = CedarEngine.load(places.policies, tools=[*sketches.values()], narrowed=narrowed(settings))
        findings.say("ok", "policies", f"{places.policies} is strictly valid; digest {engine.policy}")
        opened = open_doors(engine, [*sketches.values()], now=now())
        for text in opened:
            findings.say("problem", "deny path", text, "do not serve; look for a too wide `permit`, and report this")
        if not opened:
            findings.say("ok", "deny path", "every tool refuses a person who left, and rows of another tenant")
        without = [each.issuer for each in settings.issuers if each.login is None and not _is_own(settings, each)]
        if engine.asking and without:
            findings.say(
                "warning", "approvals", f"`{min(engine.asking)}` demands an approval, and people of {without[0]} "
                "cannot log in to give one: their calls are denied", "register the gateway there and set `login`",
            )  # fmt: skip
        for text in wide_doors(engine, [*sketches.values()], now=now()):
            findings.say("warning", "deny path", text, "if that is not meant, look for a `permit` without conditions")


async def _upstreams(findings: _Findings, settings: Settings, places: Paths) -> None:
    for name, upstream in settings.upstreams.items():
        with findings.trying(f"upstream {name}"):
            if isinstance(upstream, SqlUpstream):
                door, made = await open_database(name, upstream, places, settings)
                await door.aclose()
                if upstream.insecure_without_wall:
                    text = "`insecure_without_wall` is on: only statements and policies keep tenants apart"
                    findings.say(
                        "warning", f"upstream {name}", text, "list its tables of several tenants under `tables`"
                    )
                findings.say("ok", f"upstream {name}", f"{upstream.database} has what its statements ({len(made)}) use")
                for tool in made:
                    _tool(findings, tool, pinned=True)
            elif isinstance(upstream, PostgresUpstream):
                await _postgres(findings, name, upstream, settings, places)
            elif isinstance(upstream, OpenapiUpstream):
                api, made = await open_upstream(name, upstream, places, settings)
                await api.aclose()
                findings.say("ok", f"upstream {name}", f"its document is as pinned and has its {len(made)} tools")
                for tool in made:
                    route.prepare(tool.schema)
                    _tool(findings, tool, pinned=True)
            else:
                await _server(findings, name, upstream, settings, places)


async def _postgres(
    findings: _Findings, name: str, upstream: PostgresUpstream, settings: Settings, places: Paths
) -> None:
    # with it comes a client library, which checking anything else does without
    from onbehalf.doors.upstream_postgres_configured import open_postgres

    base = places.config.resolve().parent
    door, made = await open_postgres(name, upstream, base=base, max_rows=settings.gateway.limits.rows)
    await door.aclose()
    what = f"upstream {name}"
    if upstream.insecure_without_wall:
        text = "`insecure_without_wall` is on: only statements and policies keep tenants apart"
        findings.say("warning", what, text, "build the wall (`onbehalf db wall`) and remove the key")
    if upstream.insecure_tls_for_tests:
        findings.say("warning", what, "`insecure_tls_for_tests` is on", "remove it outside of tests")
    for text in door.warnings:
        findings.say("warning", what, text, "let unique keys begin with the tenant column")
    stands = "" if upstream.insecure_without_wall else "its wall stands, and it "
    findings.say("ok", what, f"{stands}has what its statements ({len(made)}) use")
    for tool in made:
        _tool(findings, tool, pinned=True)


async def _server(findings: _Findings, name: str, upstream: McpUpstream, settings: Settings, places: Paths) -> None:
    server = mcp_server(upstream, settings, base=places.config.resolve().parent)
    try:
        described = await server.describe()
    finally:
        await server.aclose()
    count, pinned = _count(len(described), "tool"), not isinstance(upstream.definitions, UnsetType)
    known_by = "the file of definitions is as pinned" if pinned else f"{upstream.url} answers"
    findings.say("ok", f"upstream {name}", f"{known_by} and has {count}")
    for odd in server.problems():
        findings.say("warning", f"upstream {name}", odd)
    for tool_name, each in upstream.tools.items():
        with findings.trying(f"tool {tool_name}"):
            known = described.get(each.remote or tool_name)
            if known is None:
                findings.say("problem", f"tool {tool_name}", f"the server has no tool `{each.remote or tool_name}`")
                continue
            made = tools.mcp_tool(
                tool_name, name, each, title=known.title, description=known.description, schema=known.schema
            )
            route.prepare(made.schema)
            _tool(findings, made, pinned=pinned or bool(each.pin))


def _tool(findings: _Findings, tool: Tool, *, pinned: bool) -> None:
    what = f"tool {tool.name}"
    alike = route.identity_like(tool.schema)
    if alike:
        findings.say(
            "warning", what, f"the model chooses `{alike[0]}`, which looks like an identity",
            "set it under `bound`, or be sure that `rows` and policies decide what comes back",
        )  # fmt: skip
    mapped = tool.rows or tool.lookup or tool.explores
    if not mapped:
        findings.say(
            "warning", what, "neither `rows` nor `resource` is mapped, so only the tool as a whole is decided",
            "map `rows`, so that each row is decided before it is released",
        )  # fmt: skip
    if not pinned:
        findings.say(
            "warning", what, f"its definition is not pinned; it is `{tool.definition}` now",
            "write `pin:` with it, so that a changed definition is refused",
        )  # fmt: skip
    if pinned and not alike and mapped:
        findings.say("ok", what, "defined, mapped and pinned")


async def _issuers(findings: _Findings, settings: Settings, base: Path) -> None:
    issuers = _asked(settings)
    clients = introspection_clients(issuers, base=base)
    async with _callers(settings, issuers, clients, base) as callers:
        await callers.warm()
        for text in callers.keyless():
            findings.say(
                "warning", "issuer", f"{text}: JWTs of it are refused", "if it gives out such, look at its URL"
            )
        async for asked, wrong in callers.introspection.tried(now=now()):
            what = f"introspection {asked}"
            if wrong:
                findings.say(
                    "problem", what, wrong, "look at `endpoint`, `client_id`, and `client_secret` or `client_key`"
                )
            else:
                findings.say("ok", what, "it takes our credentials, and says of a made-up token that it is not active")
        problems = callers.problems()
        for text in problems:
            findings.say("problem", "issuer", text, "is its URL exactly as in `iss`, and can this machine reach it?")
        if not problems:
            domains = f", and of {_count(len(settings.workloads), 'trust domain')}" if settings.workloads else ""
            findings.say("ok", "issuers", f"the keys of {_count(len(issuers), 'issuer')}{domains} could be had")
        try:
            await callers.prove(Presented(token="e30.e30.e30"), now=now())  # noqa: S106  # no secret: three empty objects
        except IdentifyError as error:
            findings.say("ok", "identity", f"an unsigned token is refused ({error.code})")
        else:
            findings.say("problem", "identity", "an unsigned token was believed", "do not serve; report this")
    for issuer in issuers:
        await _clock(findings, issuer)


def _is_own(settings: Settings, issuer: IssuerSettings) -> bool:
    return settings.broker is not None and issuer.issuer == broker_issuer(settings)


def _asked(settings: Settings) -> Sequence[IssuerSettings]:
    """Who has to answer for anybody to get in: the broker is this gateway itself, but its login is not."""
    if settings.broker is None:
        return settings.issuers
    return (login_rule(settings.broker.login), *(each for each in settings.issuers if not _is_own(settings, each)))


@contextlib.asynccontextmanager
async def _callers(
    settings: Settings, issuers: Sequence[IssuerSettings], clients: Mapping[str, TokenClient], base: Path
) -> AsyncIterator[IssuerCallers]:
    gateway = settings.gateway
    callers = IssuerCallers(
        issuers, resource=gateway.resource, insecure_http=gateway.insecure_http_for_tests, clients=clients,
        workloads=settings.workloads, base=base,
    )  # fmt: skip
    try:
        yield callers
    finally:
        await callers.aclose()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


async def _clock(findings: _Findings, issuer: IssuerSettings) -> None:
    offset = await asyncio.to_thread(clock_offset, issuer.metadata or issuer.issuer)
    if offset is None:
        findings.say("warning", "clock", f"{issuer.issuer} does not tell the time, so ours is not compared")
    elif abs(offset) > _CLOCK_SECONDS:
        findings.say(
            "problem",
            "clock",
            f"our clock is {offset:+.0f} s from {issuer.issuer}'s; tokens bear 30 s",
            "set the clock by NTP",
        )
    else:
        findings.say("ok", "clock", f"{offset:+.1f} s from {issuer.issuer}'s")
