"""A body as its parts arrive: what is there is read without a clock, what is not is bounded in time and size."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import MutableMapping, Sequence
from typing import Any
from unittest.mock import patch

import pytest

from onbehalf.config import Limits
from onbehalf.doors.inbound_body import read
from onbehalf.doors.inbound_wire import ClientGone
from onbehalf.errors import BodyTooLarge, BodyTooSlow

LIMITS = Limits(body_seconds=0.1, body_bytes=10)


class Sender:
    """Sends each part after so many turns of the loop, and then nothing, as a server hands it on: from what it keeps,
    so that who stops waiting has taken nothing."""

    def __init__(self, *parts: tuple[int, bytes], end: bool = True, gone: bool = False) -> None:
        self._parts = list(parts)
        self._end = end
        self._gone = gone
        self.waits = 0

    async def receive(self) -> MutableMapping[str, Any]:
        if not self._parts:
            if self._gone:
                return {"type": "http.disconnect"}
            await asyncio.sleep(30)
        self.waits += 1
        turns, _ = self._parts[0]
        for _ in range(turns):
            await asyncio.sleep(0)
        _, part = self._parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self._parts) or not self._end}


def body(sender: Sender, declared: int | None = None) -> tuple[bytes, int]:
    """What is read, and how many timers that took."""
    headers = {} if declared is None else {b"content-length": b"%d" % declared}
    loop = asyncio.SelectorEventLoop()
    try:
        with patch.object(loop, "call_at", wraps=loop.call_at) as timers:
            return loop.run_until_complete(read(sender.receive, headers, LIMITS)), timers.call_count
    finally:
        loop.close()


def test_a_body_that_is_there_is_read_without_a_timer() -> None:
    assert body(Sender((0, b"0123456789")), 10) == (b"0123456789", 0)


@pytest.mark.parametrize("turns", list(itertools.product((0, 1, 3), repeat=3)))
def test_a_body_is_the_same_however_it_arrives(turns: Sequence[int]) -> None:
    parts = zip(turns, (b"01", b"234", b"5"), strict=True)
    assert body(Sender(*parts)) == (b"012345", 1)


@pytest.mark.parametrize("turns", [0, 1])
def test_a_part_that_waits_is_asked_for_once_more_and_taken_once(turns: int) -> None:
    sender = Sender((turns, b"0123"))
    assert body(sender) == (b"0123", turns)
    assert sender.waits == 1 + turns


@pytest.mark.parametrize(
    "parts", [[], [(0, b"0")], [(1, b"0")], [(0, b"0"), (2, b"1")], [(2, b"0"), (0, b"1"), (2, b"2")]]
)
def test_a_body_that_does_not_end_is_too_slow(parts: list[tuple[int, bytes]]) -> None:
    with pytest.raises(BodyTooSlow, match=r"within 0\.1 s"):
        body(Sender(*parts, end=False))


def test_a_body_that_trickles_is_too_slow_though_each_part_is_quick() -> None:
    async def run() -> None:
        async def receive() -> MutableMapping[str, Any]:
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"", "more_body": True}

        await read(receive, {}, LIMITS)

    with pytest.raises(BodyTooSlow):
        asyncio.run(run())


@pytest.mark.parametrize(
    "parts", [[(0, b"0" * 11)], [(1, b"0" * 11)], [(0, b"0" * 6), (0, b"0" * 5)], [(0, b"0" * 6), (1, b"0" * 5)]]
)
@pytest.mark.parametrize("end", [True, False])
def test_a_body_beyond_the_bound_is_refused_with_the_byte_that_is_too_many(
    parts: list[tuple[int, bytes]], end: bool
) -> None:
    with pytest.raises(BodyTooLarge):
        body(Sender(*parts, end=end))


@pytest.mark.parametrize("parts", [[], [(0, b"0")], [(1, b"0")]])
def test_a_client_that_goes_before_the_end_has_sent_nothing(parts: list[tuple[int, bytes]]) -> None:
    with pytest.raises(ClientGone):
        body(Sender(*parts, end=False, gone=True))


def test_a_cancellation_while_a_body_is_waited_for_is_one() -> None:
    async def run() -> None:
        task = asyncio.create_task(read(Sender(end=False).receive, {}, Limits(body_seconds=30)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
