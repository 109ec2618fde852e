"""The body of one ASGI request: read whole, bounded in size and time, and given on. Must not look into it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from onbehalf.errors import BodyTooLarge, BodyTooSlow

if TYPE_CHECKING:  # what a backend runs needs nothing of it
    from starlette.types import Message, Receive

__all__ = ["BODY_SECONDS", "ClientGone", "read_body", "replayed"]

BODY_SECONDS = 10.0


class ClientGone(Exception):
    """The client went away; there is no one to answer."""


async def read_body(receive: Receive, *, most: int) -> bytes:
    """All of it, of at most `most` bytes within 10 s. Raises BodyTooLarge, BodyTooSlow, ClientGone."""
    parts: list[bytes] = []
    left = most
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                part = message.get("body", b"")
                left -= len(part)
                if left < 0:
                    raise BodyTooLarge(f"the body is longer than {most} bytes")
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError as error:
        raise BodyTooSlow(f"the body did not arrive within {BODY_SECONDS:g} s") from error


def replayed(body: bytes, receive: Receive) -> Receive:
    """The body once, and then whatever comes, such as that the client went away."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return next_message
