"""A request body as one bounded JSON value: size, time, depth, and one meaning only.

Every reader of the same bytes must see the same value, so duplicate members, a byte order mark and invalid
UTF-8 are refused, and depth is bounded before a parser recurses. Must not know what the value is for.

Trust: whoever can send bytes here can cost 64 KiB of memory and `body_seconds` of one slot, and
up to `body_bytes` once proven.
"""

from __future__ import annotations

import asyncio
import re

import orjson

from onbehalf.config import Limits
from onbehalf.doors.inbound_wire import ClientGone, Receive
from onbehalf.errors import BodyMalformed, BodyTooLarge, BodyTooSlow
from onbehalf.model import Json

__all__ = ["is_small", "parse", "read"]

# Possessive, and `\Z` ends an unterminated string, so that no byte is looked at twice (ReDoS).
_STRING = re.compile(rb'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b"[]{}")
_OPENING = b"[{"
_SMALL_BYTES = 64 * 1024


def is_small(headers: dict[bytes, bytes]) -> bool:
    """Whether a body is declared so short that it may be read before its sender is proven."""
    declared = headers.get(b"content-length", b"")
    return declared.isdigit() and len(declared) <= 6 and int(declared) <= _SMALL_BYTES


async def read(receive: Receive, headers: dict[bytes, bytes], limits: Limits) -> bytes:
    """The whole body. Raises BodyTooLarge, BodyTooSlow, BodyMalformed, ClientGone."""
    declared = headers.get(b"content-length")
    if declared is not None:
        if not declared.isdigit():
            raise BodyMalformed("the Content-Length is not a number")
        if len(declared) > 18 or int(declared) > limits.body_bytes:
            raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _whole(receive, limits)
    except TimeoutError as error:
        raise BodyTooSlow(
            f"the body did not arrive within {limits.body_seconds:g} s", hint="send the whole body at once"
        ) from error


async def _whole(receive: Receive, limits: Limits) -> bytes:
    body = b""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body = message.get("body", b"")
        size += len(body)
        if size > limits.body_bytes:
            raise _too_large(limits)
        if not message.get("more_body", False):
            break
        parts.append(body)
    return b"".join((*parts, body)) if parts else body


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limits.body_bytes} bytes", hint="send less at once")


def parse(body: bytes, *, depth: int) -> Json:
    """The one value that `body` is. Raises BodyMalformed.

    Refuses nesting beyond `depth`, a member name that stands twice in one object, a byte order mark,
    invalid UTF-8, lone surrogates, NaN, infinities and numbers that overflow.
    """
    bare = _STRING.sub(b"", body)
    _bound_depth(bare, depth)
    try:
        value: Json = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyMalformed("the body is not one JSON value in UTF-8", hint="send valid JSON (RFC 8259)") from error
    # Outside of strings a colon stands once per member; a parser keeps one member per name.
    if bare.count(b":") != _members(value):
        raise BodyMalformed(
            "a member name stands twice in one object", hint="send each member once (RFC 8259 section 4)"
        )
    return value


def _bound_depth(bare: bytes, depth: int) -> None:
    level = 0
    for byte in bare.translate(None, _NOT_STRUCTURE):
        if byte in _OPENING:
            level += 1
            if level > depth:
                raise BodyMalformed(f"the body is nested deeper than {depth}", hint="send flatter arguments")
        else:
            level -= 1


def _members(value: Json) -> int:
    """How many members all objects within have. The value's depth is bounded already, its stack is explicit anyway."""
    count = 0
    stack: list[Json] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            count += len(node)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return count
