"""One call as sentences a person can read, from its records alone.

Says only what the records say; where a payload is gone it says that. Must not hold colours, tables or HTML: whoever
shows a story lays it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from onbehalf.explain.leaf import Record
from onbehalf.explain.reconcile import Grade, end_of, grade_of
from onbehalf.model import Json, canonical

__all__ = ["Line", "Story", "story"]

_MAX_VALUE = 300
_NOTHING: Mapping[int, str] = {}
_HELD: Mapping[bool | None, str] = {True: "held", False: "did not hold", None: "could not be evaluated"}
_PROVEN: Mapping[str, str] = {"dpop": "the key", "mtls": "the certificate"}
"""What a client proved with a bound token; a bearer token proves nothing of who shows it."""
_GRADES: Mapping[Grade, str] = {
    "R3": "The backend signed for its answer", "R2": "The backend's own record has it",
    "R1": "The gateway saw the answer", "R0": "Nobody saw an answer",
}  # fmt: skip
_Role = Literal[
    "who", "asked", "looked_up", "decided", "condition", "remedy", "replayed", "came_back", "recorded", "missing"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One sentence, what it is about, and the index of the record that says so."""

    role: _Role
    text: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A call told in order. `ending` is `denied`, `done`, `failed`, `unknown`, `open`, `tried` (and taken back, or by a
    dry run), `waiting` (for an approval), `refused` (by a person), `erased` (or closed to who reads), or `none` (no
    call)."""

    call: str
    ending: str
    lines: tuple[Line, ...]

    def as_json(self) -> dict[str, Json]:
        """The story as plain JSON."""
        lines: list[Json] = [{"role": line.role, "text": line.text, "index": line.index} for line in self.lines]
        return {"call": self.call, "ending": self.ending, "lines": lines}

    def as_text(self) -> str:
        """One sentence a line."""
        return "\n".join(("  - " if line.role == "condition" else "") + line.text for line in self.lines)


def story(records: Sequence[Record], replayed: Mapping[int, str] = _NOTHING) -> Story:
    """The story of one call, from all its records in log order. `replayed` says, by the index of a record, what comes
    of its decision when it is made again."""
    lines: list[Line] = []
    ending = "none"
    answered = {index for record in records if (index := _intent(record)) is not None}
    asides = {record.index: aside for record in records if (aside := _aside(record.facts))}
    told = False
    for record in records:
        of = _intent(record)
        aside = asides.get(record.index if of is None else of, "")
        lines += _lines(record, told=told, aside=aside)
        if record.index in replayed:
            # before the line that says where it is on record
            lines.insert(len(lines) - 1, Line(role="replayed", text=_clean(replayed[record.index]), index=record.index))
        told = told or record.kind in ("intent", "denial", "asked")
        if aside in _TRIES and record.kind == "outcome":
            ending = "tried" if _ending(record, answered) == "done" else "failed"
        elif not aside:
            ending = _ending(record, answered) or ending
        if record.kind == "intent" and record.index not in answered:
            text = "No outcome is on record: the call is under way, or the gateway stopped and has not started again."
            lines.append(Line(role="missing", text=text, index=record.index))
    return Story(call=records[0].call if records else "", ending=ending, lines=tuple(lines))


def _lines(record: Record, *, told: bool, aside: str) -> list[Line]:
    facts, lines = record.facts, list[Line]()

    def say(role: _Role, text: str) -> None:
        lines.append(Line(role=role, text=_one_line(text), index=record.index))

    if record.erased:
        say("missing", _gone(record))
    elif record.kind in ("intent", "denial", "asked"):
        if not told:
            say("who", _who(facts))
        if record.kind == "intent":
            say("looked_up" if aside else "asked", _asked(facts, aside=aside))
            decision = _map(facts.get("decision"))
            say("decided", _allowed(decision))
            for owed in map(_map, _list(decision.get("obligations"))):
                say("condition", f"{_text(owed, 'policy')} demands {_demands(owed)}")
            if scope := _map(facts.get("scope")):
                say("condition", f"only rows were asked for where {_clean(_text(scope, 'predicate'))}")
            if "expected" in facts:
                say("condition", _TRIED_BY_API if _has_dry_run(facts) else _TRIED)
            if approval := _map(facts.get("approval")):
                by = " and ".join(_words(approval.get("approved_by")))
                say("condition", f"approved by {by}, as {_clean(_text(approval, 'asked_by'))} asked")
        elif record.kind == "asked":
            say("asked", _asked(facts, aside=""))
            say("decided", _waits(facts))
        else:
            say("asked", _asked(facts, aside=""))
            _deny(_map(facts.get("decision")), say)
    elif record.kind == "approval":
        say("decided", _voted(facts))
    elif record.kind in ("outcome", "unknown"):
        say("came_back", _came_back(record.kind, facts, aside=aside))
        for owed in map(_map, _list(facts.get("obligations"))):
            say("condition", f"{_text(owed, 'policy')} had {_demands(owed)}: in {_value(owed.get('rows'))} rows")
        say("recorded", _grade(record.kind, facts))
    else:
        say("recorded", f"{record.kind.replace('_', ' ')}: {_value(dict(facts))}.")
    say("recorded", f"On record as {record.kind} {record.index}, {_time(record.at)}, leaf {record.leaf}.")
    return lines


def _who(facts: Mapping[str, Json]) -> str:
    caller, person, via = _map(facts.get("caller")), _map(facts.get("person")), _map(facts.get("via"))
    name = _text(person, "name")
    if _text(caller, "kind") == "service":
        return _service(facts, caller)
    who = (
        f"{name} ({_text(person, 'id')})"
        if name
        else f"Subject {_text(caller, 'subject')}, not found in the directory,"
    )
    text = f"{who} of tenant {_text(caller, 'tenant')} called through the client {_text(caller, 'client')}"
    if agent := _text(via, "agent"):
        text += f", which calls itself {_clean(agent)}"
    actors = [_clean(str(actor)) for actor in _list(caller.get("actors"))]
    if actors:
        text += f", acting through {' for '.join(actors)}"
    return f"{text}; {_text(caller, 'issuer')} vouched for this ({_vouched(caller)}).{_held(caller)}"


def _service(facts: Mapping[str, Json], caller: Mapping[str, Json]) -> str:
    """A program that called by itself: no person is behind it, and none is said to be."""
    id_ = _text(_map(facts.get("service")), "id") or f"{_text(caller, 'tenant')}/{_text(caller, 'service')}"
    text = f"Service {_clean(id_)} of tenant {_text(caller, 'tenant')} called by itself, for no person"
    if agent := _text(_map(facts.get("via")), "agent"):
        text += f", as a program that calls itself {_clean(agent)}"
    return f"{text}; {_text(caller, 'issuer')} vouched for this ({_vouched(caller)}).{_held(caller)}"


def _vouched(caller: Mapping[str, Json]) -> str:
    key, algorithm = _text(caller, "key"), _text(caller, "algorithm")
    if algorithm == "introspection":
        return "asked about the token, " + (f"it signed its answer with the key {key}" if key else "it said so")
    return f"key {key}, {algorithm}"


def _held(caller: Mapping[str, Json]) -> str:
    what = _PROVEN.get(_text(caller, "proof"), "")
    return f" The client proved that it holds {what} {_text(caller, 'thumbprint')}." if what else ""


_VERBS = {
    "lookup": "To decide that, the gateway first looked the resource up with",
    "preview": "To see what would change, the gateway had it tried and taken back with",
    "dry_run": "To see what would change, the gateway asked for a dry run of",
}
_TRIES: Mapping[str, str] = {
    "preview": "It was tried and taken back", "dry_run": "The dry run was answered, which by itself changes nothing"
}  # fmt: skip
_TRIED = "only if the same would change as when it was tried"
_TRIED_BY_API = "after the dry run right before it; what the API changed in between, only the API could tell"


def _aside(facts: Mapping[str, Json]) -> str:
    """What an intent was for besides what was asked for: `lookup`, `preview`, or `dry_run` by an API itself."""
    purpose = _text(facts, "purpose")
    return "dry_run" if purpose == "preview" and _has_dry_run(facts) else purpose


def _has_dry_run(facts: Mapping[str, Json]) -> bool:
    return "dry_run" in _map(facts.get("tool"))


def _asked(facts: Mapping[str, Json], *, aside: str) -> str:
    tool = _map(facts.get("tool"))
    verb = "It had not been answered with more than a refusal, and was sent once more: to" if "after" in facts else ""
    text = f"{verb or _VERBS.get(aside, 'They asked for')} the tool {_clean(_text(tool, 'name'))}"
    if upstream := _text(tool, "upstream"):
        text += f" of {upstream} ({'it writes' if tool.get('writes') else 'it reads'})"
    arguments = _map(facts.get("arguments"))
    if not arguments:
        return f"{text} with no arguments on record." if "arguments" not in facts else f"{text} without arguments."
    bound = {str(name) for name in _list(tool.get("bound"))}
    sent = [f"{_clean(name)} = {_value(value)}" for name, value in arguments.items() if name not in bound]
    kept = [f"{_clean(name)} = {_value(value)}" for name, value in arguments.items() if name in bound]
    text += f" with {', '.join(sent)}" if sent else " without arguments"
    return f"{text}; the gateway set {', '.join(kept)}." if kept else f"{text}."


def _allowed(decision: Mapping[str, Json]) -> str:
    policies = [str(policy) for policy in _list(decision.get("policies"))]
    where = f"on {_ref(decision)}" if decision.get("resource") else ""
    return f"Allowed {where} by {_and(policies)}, {_basis(decision)}."


def _waits(facts: Mapping[str, Json]) -> str:
    decision, approval = _map(facts.get("decision")), _map(facts.get("approval"))
    if decision.get("code") == "connection_needed":
        return "It waits until the person has connected their own account at this upstream (connection_needed)."
    policies = [str(policy) for policy in _list(decision.get("policies"))]
    until = approval.get("until")
    over = f" until {_time(until)}" if isinstance(until, int) else ""
    by = " and ".join(_words(decision.get("approvers")))
    return f"It waits for the approval of {by}{over}, as demanded by {_and(policies)}, {_basis(decision)}."


def _voted(facts: Mapping[str, Json]) -> str:
    who, caller = _text(_map(facts.get("person")), "id"), _map(facts.get("caller"))
    verb = "approved" if facts.get("vote") == "approved" else "refused"
    return f"{_clean(who)} {verb} it in a browser; {_text(caller, 'issuer')} vouched for this."


def _deny(decision: Mapping[str, Json], say: Callable[[_Role, str], None]) -> None:
    where = f" on {_ref(decision)}" if decision.get("resource") else ""
    basis = f", {_basis(decision)}" if decision.get("policy") else ""
    say("decided", f"Denied{where} ({_text(decision, 'code')}): {_clean(_text(decision, 'text')).rstrip('.')}{basis}.")
    for candidate in map(_map, _list(decision.get("candidates"))):
        doc = f", “{_clean(_text(candidate, 'doc'))}”" if candidate.get("doc") else ""
        conditions = [_map(conjunct) for conjunct in _list(candidate.get("conjuncts"))]
        say("decided", f"The {_text(candidate, 'effect')} policy {_text(candidate, 'policy')}{doc}:")
        for conjunct in {_text(each, "text"): each for each in conditions}.values():
            holds = conjunct.get("holds")
            held = _HELD[holds if isinstance(holds, bool) else None]
            say("condition", f"{_clean(_text(conjunct, 'text'))}: {held}")
    if remedy := _text(decision, "remedy"):
        say("remedy", f"What to do: {_clean(remedy).rstrip('.')}.")


def _gone(record: Record) -> str:
    proves = "its leaf still proves that it was recorded"
    if record.erasure is None:
        return f"What this {record.kind} says cannot be read here; {proves}."
    by = f"erased on {_time(record.erasure.at)}, as record {record.erasure.leaf} says"
    return f"What this {record.kind} said was {by}; {proves}."


def _grade(kind: str, facts: Mapping[str, Json]) -> str:
    """How well the record alone knows what came of it. That the backend's own record has it, a comparison says."""
    grade = grade_of(end_of(kind, facts.get("outcome")), receipt="backend_receipt" in facts, row=False)
    return f"{_GRADES[grade]}: grade {grade}."


