"""Questions that are often asked of the record, as SQL over its flat words (views_said.py), with their values apart.

Must not run one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Question", "calls_by", "who_read"]

Value: TypeAlias = str | int | Sequence[str]
_RELEASED = "kind = 'outcome' AND status = 'done' AND purpose <> 'lookup' AND released > 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One SELECT over `records` with named values. `beside` counts the answers that it cannot see into."""

    sql: str
    values: dict[str, Value] = field(default_factory=dict)
    beside: str = ""


def who_read(type_: str = "", *, people: Sequence[str] | None = None) -> Question:
    """To whom rows of an entity type were released, through which client, how often and how many different ones.

    "" is any type. With `people`, only answers in which a row refers to one of them; no people is nobody.
    """
    where, values = [_RELEASED], dict[str, Value]()
    if type_:
        where.append("list_contains(types, $type)")
        values["type"] = type_
    if people is not None:
        where.append("list_has_any(people, $people)")
        values["people"] = [*people]
    sql = (
        "SELECT person, client, tool, count(*) AS answers, len(list_distinct(flatten(list(ids)))) AS different_rows, "  # noqa: S608
        f"min(time) AS first, max(time) AS last, max(call) AS last_call FROM records WHERE {' AND '.join(where)} "
        "GROUP BY person, client, tool ORDER BY answers DESC, person, client, tool"
    )
    beside = (
        "SELECT count(*) FROM records WHERE erased OR (kind = 'outcome' AND status = 'done' AND purpose <> 'lookup' "
        "AND (released IS NULL OR (released > 0 AND len(types) = 0)))"
    )
    return Question(sql=sql, values=values, beside=beside)


def calls_by(person: str) -> Question:
    """What somebody asked for, newest first: what was decided, and what came of it."""
    sql = (
        "SELECT a.time, a.tool, a.client, a.effect, coalesce(nullif(b.status, ''), nullif(a.code, ''), '') AS ended, "
        "b.released, a.call FROM records a LEFT JOIN records b ON b.intent = a.index WHERE a.person = $person "
        "AND a.kind IN ('intent', 'denial', 'asked') AND a.purpose = '' ORDER BY a.index DESC"
    )
    return Question(sql=sql, values={"person": person})
