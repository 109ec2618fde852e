"""Whether streams of security events live: verification events are asked for, and silence is said loudly, once.

A stream that tells nothing cannot be told from one about which there is nothing to tell, unless it is asked (SSF 1.0,
verification). Must not refuse anybody (directory_heard.py).

Trust: the answer to being asked is a SET like any other; that the transmitter says it would answer counts for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import orjson

from onbehalf.config_signals import VerificationSettings
from onbehalf.doors.outbound_http import HttpClient, HttpFailed
from onbehalf.doors.signals_stream import Around, SignalStream, settle
from onbehalf.errors import SignalsUnavailable
from onbehalf.model import Json

__all__ = ["Asking", "Settling", "Working", "cancelled", "watch"]

_log = logging.getLogger(__name__)
_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_SETTLE_SECONDS = 15.0


class Working(Protocol):
    """What is at work for streams until it is cancelled. `problem` says why it does not work, "" if it does."""

    @property
    def name(self) -> str: ...
    @property
    def problem(self) -> str: ...
    async def run(self) -> None: ...
    async def aclose(self) -> None: ...


class Asking:
    """Asks for verification events of one stream until it is cancelled."""

    def __init__(self, stream: SignalStream, settings: VerificationSettings, *, secret: str) -> None:
        self.name = f"signals {stream.settings.name}: verification"
        self.problem = ""
        self._stream = stream
        self._settings = settings
        self._secret = secret
        self._client = HttpClient(settings.url, seconds=_SECONDS)

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self._ask()
            await asyncio.sleep(self._settings.every_seconds)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _ask(self) -> None:
        state, problem = secrets.token_urlsafe(24), ""
        try:
            await self._stream.ask(state)
            headers = (("authorization", f"Bearer {self._secret}"), ("content-type", "application/json"))
            body = orjson.dumps({"stream_id": self._settings.stream, "state": state})
            with contextlib.closing(await self._client.send("POST", headers, body)) as reply:
                if reply.status not in (200, 202, 204):
                    problem = f"it answers with HTTP status {reply.status}"
        except (HttpFailed, ValueError):
            problem = "it cannot be reached, or does not answer in time"
        except SignalsUnavailable as error:
            problem = error.message
        if problem and problem != self.problem:
            _log.error("the stream `%s` cannot be asked to verify: %s", self._stream.settings.name, problem)
        self.problem = problem


class Settling:
    """Puts on record, now and then, what another gateway took and did not live to put there."""

    def __init__(self, around: Around) -> None:
        self.name = "signals: what is not on record"
        self.problem = ""
        self._around = around

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(_SETTLE_SECONDS)
            try:
                await settle(self._around)
                self.problem = ""
            except SignalsUnavailable as error:
                self.problem = error.message

    async def aclose(self) -> None:
        """It holds nothing."""


async def watch(
    streams: Sequence[SignalStream], working: Sequence[Working], note: Callable[[str, dict[str, Json]], None],
    problems: dict[str, str],
) -> None:  # fmt: skip
    """Say of each stream when it falls silent, and when it is heard again. Never ends; `note` never fails. `problems`
    has, at any time, a sentence for all that does not work."""
    silent: set[str] = set()
    while True:
        for stream in streams:
            name, over = stream.settings.name, stream.silent_for()
            if over and name not in silent:
                silent.add(name)
                problems[f"signals {name}"] = "nothing was heard for too long"
                refused = "; calls of its tenants are refused" if stream.settings.required else ""
                _log.error("nothing was heard of stream `%s` for too long%s", name, refused)
                note("signals_silent", _facts(stream))
            elif not over and name in silent:
                silent.discard(name)
                problems.pop(f"signals {name}", None)
                _log.warning("the stream `%s` is heard again", name)
                note("signals_heard", _facts(stream))
        for each in working:
            problems.pop(each.name, None)
            if each.problem:
                problems[each.name] = each.problem
        await asyncio.sleep(_LOOK_SECONDS)


def _facts(stream: SignalStream) -> dict[str, Json]:
    facts: Mapping[str, Json] = {
        "stream": stream.settings.name, "issuer": stream.settings.issuer, "heard": stream.last_heard(),
        "required": stream.settings.required,
    }  # fmt: skip
    return dict(facts)


async def cancelled(task: asyncio.Task[None]) -> None:
    """End a task, and wait until it is."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
