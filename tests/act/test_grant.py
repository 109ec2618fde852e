"""A grant is one right for one recorded call, and made in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest

import onbehalf
from act.granted import AUDIENCE, NOW, allowed, receipt
from onbehalf import model
from onbehalf.act import LIFE_S, grant
from onbehalf.errors import ActError
from onbehalf.model import UnixTime

SOURCE = Path(onbehalf.__file__).parent
HOMES = {
    "Caller": "identify/verify.py",
    "ToolCall": "validate/route.py",
    "Allow": "validate/decide.py",
    "Deny": "validate/decide.py",
    "Grant": "act/grant.py",
}
_COPIERS = ("dataclasses", "msgspec.structs", "copy")
_STRUCTS = {name for name in HOMES if issubclass(getattr(model, name), msgspec.Struct)}
_COPYING = ("replace", "copy", "deepcopy", "force_setattr")


def test_a_grant_is_for_one_allowed_call_one_receipt_and_one_audience_for_half_a_minute() -> None:
    allow, proof = allowed(), receipt()
    made = grant(allow, proof, audience=AUDIENCE, now=NOW)
    assert (made.allow, made.receipt, made.audience) == (allow, proof, AUDIENCE)
    assert (made.issued_at, made.expires_at) == (NOW, UnixTime(NOW + 30))
    assert LIFE_S == 30


@pytest.mark.parametrize("audience", ["", " ", "\t\n"])
def test_a_grant_for_nobody_is_refused(audience: str) -> None:
    with pytest.raises(ActError, match="needs an audience"):
        grant(allowed(), receipt(), audience=audience, now=NOW)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _made_in(file: Path) -> list[tuple[str, int]]:
    """Which proven types a file constructs, under whatever name it imported them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {name: name for name in HOMES}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname and alias.name in HOMES}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(names[_name(call.func)], call.lineno) for call in calls if _name(call.func) in names]


def _remade_in(file: Path) -> list[int]:
    """Lines where a file that speaks of a proven type calls `replace` or the like, which could remake one."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    spoken = {_name(node) for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)} & set(HOMES)
    if not spoken:
        return []
    holders = {"dataclasses", "copy", "object"} | ({"structs"} if spoken & _STRUCTS else set())
    makers = {"replace"} | {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in _COPIERS
        for alias in node.names
        if alias.asname
    }
    imported = any(
        isinstance(node, ast.ImportFrom) and node.module in _COPIERS
        and any(alias.name in _COPYING for alias in node.names)
        for node in ast.walk(tree)
    )  # fmt: skip
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            (imported and isinstance(node.func, ast.Name) and node.func.id in makers)
            or (
                (isinstance(node.func, ast.Attribute) and _name(node.func.value) in holders)
                and node.func.attr in (*_COPYING, "__new__", "__setattr__")
            )
        )
    ]


FILES = sorted(SOURCE.rglob("*.py"))


def test_each_proven_type_is_constructed_in_its_one_file_only() -> None:
    strays = [
        f"{file.relative_to(SOURCE)}:{line} makes {name}, which {HOMES[name]} alone may"
        for file in FILES
        for name, line in _made_in(file)
        if file.relative_to(SOURCE).as_posix() != HOMES[name]
    ]
    assert strays == []


@pytest.mark.parametrize("name", [name for name in HOMES if (SOURCE / HOMES[name]).exists()])
def test_the_one_file_does_construct_its_type(name: str) -> None:
    assert name in {made for made, _ in _made_in(SOURCE / HOMES[name])}


def test_no_file_remakes_a_proven_value_by_copying_it_with_changes() -> None:
    strays = [
        f"{file.relative_to(SOURCE)}:{line} may remake a proven value"
        for file in FILES
        if file.relative_to(SOURCE).as_posix() not in HOMES.values()
        for line in _remade_in(file)
    ]
    assert strays == []