def _came_back(kind: str, facts: Mapping[str, Json], *, aside: str) -> str:
    outcome, rows = _map(facts.get("outcome")), _map(facts.get("rows"))
    message = _clean(_text(outcome, "message")) or _text(outcome, "code")
    if kind == "unknown" or outcome.get("unknown") is True:
        return f"It is not known whether this was done: {message}. It must not be repeated blindly."
    if outcome.get("status") != "done":
        return f"It was not done ({_text(outcome, 'code')}): {message}."
    if aside in _TRIES:
        permitted, returned = _value(rows.get("released")), _value(rows.get("returned"))
        nothing = "nothing stays of it" if aside == "preview" else "its answer is mapped to no rows"
        what = f"{returned} rows would change, {permitted} of them permitted" if rows else nothing
        return f"{_TRIES[aside]}: {what}."
    if not rows:
        return "The lookup was answered." if aside else "It was done, and the answer was released whole."
    ids = [_clean(str(each)) for each in _list(rows.get("ids"))]
    shown = ", ".join(ids[:20]) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
    counts = f"{_value(rows.get('returned'))} rows came back, {_value(rows.get('released'))} were released"
    cut = (
        f"; {_value(rows.get('cut'))} more were permitted and over the most that may be released"
        if "cut" in rows
        else ""
    )
    purposes = _words(rows.get("purposes"))
    use = f" They may be used for {' or '.join(purposes)} only." if purposes else ""
    return f"{counts}{f' ({shown})' if ids else ''}, {_value(rows.get('withheld'))} were withheld by policy{cut}.{use}"


