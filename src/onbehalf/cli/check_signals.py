"""The part of `onbehalf check` about security events: can each stream's keys be had, and when was it last heard.

Nothing is fetched from a stream: what is asked for there is the running gateway's. Must not print.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Literal

from onbehalf.build_signals import push_secrets
from onbehalf.build_state import shared_revocations
from onbehalf.config import Settings
from onbehalf.config_signals import StreamSettings
from onbehalf.doors.clock_system import now
from onbehalf.doors.issuer_keys import IssuerKeys
from onbehalf.doors.revocations_signalled import StreamTold, streams_told
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.signals_keys import StreamFetcher, rule_of
from onbehalf.errors import ConfigInvalid

__all__ = ["Said", "said_of_streams"]

Said = tuple[Literal["ok", "warning", "problem"], str, str, str]
"""How bad, about what, what, and what to do."""


async def said_of_streams(settings: Settings, *, base: Path, revocations: Path) -> AsyncIterator[Said]:
    """Everything to be said. `base` is where references start. Raises ConfigInvalid."""
    push_secrets(settings.signals, base=base)
    if not settings.signals:
        return
    told = _told(settings, base=base, revocations=revocations)
    for stream in settings.signals:
        what = f"signals {stream.name}"
        for each in (stream.poll, stream.verification):
            if each is not None:
                resolved(each.secret, base=base, what="signals.secret")
        problem = await _keys(stream, insecure_http=settings.gateway.insecure_http_for_tests)
        if problem:
            yield "problem", what, problem, "is its issuer exactly as in `iss`, and can this machine reach it?"
        level, text, hint = _heard(stream, told.get(stream.name))
        yield level, what, text, hint
        if not stream.silent_seconds:
            text = "that it is silent is never noticed: `silent_seconds` is not set"
            yield "warning", what, text, "set it, and `verification` if events are rare"


def _told(settings: Settings, *, base: Path, revocations: Path) -> Mapping[str, StreamTold]:
    """When streams were heard, by this gateway or by any that it shares a database with. Raises ConfigInvalid."""
    if settings.gateway.state is not None:
        with shared_revocations(settings.gateway.state.postgres, base=base) as table:
            return table.streams()
    try:
        return streams_told(revocations)
    except sqlite3.Error as error:
        raise ConfigInvalid(f"`{revocations}` cannot be read: {error}", hint="run it as the gateway's user") from error


async def _keys(stream: StreamSettings, *, insecure_http: bool) -> str:
    fetcher = StreamFetcher(stream.jwks, insecure_http=insecure_http)
    try:
        rule = rule_of(stream)
        fetcher.check(rule)
        keys = IssuerKeys(rule, fetcher, monotonic=time.monotonic)
        await keys.refresh()
        return keys.problem()
    finally:
        await fetcher.aclose()


def _heard(stream: StreamSettings, told: StreamTold | None) -> tuple[Literal["ok", "warning", "problem"], str, str]:
    if told is None:
        return "warning", "was never heard", "have its transmitter send a verification event, while the gateway runs"
    ago = max(0, now() - told.heard)
    if stream.silent_seconds and ago > stream.silent_seconds:
        return "problem", f"was last heard {ago} s ago", "see whether its transmitter still sends, and the gateway runs"
    if told.status != "enabled":
        return "problem", f"said of itself that it is {told.status}", "have it enabled at its transmitter"
    return "ok", f"was last heard {ago} s ago", ""
