"""The house as clients meet it who watch the log: each answer carries the newest checkpoint, and may bring one back.

What a client brings is looked at later and elsewhere (ledger_seen.py): no answer waits for it, none depends on it. Must
not know how clients speak.

Trust: none in what is brought. Whoever has a token learns the log's size and root, and so how much is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onbehalf.errors import ParametersInvalid
from onbehalf.model import Caller, Json, Presented, Reply, Tool, ToolRequest
from onbehalf.ports import House

__all__ = ["CHECKPOINT", "Watched", "brought"]

CHECKPOINT = "onbehalf/checkpoint"
"""In `_meta`: of an answer, the newest head that the log signed; of a request, one that the client was given before."""
_MAX_NOTE = 8192


class Watched:
    """A House whose answers carry the newest checkpoint. `newest` is asked once an answer; "" for none."""

    def __init__(self, house: House, *, newest: Callable[[], str], offer: Callable[[str], None]) -> None:
        """`offer` takes what clients bring back; it must not block or raise."""
        self._house = house
        self._newest = newest
        self._offer = offer

    async def call(self, presented: Presented, request: ToolRequest) -> Reply:
        """As the House. Only what comes with a proven token is looked at."""
        reply = await self._house.call(presented, request)
        if request.seen:
            self._offer(request.seen)
        note, meta = self._newest(), reply.content.get("_meta")
        if not note or not isinstance(meta, dict):
            return reply
        content = {**reply.content, "_meta": {**meta, CHECKPOINT: note}}
        return Reply(
            call=reply.call, content=content, receipt=reply.receipt, denial=reply.denial, waiting=reply.waiting
        )

    async def tools(self, presented: Presented) -> Sequence[Tool]:
        """As the House."""
        return await self._house.tools(presented)

    async def who(self, presented: Presented) -> Caller:
        """As the House."""
        return await self._house.who(presented)


def brought(meta: Mapping[str, Json]) -> str:
    """The checkpoint that a client brings back; "" for none. Raises ParametersInvalid for what cannot be one."""
    note = meta.get(CHECKPOINT)
    if note is None:
        return ""
    if not isinstance(note, str) or not 0 < len(note) <= _MAX_NOTE:
        raise ParametersInvalid(
            f"`_meta.{CHECKPOINT}` is no checkpoint", hint=f"send what an answer had there, at most {_MAX_NOTE} letters"
        )
    return note