def _demands(owed: Mapping[str, Json]) -> str:
    """What a policy demands of what it permits, as its annotations say it."""
    said: list[str] = []
    if "columns" in owed:
        said.append(f"only the fields {', '.join(_words(owed.get('columns')))}")
    said += [f"{_clean(field)} as {_clean(str(mask))}" for field, mask in _map(owed.get("mask")).items()]
    if "max_rows" in owed:
        said.append(f"at most {_value(owed.get('max_rows'))} rows")
    if "purpose" in owed:
        said.append(f"the purpose {' or '.join(_words(owed.get('purpose')))}")
    if "approve" in owed:
        said.append(f"the approval of {' and '.join(_words(owed.get('approve')))}")
    if "scope" in owed:
        said.append(f"the scope {' and '.join(_words(owed.get('scope')))}")
    if "acr" in owed:
        said.append(f"a login by {' or '.join(_words(owed.get('acr')))}")
    if "max_age" in owed:
        said.append(f"a login at most {_value(owed.get('max_age'))} seconds before")
    return "; ".join(said)


def _words(value: Json) -> list[str]:
    return [_clean(str(each)) for each in _list(value)]


def _ending(record: Record, answered: set[int]) -> str:
    if record.kind == "denial":
        return "denied"
    if record.kind == "intent":
        return "open"
    if record.kind == "asked":
        return "waiting"
    if record.kind == "approval":
        return "refused" if record.facts.get("vote") == "refused" else ""
    if record.kind == "unknown":
        return "unknown"
    if record.kind != "outcome":
        return ""
    if record.erased:
        return "erased"
    outcome = _map(record.facts.get("outcome"))
    if outcome.get("unknown") is True:
        return "unknown"
    return "done" if outcome.get("status") == "done" else "failed"


