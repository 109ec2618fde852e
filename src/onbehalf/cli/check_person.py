"""Why a person or service is shown a tool or not: the same question as tools/list asks, over a copy of who is known.

Works on copies of the directory and of who is stopped, so that nothing is changed and the gateway may be running. Must
not hold a rule of its own: what is asked and what counts as yes is `questions` and `decide`, as in the corridor.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onbehalf.build import narrowed
from onbehalf.build_people import load_people
from onbehalf.build_state import shared_revocations
from onbehalf.cli.check_caller import person_caller, service_caller, tenants_of
from onbehalf.cli.check_reach import out_of_reach
from onbehalf.config import Settings, broker_issuer
from onbehalf.doors.clock_system import now
from onbehalf.doors.directory_revoked import RevokedPeople
from onbehalf.doors.directory_services import with_services
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.directory_tell import tell
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.revocations_sqlite import Revocations
from onbehalf.errors import ConfigInvalid, OnbehalfError, PersonUnknown
from onbehalf.model import Caller, Candidate, Judgement, Person, Tool
from onbehalf.places import Paths
from onbehalf.validate import decide, obligations, questions

__all__ = ["Shown", "Who", "shown"]

_COPY_PAGES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Whom to look as: `name` is a person's id or a login's subject, or what a service is called; `scopes` is None for
    all that clients ask for. A service has no `client` but itself."""

    tenant: str
    name: str
    client: str
    scopes: frozenset[str] | None = None
    service: bool = False

    @classmethod
    def parsed(cls, person: str, service: str, *, client: str, scope: str | None) -> Who | None:
        """From one of `tenant/person` and `tenant/service`; None where both are "". Raises ConfigInvalid."""
        if not person and not service:
            return None
        if person and service:
            raise ConfigInvalid("both a person and a service are named", hint="look as one of them at a time")
        tenant, _, name = (person or service).partition("/")
        if not tenant or not name:
            wanted = "TENANT/SERVICE, such as acme/nightly-export" if service else "TENANT/PERSON, such as acme/alice"
            raise ConfigInvalid(f"`{(person or service)[:80]}` names nobody", hint=f"write {wanted}")
        scopes = None if scope is None else frozenset(scope.split())
        return cls(tenant=tenant, name=name, client=client, scopes=scopes, service=bool(service))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One line: whether what it is about stands in the way (`problem`), does so later (`warning`), or not (`ok`)."""

    level: Literal["ok", "warning", "problem"]
    what: str
    text: str
    hint: str = ""


async def shown(
    who: Who, settings: Settings, places: Paths, sketches: Mapping[str, Tool], *, missing: Mapping[str, str]
) -> list[Shown]:
    """A line for the person, and one for each exposed tool. `missing` says of tools and upstreams why they are not on
    offer now, by `tool NAME` and `upstream NAME`. Raises OnbehalfError where nothing can be said."""
    engine = CedarEngine.load(places.policies, tools=[*sketches.values()], narrowed=narrowed(settings))
    exposed = [sketches[name] for name in sorted(sketches) if sketches[name].exposed]
    asked = frozenset(scope for tool in exposed for scope in tool.scopes) | engine.scopes
    with tempfile.TemporaryDirectory() as scratch, _people(Path(scratch), settings, places) as (directory, file):
        caller, problem = _caller(who, settings, file, asked)
        if problem is not None or caller is None:
            return [problem or _unknown(who)]
        try:
            person = await directory.person(caller)
        except OnbehalfError as error:
            return [Shown(level="problem", what="person", text=f"{error.message} ({error.code})", hint=error.hint)]
    lines = [_person(person, caller)]
    pages = caller.kind == "person" and caller.evidence.issuer in _with_pages(settings)
    for tool in exposed:
        line = _tool(tool, person, caller, engine, approvable=pages, missing=missing)
        if line.level == "ok" and (why := out_of_reach(tool, caller, settings, pages=pages)) is not None:
            line = Shown(level="warning", what=line.what, text=f"shown, but a call is refused: {why[0]}", hint=why[1])
        lines.append(line)
    count = sum(each.level != "problem" for each in lines[1:])
    if not count:
        text = f"connected, {who.tenant}/{who.name} is shown no tool at all"
        lines.append(Shown(level="problem", what="tools", text=text, hint="the lines above say why, tool by tool"))
    else:
        lines.append(Shown(level="ok", what="tools", text=f"{count} of {len(exposed)} are shown"))
    return lines


@contextlib.contextmanager
def _people(scratch: Path, settings: Settings, places: Paths) -> Iterator[tuple[RevokedPeople, Path]]:
    """Who is known and who is stopped, copied, with people.yaml as it is now."""
    file = scratch / "directory.db"
    _copied(places.directory, file)
    if settings.gateway.state is None:
        _copied(places.revocations, scratch / "revocations.db")
    with contextlib.ExitStack() as stack:
        directory = SqliteDirectory.open(file, lag_budget_s=settings.directory.lag_budget_seconds)
        stack.callback(directory.close)
        directory.load(load_people(places))
        revocations = Revocations.open(scratch / "revocations.db")
        stack.callback(revocations.close)
        if settings.gateway.state is not None:
            with shared_revocations(settings.gateway.state.postgres, base=places.config.resolve().parent) as table:
                for each in table.all():
                    revocations.add(
                        each.kind, each.tenant, each.name, at=each.at, blocks=each.stops, by=each.by, reason=each.reason
                    )
        yield RevokedPeople(with_services(directory, settings), revocations, note=lambda kind, facts: None), file


def _copied(origin: Path, to: Path) -> None:
    if not origin.is_file():
        return
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{origin.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as reading,
            contextlib.closing(sqlite3.connect(to)) as writing,
        ):
            reading.backup(writing, pages=_COPY_PAGES)
    except sqlite3.Error as error:
        hint = "run it as the user that the gateway runs as"
        raise ConfigInvalid(f"`{origin}` cannot be read: {error}", hint=hint) from error


def _with_pages(settings: Settings) -> frozenset[str]:
    """The issuers whose people can log in to the gateway's own pages, to approve and to connect."""
    own = {broker_issuer(settings)} if settings.broker is not None else set()
    return frozenset(own | {each.issuer for each in settings.issuers if each.login is not None})


