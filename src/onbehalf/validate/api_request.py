"""A request out of an operation and its arguments: each value at its place, spelled so that it cannot leave it.

Pure. Must not know a server, a token, or whether the call is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import quote, unquote

from onbehalf.model import Json, canonical
from onbehalf.validate.api import Operation, Parameter

__all__ = ["Request", "Unsendable", "request_of", "spelled"]

_Escape: TypeAlias = Callable[[str, str], str]
_MAX_TARGET = 16 * 1024
_MAX_HEADER = 4096
_UNESCAPES = 8
_VISIBLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class Unsendable(ValueError):
    """An argument cannot stand at its place. The message names the argument and never its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`target` is path and query below the server's URL, in visible ASCII; `body` is JSON, or None for no body."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes | None = field(repr=False)


def request_of(operation: Operation, arguments: Mapping[str, Json]) -> Request:
    """The request. Every argument is sent or the request is refused: none is dropped. Raises Unsendable.

    A path value is refused where a server could read more than one segment in it, even one that decodes twice.
    """
    by_name = {each.name: each for each in operation.parameters}
    for name in arguments:
        if name not in by_name:
            raise Unsendable(f"there is no parameter `{name[:64]}`")
    given = [(each, arguments[each.name]) for each in operation.parameters if each.name in arguments]
    for each in operation.parameters:
        if each.required and each.name not in arguments and (each.place != "body" or operation.body_required):
            raise Unsendable(f"`{each.name}` is missing")
    target = _path(operation, given)
    pairs = [pair for each, value in given if each.place == "query" for pair in _query(each, value)]
    if pairs:
        target += "?" + "&".join(pairs)
    if len(target) > _MAX_TARGET:
        raise Unsendable("the arguments in path and query are too long")
    headers = tuple((each.name, _header(each, value)) for each, value in given if each.place == "header")
    return Request(method=operation.method, target=target, headers=headers, body=_body(operation, given))


def spelled(each: Parameter, value: Json) -> str:
    """What stands for this value at a parameter's place in query, header or body. Raises Unsendable."""
    if each.place == "query":
        return "&".join(_query(each, value))
    return _header(each, value) if each.place == "header" else canonical([value]).decode()[1:-1]


def _path(operation: Operation, given: list[tuple[Parameter, Json]]) -> str:
    values = {each.name: _listed(each, value, _segment) for each, value in given if each.place == "path"}
    path = re.sub(r"\{([^{}/]+)\}", lambda found: values[found[1]], operation.path)
    # two values side by side, or a value beside a dot, may make what none of them is
    if any(unquote(segment) in (".", "..") for segment in path.split("/")):
        raise Unsendable("the arguments in the path make a step up")
    return path


def _segment(name: str, text: str) -> str:
    seen = text
    for _ in range(_UNESCAPES):  # some servers decode, route, and decode again
        if not seen or seen in (".", "..") or "/" in seen or "\\" in seen or not seen.isprintable():
            raise Unsendable(f"`{name}` cannot stand in a path")
        seen, before = unquote(seen, errors="replace"), seen
        if seen == before:
            return quote(text, safe="")
    raise Unsendable(f"`{name}` cannot stand in a path")


def _query(each: Parameter, value: Json) -> list[str]:
    name = quote(each.name, safe="")
    if isinstance(value, list) and each.explode:
        if not value:  # a filter that is not sent would mean everything
            raise Unsendable(f"`{each.name}` is an empty list, which a query cannot say")
        return [f"{name}={_escaped(each.name, _spelled(each.name, one))}" for one in value]
    return [f"{name}={_listed(each, value, _escaped)}"]


def _escaped(name: str, text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise Unsendable(f"`{name}` is not UTF-8") from error


def _header(each: Parameter, value: Json) -> str:
    text = _listed(each, value, lambda _, one: one)
    if len(text) > _MAX_HEADER or _VISIBLE.fullmatch(text) is None:
        raise Unsendable(f"`{each.name}` cannot stand in a header")
    return text


def _listed(each: Parameter, value: Json, escape: _Escape) -> str:
    """One value, or a list with commas, in which no value may hold one. An empty list has no spelling."""
    if not isinstance(value, list):
        return escape(each.name, _spelled(each.name, value))
    texts = [_spelled(each.name, one) for one in value]
    if not texts or any(not text or "," in text for text in texts):
        raise Unsendable(f"`{each.name}` is a list that commas cannot part")
    return ",".join(escape(each.name, text) for text in texts)


def _spelled(name: str, value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return canonical([value]).decode()[1:-1]
    raise Unsendable(f"`{name}` is no text, number or truth value")


def _body(operation: Operation, given: list[tuple[Parameter, Json]]) -> bytes | None:
    for each, value in given:
        if each.place == "whole":
            return canonical([value])[1:-1]
    members = {each.name: value for each, value in given if each.place == "body"}
    return canonical(members) if members or operation.body_required else None