def _intent(record: Record) -> int | None:
    if record.kind not in ("outcome", "unknown"):
        return None
    if record.of >= 0:  # which the leaf itself says, whatever became of the payload
        return record.of
    index = _map(record.facts.get("intent")).get("index")
    return index if isinstance(index, int) else None


def _basis(decision: Mapping[str, Json]) -> str:
    return f"under policies {_text(decision, 'policy')[:19]}… and directory revision {_value(decision.get('revision'))}"


def _ref(decision: Mapping[str, Json]) -> str:
    resource = _map(decision.get("resource"))
    return f'{_text(resource, "type")}::"{_clean(_text(resource, "id"))}"'


def _and(names: Sequence[str]) -> str:
    if not names:
        return "no policy on record"
    return f"the polic{'y' if len(names) == 1 else 'ies'} {', '.join(names)}"


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _map(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _text(facts: Mapping[str, Json], name: str) -> str:
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def _clean(text: str) -> str:
    """One line without control characters: what a client sent must not be able to write a second sentence's line."""
    shown = _one_line(text)
    return shown if len(shown) <= _MAX_VALUE else shown[: _MAX_VALUE - 1] + "…"


def _one_line(text: str) -> str:
    return "".join(each if each.isprintable() else "�" for each in text)


def _value(value: Json) -> str:
    return _clean(canonical(value).decode())
