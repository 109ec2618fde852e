"""Opens the streams of security events as the settings say: what is pushed, what is fetched, and who hears of silence.

As build.py, it names concrete doors for app.py. Must not hold a rule, or know what an event means.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from onbehalf.config import Settings, token_issuers
from onbehalf.config_signals import StreamSettings, tenants_of
from onbehalf.doors.clock_system import now
from onbehalf.doors.directory_heard import HeardPeople
from onbehalf.doors.directory_named import named
from onbehalf.doors.directory_revoked import RevokedPeople
from onbehalf.doors.inbound_signals import PushedStream, SignalsApp
from onbehalf.doors.issuer_keys import IssuerKeys
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.signals_keys import StreamFetcher, rule_of
from onbehalf.doors.signals_poll import Poller
from onbehalf.doors.signals_stream import Around, Signalled, SignalStream, settle
from onbehalf.doors.signals_watch import Asking, Settling, Working, cancelled, watch
from onbehalf.errors import ConfigInvalid
from onbehalf.model import AuditEntry, Json
from onbehalf.places import Paths
from onbehalf.ports import Directory, Ledger
from onbehalf.validate.signals import Speaks

__all__ = ["OpenedSignals", "open_signals", "push_secrets"]

_MIN_SECRET = 32


class Kept(Protocol):
    """Where what events did is kept, and who works at streams while several gateways keep it together."""

    def signals(self) -> Signalled: ...
    def in_turn(self, working: Sequence[tuple[str, Working]]) -> Sequence[Working]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSignals:
    """`pushed` is the door by which events are pushed, None where none are."""

    streams: tuple[SignalStream, ...] = ()
    pushed: SignalsApp | None = None
    working: tuple[Working, ...] = ()

    def begin(
        self, stack: contextlib.AsyncExitStack, *, note: Callable[[str, dict[str, Json]], None],
        problems: dict[str, str],
    ) -> None:  # fmt: skip
        """Have streams fetched, asked and watched until the stack ends. `note` never fails; `problems` has a sentence
        for each stream that is silent."""
        for each in self.working:
            stack.push_async_callback(cancelled, asyncio.create_task(each.run()))
        if self.streams:
            stack.push_async_callback(cancelled, asyncio.create_task(watch(self.streams, self.working, note, problems)))

    def people(self, directory: Directory) -> Directory:
        """The directory, as far as required streams live."""
        required = [stream for stream in self.streams if stream.settings.required]
        if not required:
            return directory

        def silent(tenant: str) -> str:
            found = (each for each in required if tenant in tenants_of(each.settings) and each.silent_for())
            return next((each.settings.name for each in found), "")

        return HeardPeople(directory, silent)


def push_secrets(streams: tuple[StreamSettings, ...], *, base: Path) -> dict[str, bytes]:
    """For each stream that is pushed, the digest of what its transmitter shows. Raises ConfigInvalid."""
    found: dict[str, bytes] = {}
    for stream in streams:
        if isinstance(stream.push, str):
            secret = resolved(stream.push, base=base, what="signals.push")
            if len(secret) < _MIN_SECRET:
                raise ConfigInvalid(
                    f"the bearer of stream `{stream.name}` has fewer than {_MIN_SECRET} characters",
                    hint="make one: openssl rand -hex 32",
                )
            found[stream.name] = sha256(secret.encode()).digest()
    if len(set(found.values())) != len(found):
        raise ConfigInvalid("two streams have one bearer", hint="give each transmitter its own")
    return found


async def open_signals(
    settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, *, revoked: RevokedPeople, ledger: Ledger,
    kept: Kept,
) -> OpenedSignals:  # fmt: skip
    """Everything about security events, which are in force by `revoked`; what an earlier process left is put on record.
    Where several gateways remember in one database, each stream is fetched and asked by one of them at a time.

    Raises ConfigInvalid, SignalsUnavailable.
    """
    if not settings.signals:
        return OpenedSignals()
    base = places.config.resolve().parent
    secrets = push_secrets(settings.signals, base=base)
    store = kept.signals()

    async def record(kind: str, facts: Mapping[str, Json]) -> None:
        await ledger.append(AuditEntry(kind=kind, call="", at=now(), facts=facts))

    around = Around(
        clock=now, store=store, named=lambda wanted: named(places.directory, wanted), look=revoked.look, record=record
    )
    await settle(around)
    streams = tuple(await asyncio.gather(*(_stream(each, settings, stack, around) for each in settings.signals)))
    pushed = {
        each.settings.name: PushedStream(stream=each, secret=secrets[each.settings.name])
        for each in streams
        if each.settings.name in secrets
    }
    working: list[Working] = [
        *kept.in_turn([(stream.settings.name, each) for stream in streams for each in _working(stream, base)])
    ]
    if settings.gateway.state is not None:
        working.append(Settling(around))
    for each in working:
        stack.push_async_callback(each.aclose)
    return OpenedSignals(streams=streams, pushed=SignalsApp(pushed) if pushed else None, working=tuple(working))


async def _stream(
    stream: StreamSettings, settings: Settings, stack: contextlib.AsyncExitStack, around: Around
) -> SignalStream:
    fetcher = StreamFetcher(stream.jwks, insecure_http=settings.gateway.insecure_http_for_tests)
    stack.push_async_callback(fetcher.aclose)
    rule = rule_of(stream)
    fetcher.check(rule)
    keys = IssuerKeys(rule, fetcher, monotonic=time.monotonic)
    stack.push_async_callback(keys.aclose)
    made = SignalStream(Speaks(stream=stream, tokens=token_issuers(stream, settings)), keys, around)
    await asyncio.gather(made.begin(), keys.refresh())
    return made


def _working(stream: SignalStream, base: Path) -> list[Working]:
    poll, asking = stream.settings.poll, stream.settings.verification
    found: list[Working] = []
    if poll is not None:
        found.append(Poller(stream, poll, secret=resolved(poll.secret, base=base, what="signals.poll.secret")))
    if asking is not None:
        secret = resolved(asking.secret, base=base, what="signals.verification.secret")
        found.append(Asking(stream, asking, secret=secret))
    return found
