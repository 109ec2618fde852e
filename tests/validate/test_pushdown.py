# ruff: noqa: E501  # faults and policies read best in one line
"""Policies as a predicate: the same rows as the engine allows, on two databases; refused at load where it cannot be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.errors import PolicyInvalid
from onbehalf.validate import pushdown_rails, pushdown_sql, pushdown_values
from validate import pushdown_differential as differential
from validate import pushdown_house as house

SEEDS = range(60)
ENOUGH = 500


def differences(directory: Path, dialect: house.Dialect, answer: differential.Answer) -> differential.Compared:
    found = differential.Compared()
    for seed in SEEDS:
        differential.compare(found, seed, directory, dialect, answer)
    return found


def first_difference(directory: Path, answer: differential.Answer, *, start: int) -> int | None:
    """The seed that shows one, of many more than are compared when nothing is known to be wrong."""
    found = differential.Compared()
    for seed in range(start, start + ENOUGH):
        differential.compare(found, seed, directory, "sqlite", answer)
        if found.wrong:
            return seed
    return None


def test_sqlite_lets_through_what_the_engine_allows(tmp_path: Path) -> None:
    with differential.sqlite() as answer:
        found = differences(tmp_path, "sqlite", answer)
    assert found.wrong == []
    assert found.decisions > 3000
    assert found.allowed > 200


def test_postgres_lets_through_what_the_engine_allows(tmp_path: Path, database: str) -> None:
    with differential.postgres(database) as answer:
        found = differences(tmp_path, "postgres", answer)
    assert found.wrong == []
    assert found.decisions > 3000


# --- the comparison can fail: planted faults -------------------------------------------------

_SQL, _VALUES = pushdown_sql._Writer, pushdown_values
FAULTS: dict[str, tuple[object, str, str, str]] = {
    "an error counts as false": (_SQL, "rails", "return _NEITHER if self.truths[at] is None", "return (False, True) if self.truths[at] is None"),
    "not is SQL's": (_SQL, "rails", "return false, true", "return f'NOT ({true})', true"),
    "and forgets its left side's error": (_SQL, "rails", "some(false, every(true, other))", "some(false, other)"),
    "or forgets its left side's error": (_SQL, "rails", "some(true, every(false, also))", "some(true, also)"),
    "an erring permit beside a good one": (_SQL, "whole", "others.append(some(true, false))", "pass"),
    "a forbid that errs is passed over": (_SQL, "whole", "others.append(false)", "others.append(f'NOT coalesce({pushdown_sql_text(true)}, FALSE)')"),
    "unknown people may be named": (_SQL, "_fits", 'self._exists_user(name) if column.kind == "User" else True', "True"),
    "what must be there may be missing": (_SQL, "_readable", 'if column.required', 'if False'),
    "in is not reflexive": (_SQL, "_linked", "reflexive = low.kind == kind", "reflexive = False"),
    "the hierarchy upside down": (_SQL, "_linked", "closure.above)} = {above}", "closure.below)} = {above}"),
    "less is less or equal": (_SQL, "_ordered", "{sides[0]} {sign} {sides[1]}", "{sides[0]} <= {sides[1]}"),
    "contrary of less": (_SQL, "_ordered", 'contrary = ">=" if sign == "<" else ">"', 'contrary = ">"'),
    "text folds case": (_SQL, "_exact", "COLLATE BINARY", "COLLATE NOCASE"),
    "text loses blanks": (_SQL, "_exact", "COLLATE BINARY", "COLLATE RTRIM"),
    "patterns fold case": (_SQL, "_like", '("GLOB", "")', '("LIKE", "")'),
    "another tenant's person of that id": (pushdown_sql, "local_id", "own == tenant and local", "local"),
    "has is always true": (_SQL, "_leaf", "{found.sql} IS NULL", "{found.sql} IS NOT NULL"),
    "overflow wraps": (_VALUES, "_bounded", 'raise Missing("overflow")', "number %= 2**63"),
    "the caller's own position only": (pushdown_sql, "ancestors", "if parent not in found:", "if False:"),
}  # fmt: skip


RARE = {"and forgets its left side's error": 1150, "or forgets its left side's error": 1850, "patterns fold case": 850}
"""Where to begin, for what few policies show: from 0 they are found too, in a minute or two."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, right, wrong = FAULTS[fault]
    made = _changed(owner, name, right, wrong)
    monkeypatch.setattr(owner, name, made)
    with differential.sqlite() as answer:
        seed = first_difference(tmp_path, answer, start=RARE.get(fault, 0))
    assert seed is not None


