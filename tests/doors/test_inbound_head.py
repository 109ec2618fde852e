"""How an answer leaves: its head with its body, and never later than the app said."""

from __future__ import annotations

import asyncio
from typing import cast

from onbehalf.doors.inbound_head import JoinedWrites


class Wire:
    """Stands for a transport: what was written, each time."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.written.append(b"<closed>")

    def is_closing(self) -> bool:
        return False


def joined(wire: Wire) -> JoinedWrites:
    return JoinedWrites(cast("asyncio.Transport", wire), asyncio.get_running_loop())


def test_a_head_leaves_with_the_first_of_its_body_as_one() -> None:
    async def answer() -> list[bytes]:
        wire = Wire()
        out = joined(wire)
        for piece in (b"head ", b"body ", b"more"):
            out.write(piece)
        await asyncio.sleep(0)
        return wire.written

    assert asyncio.run(answer()) == [b"head body ", b"more"]


def test_a_head_without_a_body_does_not_wait_for_one() -> None:
    async def answer() -> list[bytes]:
        wire = Wire()
        out = joined(wire)
        out.write(b"head")
        await asyncio.sleep(0)
        out.write(b"event")
        return wire.written

    assert asyncio.run(answer()) == [b"head", b"event"]


def test_closing_lets_the_head_out_first() -> None:
    async def answer() -> list[bytes]:
        wire = Wire()
        out = joined(wire)
        out.write(b"head")
        out.close()
        await asyncio.sleep(0)
        return wire.written

    assert asyncio.run(answer()) == [b"head", b"<closed>"]
