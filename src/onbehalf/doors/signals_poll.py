"""Security events that are fetched (RFC 8936): asked for again and again, each acknowledged when it is on disk.

A transmitter may hold a request open until there is something to tell. What could not be taken is neither acknowledged
nor refused, and so comes again. After a failure the next request waits, twice as long each time, up to a minute. Must
not know what is in a SET.

Trust: what answers at the URL can keep events from us (signals_watch.py says so) and costs at most `_ANSWER_BYTES` a
request; to stop anybody takes a key of the stream's issuer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping

import orjson

from onbehalf.config_signals import PollSettings
from onbehalf.doors.outbound_http import HttpClient, HttpFailed, Reply
from onbehalf.doors.signals_refusal import err_of
from onbehalf.doors.signals_stream import SignalStream
from onbehalf.errors import IdentifyError, OnbehalfError
from onbehalf.model import Json, digest
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["PollFailed", "Poller"]

_log = logging.getLogger(__name__)
_AT_ONCE = 32
_ANSWER_BYTES = 2 * 2**20
_DEPTH = 8
_MAX_ID = 255
_GRACE_SECONDS = 10.0
_FIRST_WAIT, _LAST_WAIT = 1.0, 60.0


class PollFailed(Exception):
    """There was no usable answer. The message is a clause for a person."""


class Poller:
    """Fetches one stream until it is cancelled. `problem` says why that does not work, "" if it does."""

    def __init__(self, stream: SignalStream, settings: PollSettings, *, secret: str) -> None:
        self.name = f"signals {stream.settings.name}: fetching"
        self.problem = ""
        self._stream = stream
        self._settings = settings
        self._secret = secret
        self._client = HttpClient(settings.url, seconds=settings.wait_seconds + _GRACE_SECONDS)
        self._acks: list[str] = []
        self._errors: dict[str, Json] = {}
        self._left = False

    async def run(self) -> None:
        """Ask for ever."""
        wait = _FIRST_WAIT
        while True:
            try:
                pause = await self._round()
                if self.problem:
                    _log.info("the stream `%s` answers again", self._stream.settings.name)
                self.problem, wait = "", _FIRST_WAIT
            except Exception as error:  # a door's loop: what nobody foresaw of one answer must not end it
                self._failed(error)
                pause = wait * random.uniform(0.75, 1.25)  # noqa: S311  # so that many gateways do not ask at once
                wait = min(_LAST_WAIT, wait * 2)
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _failed(self, error: Exception) -> None:
        if isinstance(error, PollFailed):
            said = str(error)
        else:
            said = f"its answer cannot be taken: {type(error).__name__}"
            _log.exception("the stream `%s` cannot be taken", self._stream.settings.name)
        if said != self.problem:
            _log.error("the stream `%s` cannot be fetched: %s", self._stream.settings.name, said)
        self.problem = said

    async def _round(self) -> float:
        """One request, and what it brought taken. How long to wait before the next, in seconds."""
        began = asyncio.get_running_loop().time()
        sets = await self._asked()
        await self._stream.heard()
        self._left = False
        new = [await self._one(id_, token) for id_, token in list(sets.items())[:_AT_ONCE]]
        if self._left:
            raise PollFailed("an event cannot be taken now")
        held = asyncio.get_running_loop().time() - began >= self._settings.pause_seconds
        # what was taken is acknowledged at once, and an answer that was held open is asked for again at once; but who
        # tells the same again and again, or says that there is more and tells nothing, is not asked without end
        return 0.0 if any(new) or held else self._settings.pause_seconds

    async def _one(self, id_: str, token: Json) -> bool:
        """Take one; whether it is new. Nothing is acknowledged before it is on disk; `_left` is that it is to come
        again."""
        new = False
        try:
            new = await self._stream.take(token if isinstance(token, str) else "", id_)
        except OnbehalfError as error:
            _log.warning("an event was refused with %s: %r", error.code, error.message)
            if not isinstance(error, IdentifyError) or error.status >= 500:
                self._left = True
                return False
            self._errors[id_] = {"err": err_of(error), "description": error.message}
            await self._stream.refused(error.code, digest(str(token).encode()))
        else:
            self._acks.append(id_)
        return new

    async def _asked(self) -> Mapping[str, Json]:
        """Tell what became of the last ones, and ask for more. Raises PollFailed, and then both are told again."""
        acks, errors = [*self._acks], dict(self._errors)
        body: dict[str, Json] = {"maxEvents": _AT_ONCE, "returnImmediately": False}
        if acks:
            body["ack"] = [*acks]
        if errors:
            body["setErrs"] = errors
        document = await self._posted(orjson.dumps(body))
        self._acks = [each for each in self._acks if each not in acks]
        self._errors = {id_: each for id_, each in self._errors.items() if id_ not in errors}
        try:
            told = strict_object(document, depth=_DEPTH)
        except NotStrict as error:
            raise PollFailed(f"its answer is refused: {error}") from error
        sets = told.get("sets")
        if not isinstance(sets, dict) or not all(1 <= len(id_) <= _MAX_ID for id_ in sets):
            raise PollFailed("its answer has no `sets` (RFC 8936 section 2.3)")
        return sets

    async def _posted(self, body: bytes) -> bytes:
        headers = (
            ("authorization", f"Bearer {self._secret}"), ("content-type", "application/json"),
            ("accept", "application/json"),
        )  # fmt: skip
        try:
            with contextlib.closing(await self._client.send("POST", headers, body)) as reply:
                return await _answered(reply)
        except HttpFailed as error:
            raise PollFailed("it cannot be reached, or does not answer in time") from error
        except ValueError as error:  # a header that the client refuses
            raise PollFailed("the request cannot be sent") from error


async def _answered(reply: Reply) -> bytes:
    if reply.status != 200:
        raise PollFailed(f"it answers with HTTP status {reply.status}")
    if reply.headers.get("content-encoding", "identity") != "identity":
        raise PollFailed("its answer came packed, which nobody asked for")
    body = await reply.whole(_ANSWER_BYTES)
    if body is None:
        raise PollFailed(f"its answer is larger than {_ANSWER_BYTES} bytes")
    return body