def _caller(who: Who, settings: Settings, file: Path, asked: frozenset[str]) -> tuple[Caller | None, Shown | None]:
    """The caller whom a token of theirs would make, or the line that says why there is none."""
    if who.service:
        return service_caller(who.name, tenant=who.tenant, scopes=who.scopes, asked=asked, settings=settings), None
    told = tell(file, who.tenant, who.name)
    speaks = [each for each in settings.issuers if who.tenant in tenants_of(each)]
    if not speaks:
        text = f"no issuer may speak for the tenant `{who.tenant}`, so no token is of it"
        hint = "name it as `tenant` of an issuer, or among the values that are `allowed`"
        return None, Shown(level="problem", what="tenant", text=text, hint=hint)
    if told is None:
        return None, _unknown(who)
    names = {each.issuer for each in speaks}
    login = next((each for each in told.logins if each[0] in names), None)
    if login is None:
        have = "; ".join(f"{subject} at {issuer}" for issuer, subject in told.logins) or "none"
        text = f"{told.id} has no login at an issuer of this tenant (logins: {have})"
        hint = f"add one with the issuer spelled exactly as here: {min(names)}"
        return None, Shown(level="problem", what="person", text=text, hint=hint)
    scopes = asked if who.scopes is None else who.scopes
    rule = next(each for each in speaks if each.issuer == login[0])
    return person_caller(
        rule, login[1], tenant=who.tenant, client=who.client, scopes=scopes, audience=settings.gateway.resource
    ), None


def _unknown(who: Who) -> Shown:
    text = f"the directory knows nobody by `{who.name}` in `{who.tenant}` ({PersonUnknown.code})"
    hint = "add them, or their login with the subject (`sub`) that their token has; `onbehalf people show` looks"
    return Shown(level="problem", what="person", text=text, hint=hint)