def _changed(owner: object, name: str, right: str, wrong: str) -> Callable[..., object]:
    """The function with a piece of its text exchanged."""
    function = getattr(owner, name)
    text = inspect.cleandoc("\n" + inspect.getsource(function))
    assert right in text, f"{right} is not in {name} any more"
    space = dict(function.__globals__)
    space["pushdown_sql_text"] = pushdown_rails.text_of
    exec(compile(text.replace(right, wrong), f"<{name}, changed>", "exec"), space)
    made: Callable[..., object] = space[name]
    return made


# --- what has no predicate is refused when it is loaded --------------------------------------


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ("resource.level + 1 > 5", "`\\+` on what the row holds"),
        ("resource has team && resource.team in Group::\"acme/hr\"", "go by a person's"),
        ("User::\"acme/ann\" in resource.subject", "of something other than the caller's own"),
        ("[resource.subject].contains(principal)", "contains"),
        ("resource.subject.active", "attribute `active` of User: no column is mapped"),
        ("resource.subject has position && resource.subject.position.tenant == principal.tenant", "attributes of Position"),
        ("(if principal.active then resource.subject else principal) == principal", "if-then-else"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_in_sql_is_refused_by_name(condition: str, what: str, tmp_path: Path) -> None:
    engine = house.loaded(
        tmp_path,
        f'@id("odd") @doc("d") permit (principal, action == Action::"read", resource is Review) when {{ {condition} }};',
    )
    assert engine is not None
    with pytest.raises(PolicyInvalid, match=f"policy `odd` cannot be asked of Review in SQL.*{what}"):
        engine.scope("read", "Review", house.LAYOUT, "sqlite")


def test_a_hierarchy_without_a_table_is_refused(tmp_path: Path) -> None:
    engine = own(tmp_path, 'resource.subject in Group::"acme/hr"')
    bare = replace(house.LAYOUT, closures={})
    with pytest.raises(PolicyInvalid, match="`in` of User and Group, whose hierarchy has no table"):
        engine.scope("read", "Review", bare, "sqlite")


def test_rows_that_name_people_need_a_table_of_people(tmp_path: Path) -> None:
    alone = replace(house.LAYOUT, tables={"Review": house.LAYOUT.tables["Review"]})
    with pytest.raises(PolicyInvalid, match="whose table is not mapped"):
        own(tmp_path, "resource.subject == principal").scope("read", "Review", alone, "sqlite")


# --- the text --------------------------------------------------------------------------------


def own(directory: Path, condition: str) -> CedarEngine:
    engine = house.loaded(
        directory,
        f'@id("own") @doc("d") permit (principal, action == Action::"read", resource is Review) when {{ {condition} }};',
    )
    assert engine is not None
    return engine


def test_values_are_bound_and_never_text(tmp_path: Path) -> None:
    engine = own(tmp_path, 'resource.subject == principal && resource.status == "it\'s; DROP TABLE reviews"')
    world = house.World(house.random.Random(1))
    for person in house.people_of(world):
        made = house.predicate(engine, person, "sqlite")
        assert "DROP" not in made.sql
        assert person.ref.id.partition("/")[2] in made.parameters.values()
        assert "o'x" not in made.sql


def test_a_rule_on_the_caller_alone_costs_the_database_nothing(tmp_path: Path) -> None:
    engine = own(tmp_path, 'principal in Group::"acme/hr" && resource.level > 3')
    world = house.World(house.random.Random(1))
    texts = {person.ref.id: house.predicate(engine, person, "sqlite").sql for person in house.people_of(world)}
    inside = {id_ for id_, text in texts.items() if "level" in text.partition("typeof")[0]}
    members = {
        f"{tenant}/{id_}" for tenant, id_, group in world.tables["memberships"] if (tenant, group) == ("acme", "hr")
    }
    assert inside == members
    assert all(texts[id_] == "1 = 0" for id_ in texts.keys() - members)


def test_a_text_is_made_once_for_all_who_fold_alike(tmp_path: Path) -> None:
    engine = own(tmp_path, "resource.subject == principal")
    scope = engine.scope("read", "Review", house.LAYOUT, "sqlite")
    world = house.World(house.random.Random(1))
    asked = [
        house.questions.about_tool(each, house.caller(each), house.TOOL, house.NOW) for each in house.people_of(world)
    ]
    texts = {
        engine.predicate(scope, question).sql for question in asked if not question.principal.id.endswith(("7", "07"))
    }
    assert len(texts) == 1
