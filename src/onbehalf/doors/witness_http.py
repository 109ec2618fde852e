"""One witness, asked on the event loop (C2SP tlog-witness): one request at a time, on a connection that is kept.

Must not say whose cosignatures are enough (witness_quorum.py), or keep one.

Trust: what a witness answers counts only as a signature that verifies with its key. One that says that it has seen
another history is believed at once, since to stop is safe: a witness can stop the gateway, never make it act.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from onbehalf.doors.outbound_http import ConnectFailed, DeadlinePassed, HttpClient, HttpFailed
from onbehalf.errors import ConfigInvalid, LedgerCorrupt
from onbehalf.explain.checkpoint import Head
from onbehalf.explain.cosignature import cosigned
from onbehalf.explain.quorum import WitnessAt

__all__ = ["Ahead", "Asking", "Disowned", "WitnessClient", "WitnessFailed", "address", "spelled"]

_MAX_ANSWER = 32_768
_TRIES = 4
_ADDRESS = re.compile(r"https://[^?#\s]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/[^?#\s]*)?")
_LINES = re.compile(r"(?:— [^ +\n]{1,1000} [A-Za-z0-9+/]{1,8000}={0,2}\n){1,16}")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,17})\n")


class WitnessFailed(Exception):
    """It did not cosign, and may another time."""


class Disowned(Exception):
    """It says that the log is no continuation of what it saw."""


class Ahead(Exception):
    """It cosigned a head of `size` leaves, which is more than it was asked about."""

    def __init__(self, size: int) -> None:
        super().__init__(f"it has seen {size} leaves")
        self.size = size


class Asking(Protocol):
    """A witness as the quorum asks it."""

    async def ask(self, head: Head) -> tuple[int, str]:
        """When it cosigned the head, and its line. Raises WitnessFailed, Disowned, Ahead."""
        ...

    async def aclose(self) -> None: ...


class WitnessClient:
    """One witness. Used on one event loop, and by one caller at a time."""

    def __init__(self, witness: WitnessAt, *, seconds: float, proof: Callable[[int, int], Sequence[bytes]]) -> None:
        """`proof` blocks, and runs in a thread. Raises ConfigInvalid for an address that is none."""
        self._key = witness.key
        self._client = HttpClient(address(witness.url), seconds=seconds)
        self._proof = proof
        self._known = 0
        """The size that it cosigned last, as far as we know."""

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(self, head: Head) -> tuple[int, str]:
        """When it cosigned the head, and its line. Raises WitnessFailed, Disowned, Ahead."""
        old = min(self._known, head.size)
        for _ in range(_TRIES):
            steps = await asyncio.to_thread(self._proof, old, head.size) if 0 < old < head.size else ()
            status, body = await self._answer(spelled(old, steps, head.note))
            if status == 200:
                return self._taken(head, body)
            if status == 422:
                raise Disowned("it says that this log is no continuation of what it saw (422)")
            said = _SIZE.fullmatch(body) if status == 409 else None
            if said is None:
                raise WitnessFailed(f"it answered {status}")
            old = self._known = int(said[1])
            if old > head.size:
                raise Ahead(old)
        raise WitnessFailed("it names another size each time")

    def _taken(self, head: Head, body: bytes) -> tuple[int, str]:
        lines = body.decode("utf-8", "replace")
        if not _LINES.fullmatch(lines):
            raise WitnessFailed("its answer is no signature")
        try:
            found = cosigned(head.note + lines, self._key, head.checkpoint)
        except LedgerCorrupt as error:
            raise WitnessFailed(error.message) from error
        if found is None:
            raise WitnessFailed("it signed with another key than the policy's")
        self._known = head.size
        return found

    async def _answer(self, request: bytes) -> tuple[int, bytes]:
        """One exchange; once more where a kept connection was lost, as what was cosigned may be asked for again."""
        try:
            try:
                return await self._once(request)
            except (ConnectFailed, DeadlinePassed):
                raise
            except HttpFailed:
                return await self._once(request)
        except HttpFailed as error:
            raise WitnessFailed(f"it cannot be asked: {error}") from error

    async def _once(self, request: bytes) -> tuple[int, bytes]:
        reply = await self._client.send("POST", (("content-type", "text/plain; charset=utf-8"),), request)
        try:
            body = await reply.whole(_MAX_ANSWER)
            if body is None:
                raise WitnessFailed("its answer is too long")
            return reply.status, body
        finally:
            reply.close()


def address(url: str) -> str:
    """Where `add-checkpoint` of a witness is. Raises ConfigInvalid where that is not https, or http on loopback."""
    if not _ADDRESS.fullmatch(url):
        raise ConfigInvalid(f"the witness `{url}` is not https", hint="use https; only loopback may be http")
    return f"{url.rstrip('/')}/add-checkpoint"


def spelled(old: int, steps: Sequence[bytes], note: str) -> bytes:
    """The request: the size that was cosigned last, the proof from there, the head."""
    hashes = "".join(f"{base64.b64encode(step).decode()}\n" for step in steps)
    return f"old {old}\n{hashes}\n{note}".encode()