def _person(person: Person, caller: Caller) -> Shown:
    if caller.kind == "service":
        scopes = " ".join(sorted(caller.scopes)) or "none"
        text = f"{person.ref.id} calls by itself, proven by {caller.evidence.issuer}; scopes: {scopes}"
        return Shown(level="ok", what="service", text=text)
    groups = sorted(each.ref.id for each in person.entities if each.ref.type == "Group")
    text = f"{person.ref.id} logs in as {caller.subject} at {caller.evidence.issuer}; "
    text += f"groups: {', '.join(groups) or 'none'}"
    if not person.active:
        return Shown(level="problem", what="person", text=f"{text}; not active, so everything is denied", hint=_LEFT)
    return Shown(level="ok", what="person", text=text)


_LEFT = "if they are still here, make them active where people come from"


def _tool(
    tool: Tool, person: Person, caller: Caller, engine: CedarEngine, *, approvable: bool, missing: Mapping[str, str]
) -> Shown:
    what = f"tool {tool.name}"
    if why := missing.get(what) or missing.get(f"upstream {tool.upstream}"):
        hint = f"mend upstream `{tool.upstream}`; the finding above says how"
        return Shown(level="problem", what=what, text=f"not offered to anybody: {why}", hint=hint)
    at = now()
    question = questions.about_tool(person, caller, tool, at)
    judgement = engine.judge(question)
    if not decide.offered(judgement, tool=tool, caller=caller, approvable=approvable, now=at):
        return _hidden(what, tool, caller, judgement, engine.candidates(question))
    lacking = sorted(tool.scopes - caller.scopes)
    if lacking:
        text = f"shown, but a call is refused: the token lacks {' '.join(lacking)} (scope_missing)"
        hint = "let the client ask for it and the issuer grant it; clients that know step-up ask by themselves"
        return Shown(level="warning", what=what, text=text, hint=hint)
    unmet = obligations.unmet(judgement.owed, tool=tool, caller=caller, now=at)
    if unmet is not None:
        text = f"shown, but a call may need another login: {unmet.text} ({unmet.code})"
        return Shown(level="warning", what=what, text=text, hint=unmet.remedy)
    by = ", ".join(f"`{each}`" for each in judgement.policies)
    return Shown(level="ok", what=what, text=f"shown: permitted by {by}")


def _hidden(what: str, tool: Tool, caller: Caller, judgement: Judgement, candidates: Sequence[Candidate]) -> Shown:
    """Why the policies do not let this person use the tool at all."""
    if not judgement.validated or judgement.errors:
        text = f"not shown: a policy could not be evaluated: {'; '.join(judgement.errors)[:300] or 'not valid'}"
        return Shown(level="problem", what=what, text=text, hint="mend the policy; an error denies")
    if decide.may(judgement):
        unmet = obligations.unmet(judgement.owed, tool=tool, caller=caller, now=now())
        if unmet is not None:
            return Shown(level="problem", what=what, text=f"not shown: {unmet.text} ({unmet.code})", hint=unmet.remedy)
        hint = "register the gateway at the issuer and set `login`, so that people can approve"
        return Shown(
            level="problem", what=what, text="not shown: it needs an approval, which nobody can give", hint=hint
        )
    forbids = [each for each in candidates if each.effect == "forbid" and each.policy in judgement.policies]
    if forbids:
        first = forbids[0]
        return Shown(
            level="problem", what=what, text=f"not shown: `{first.policy}` forbids it: {first.doc}", hint=first.remedy
        )
    permits = [each for each in candidates if each.effect == "permit"]
    if not permits:
        text = f"not shown: no policy of the bundle permits `{tool.action}` to anybody"
        return Shown(level="problem", what=what, text=text, hint=f"write a `permit` for the action `{tool.action}`")
    nearest = min(permits, key=lambda each: sum(one.holds is not True for one in each.conjuncts))
    fails = [one.text for one in nearest.conjuncts if one.holds is not True]
    text = f"not shown: of {len(permits)} permits none holds; nearest is `{nearest.policy}`, where this does not: "
    return Shown(level="problem", what=what, text=text + ("; ".join(fails)[:400] or "its scope"), hint=nearest.remedy)
