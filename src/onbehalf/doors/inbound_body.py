"""A request body as one bounded JSON value: size, time, depth, and one meaning only.

Every reader of the same bytes must see the same value, so duplicate members, a byte order mark and invalid
UTF-8 are refused, and depth is bounded before a parser recurses. Must not know what the value is for.

Trust: whoever can send bytes here can cost 64 KiB of memory and `body_seconds` of one slot, and
up to `body_bytes` once proven.
"""

from __future__ import annotations

import asyncio

from onbehalf.config import Limits
from onbehalf.doors.inbound_wire import ClientGone, Message, Receive
from onbehalf.errors import BodyMalformed, BodyTooLarge, BodyTooSlow
from onbehalf.model import Json
from onbehalf.strict_json import NotStrict, strict_json

__all__ = ["is_small", "parse", "read"]

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
    first = _at_once(receive)
    if first is not None and not first.get("more_body", False):
        return await _whole(receive, limits, first)  # there is nothing to wait for
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _whole(receive, limits, first)
    except TimeoutError as error:
        raise BodyTooSlow(
            f"the body did not arrive within {limits.body_seconds:g} s", hint="send the whole body at once"
        ) from error


def _at_once(receive: Receive) -> Message | None:
    """What has arrived already, None where it must be waited for. Most bodies come with their head, and need no clock.

    A `receive` that would wait is ended as by a cancellation, which it must bear (ASGI), and has taken nothing.
    """
    asked = receive().__await__()
    try:
        next(asked)
    except StopIteration as answered:
        found: Message = answered.value
        return found
    asked.close()
    return None


async def _whole(receive: Receive, limits: Limits, message: Message | None) -> bytes:
    """The body that begins with `message`, where that is not None."""
    body = b""
    parts: list[bytes] = []
    size = 0
    while True:
        if message is None:
            message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body = message.get("body", b"")
        size += len(body)
        if size > limits.body_bytes:
            raise _too_large(limits)
        if not message.get("more_body", False):
            return b"".join((*parts, body)) if parts else body
        parts.append(body)
        message = None


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limits.body_bytes} bytes", hint="send less at once")


def parse(body: bytes, *, depth: int) -> Json:
    """The one value that `body` is, as `strict_json` reads it. Raises BodyMalformed."""
    try:
        return strict_json(body, depth=depth)
    except NotStrict as error:
        raise BodyMalformed(
            f"the body is refused: {error}", hint="send one JSON value in UTF-8, each member once (RFC 8259)"
        ) from error
