"""What a view says, as flat words: who, through which client, what, on what, how it ended.

The words that views_*.py give others' names, and the columns that the record is asked by. A word that the record does
not have is "", an unknown number -1. Must not hold another form's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from onbehalf.explain.views import View
from onbehalf.model import Json

__all__ = ["Said", "columns", "one_line", "said"]

_COLUMNS = {"at": "time", "of": "intent"}
_Effect = Literal["", "allow", "deny", "ask"]
_Status = Literal["", "done", "failed", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One record in flat words.

    `effect` is what was decided, for an outcome of its call too; `status` what came of it. `purpose` is `lookup` or
    `preview` for what the gateway did on the way to a call. `ids` are the entities that were released, of the types
    `types`; `people` are the people whom those rows are about. `reader` is the account on the host, as it claims, that
    read the record by `command`.
    """

    index: int
    at: int
    kind: str
    call: str
    of: int
    tenant: str
    person: str
    subject: str
    issuer: str
    client: str
    agent: str
    protocol: str
    tool: str
    upstream: str
    action: str
    writes: bool | None
    purpose: str
    effect: _Effect
    code: str
    text: str
    policy: str
    policies: tuple[str, ...]
    resource_type: str
    resource_id: str
    status: _Status
    returned: int
    released: int
    types: tuple[str, ...]
    ids: tuple[str, ...]
    people: tuple[str, ...]
    erased: bool
    leaf: str
    log: str
    reader: str = ""
    command: str = ""


def said(view: View) -> Said:
    """The flat words of a view; its own facts go before what it is about."""
    facts = {**view.about, **view.facts}
    caller, person, tool = (_map(facts.get(name)) for name in ("caller", "person", "tool"))
    via, decision, outcome, rows = (_map(facts.get(name)) for name in ("via", "decision", "outcome", "rows"))
    read, by = _map(facts.get("read")), _map(facts.get("claimed_by"))
    resource, writes = _map(decision.get("resource")), tool.get("writes")
    return Said(
        index=view.index, at=view.leaf.at, kind=view.leaf.kind, call=view.leaf.call, of=view.leaf.of,
        tenant=_text(caller, "tenant"), person=_text(person, "id"), subject=_text(caller, "subject"),
        issuer=_text(caller, "issuer"), client=_text(caller, "client"), agent=_text(via, "agent"),
        protocol=_text(via, "protocol"), tool=_text(tool, "name"), upstream=_text(tool, "upstream"),
        action=_text(tool, "action"), writes=writes if isinstance(writes, bool) else None,
        purpose=_text(facts, "purpose"), effect=_effect(decision),
        code=_text(decision, "code") or _text(outcome, "code"),
        text=_text(decision, "text") or _text(outcome, "message"), policy=_text(decision, "policy"),
        policies=_texts(decision.get("policies")), resource_type=_text(resource, "type"),
        resource_id=_text(resource, "id"), status=_status(view.leaf.kind, outcome),
        returned=_count(rows, "returned"), released=_count(rows, "released"), types=_texts(rows.get("types")),
        ids=_texts(rows.get("ids")), people=_texts(rows.get("people")), erased=view.erased, leaf=view.hash,
        log=view.log, reader=_text(by, "sudo_user") or _text(by, "user"), command=_text(read, "command"),
    )  # fmt: skip


def columns() -> dict[str, str]:
    """The columns of the flat words, in order, each with the name of its type.

    Two go by other names than here, which SQL keeps for itself: `time` for `at`, `intent` for `of`.
    """
    return {_COLUMNS.get(each.name, each.name): str(each.type) for each in fields(Said)}


def one_line(text: str, most: int = 1000) -> str:
    """Text from outside as one line of at most `most` characters, without what no terminal or parser should meet."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _effect(decision: Mapping[str, Json]) -> _Effect:
    found = decision.get("effect")
    return found if found in ("allow", "deny", "ask") else ""  # type: ignore[return-value]  # it is one of these


def _status(kind: str, outcome: Mapping[str, Json]) -> _Status:
    if kind == "unknown" or outcome.get("unknown") is True:
        return "unknown"
    if kind != "outcome" or "status" not in outcome:
        return ""
    return "done" if outcome["status"] == "done" else "failed"


def _map(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _text(facts: Mapping[str, Json], name: str) -> str:
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _count(rows: Mapping[str, Json], name: str) -> int:
    value = rows.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else -1
