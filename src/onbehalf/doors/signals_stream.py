"""One stream of security events: a SET comes in, and is proven, decided, kept, in force and on record when it is taken.

In this order: 1 it is of this stream, and its key is found; 2 it is proven; 3 whom it names is looked up; 4 what it
comes to is on disk, once; 5 it is in force for every call that begins now; 6 it is on record. After 4, a failure takes
nothing back: what is not on record is put there at the next start. Must not know how a SET arrives.

Trust: whoever has a key of the stream's issuer can log out, keep out and let back in the people of its tenants, and no
others. The SET itself is kept nowhere; its digest is on record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Protocol

from onbehalf.doors.issuer_keys import UNKNOWN_KEY_S, IssuerKeys
from onbehalf.doors.revocations_signalled import StreamTold
from onbehalf.errors import (
    AlgorithmRefused,
    ClaimRefused,
    IssuerUnavailable,
    LedgerUnavailable,
    SignalsUnavailable,
    StateRefused,
    UnknownIssuer,
    UnknownKey,
)
from onbehalf.identify import TOLERANCE_S, PublicKey, peek, verify_signal
from onbehalf.model import Json, Presented, UnixTime
from onbehalf.model_signals import Effect, Event, Signal
from onbehalf.ports import Clock
from onbehalf.validate.signals import SSF, Speaks, Wanted, effects, wanted

__all__ = ["Around", "SignalStream", "Signalled", "settle"]

_log = logging.getLogger(__name__)
_REFUSED = 1000
_STATUS = frozenset({"enabled", "paused", "disabled"})


class Signalled(Protocol):
    """Keeps what security events did, for all gateways that share it. All but `last_heard` raise SignalsUnavailable."""

    async def take(
        self, stream: str, id: str, effects: Sequence[Effect], *, facts: Mapping[str, Json], now: UnixTime,
        until: UnixTime,
    ) -> bool:  # fmt: skip
        """Do what an event comes to, unless it was taken before: then False, and nothing changed."""
        ...

    async def in_force(self) -> None:
        """Have what was taken be known to whoever looks here. Never raises: nobody is let in where it cannot be."""
        ...

    async def pending(self) -> list[tuple[str, str, dict[str, Json]]]:
        """Stream, id and facts of events that are to be put on record by whoever asks."""
        ...

    async def noted(self, stream: str, id: str) -> None: ...
    async def heard(self, stream: str, *, now: UnixTime, status: str = "") -> None: ...
    async def told(self) -> Mapping[str, StreamTold]: ...
    def last_heard(self, stream: str) -> UnixTime:
        """When another gateway heard it last, as far as that is known here."""
        ...

    async def ask(self, stream: str, state: str) -> None:
        """Keep what the next verification event must say, "" for anything."""
        ...

    async def asked(self, stream: str) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What streams share. `named` looks somebody up, `look` has what is kept be in force, `record` is durable when it
    returns and raises LedgerUnavailable."""

    clock: Clock
    store: Signalled
    named: Callable[[Wanted], Sequence[str]]
    look: Callable[[], None]
    record: Callable[[str, Mapping[str, Json]], Awaitable[None]]


class SignalStream:
    """One stream. `heard_at` is when it was last known to live, by our clock."""

    def __init__(self, by: Speaks, keys: IssuerKeys, around: Around) -> None:
        self.settings = by.stream
        self._by = by
        self.keys = keys
        self.heard_at = around.clock()
        self.status = "enabled"
        self._around = around
        self._looked_at = UnixTime(0)
        self._kept = False
        self._refused: set[str] = set()

    async def begin(self) -> None:
        """Go on where the last process stopped. Raises SignalsUnavailable."""
        told = (await self._around.store.told()).get(self.settings.name)
        if told is not None:
            self.heard_at, self.status = told.heard, told.status

    async def take(self, token: str, named: str = "") -> bool:
        """Take one SET; when this returns it holds, whether it is new, which is told, or came before.

        `named` is the `jti` under which it came, "" where it came under none.

        Raises IdentifyError or TenantRefused for one that is worth nothing; IssuerUnavailable, DirectoryUnavailable or
        SignalsUnavailable where that is not known, or it could not be kept.
        """
        around, settings, now = self._around, self.settings, self._around.clock()
        peeked = peek(Presented(token=token))
        if peeked.claimed_issuer != settings.issuer:  # 1: what cannot be accepted causes no fetch
            raise UnknownIssuer(f"the SET is not from `{settings.issuer}`")
        if peeked.algorithm not in settings.algorithms:
            raise AlgorithmRefused("the SET's algorithm is not one of the stream's")
        key = await self._key(peeked.key_id)
        signal = verify_signal(peeked, stream=settings, key=key, now=now)  # 2
        if named not in ("", signal.id):
            raise ClaimRefused("the SET came under another `jti` than its own (RFC 8936 section 2.3)")
        await self._require_state(signal)
        asked = wanted(signal, self._by)
        found = {each: await asyncio.to_thread(around.named, each) for each in asked}  # 3
        come_to = effects(signal, by=self._by, found=found)
        facts = _facts(settings.name, signal, come_to)
        until = UnixTime(signal.issued_at + settings.max_age_seconds + TOLERANCE_S)
        new = await around.store.take(settings.name, signal.id, come_to, facts=facts, now=now, until=until)  # 4
        await around.store.in_force()  # 5
        around.look()
        await self.heard(_status(signal.events) if new else "")
        if new:
            await _recorded(around, settings.name, signal.id, facts)  # 6
        return new

    async def heard(self, status: str = "") -> None:
        """Keep that the stream lives, and what it said of itself."""
        before, self.heard_at = self.heard_at, self._around.clock()
        if status and status != self.status:
            self.status = status
            _log.log(
                logging.INFO if status == "enabled" else logging.ERROR,
                "the stream `%s` says that it is %s", self.settings.name, status,
            )  # fmt: skip
        if not status and self._kept and self.heard_at <= before:
            return  # it is on disk for this second
        try:
            await self._around.store.heard(self.settings.name, now=self.heard_at, status=status)
            self._kept = True
        except SignalsUnavailable as error:  # after a restart it only seems to have been silent for longer
            _log.error("that stream `%s` was heard is not kept: %s", self.settings.name, error.message)

    async def refused(self, code: str, digest: str) -> None:
        """Put on record that its transmitter sent what is worth nothing; once, where it sends it again and again."""
        if digest in self._refused:
            return
        self._refused = {*self._refused, digest} if len(self._refused) < _REFUSED else {digest}
        facts: dict[str, Json] = {"stream": self.settings.name, "code": code, "token": digest}
        try:
            await self._around.record("signal_refused", facts)
        except LedgerUnavailable as error:
            _log.error("a refused event is not on record: %s", error.message)

    def silent_for(self) -> int:
        """For how many seconds too long nothing was heard by any gateway; 0 if that is not too long."""
        bound, heard = self.settings.silent_seconds, self.last_heard()
        return max(0, self._around.clock() - heard - bound) if bound else 0

    def last_heard(self) -> UnixTime:
        """When any gateway heard it last, as far as that is known here."""
        return max(self.heard_at, self._around.store.last_heard(self.settings.name))

    async def ask(self, state: str) -> None:
        """Have the next verification event say this. Raises SignalsUnavailable."""
        await self._around.store.ask(self.settings.name, state)

    async def _key(self, key_id: str) -> PublicKey:
        """The transmitter's key of this id. One that is unknown so soon after another was that keys were not looked
        for again is not refused for good: its event is to come again. Raises UnknownKey, IssuerUnavailable."""
        try:
            return await self.keys.find(key_id)
        except UnknownKey as error:
            now = self._around.clock()
            if now - self._looked_at < UNKNOWN_KEY_S:
                raise IssuerUnavailable("its key is not known yet", hint="send it again in half a minute") from error
            self._looked_at = now
            raise

    async def _require_state(self, signal: Signal) -> None:
        store, name = self._around.store, self.settings.name
        for event in signal.events:
            if event.type != f"{SSF}verification" or "state" not in event.told:
                continue
            if asked := await store.asked(name):
                if not compare_digest(event.told["state"].encode(), asked.encode()):
                    raise StateRefused("the verification event is not the one that was asked for")
                await store.ask(name, "")


async def settle(around: Around) -> None:
    """Put on record what was done and is not, whichever stream it came by. Raises SignalsUnavailable."""
    for stream, id_, facts in await around.store.pending():
        await _recorded(around, stream, id_, facts)


async def _recorded(around: Around, stream: str, id_: str, facts: Mapping[str, Json]) -> None:
    try:
        await around.record("signal", facts)
        await around.store.noted(stream, id_)
    except (LedgerUnavailable, SignalsUnavailable) as error:  # who is stopped is stopped
        _log.error("an event of stream `%s` is not on record: %s", stream, error.message)


def _status(events: Sequence[Event]) -> str:
    told = [each.told.get("status", "") for each in events if each.type == f"{SSF}stream-updated"]
    return next((each for each in told if each in _STATUS), "")


def _facts(stream: str, signal: Signal, come_to: Sequence[Effect]) -> dict[str, Json]:
    events: list[Json] = [
        {
            "type": effect.event, "at": effect.at, "does": effect.does, "why": effect.why,
            "targets": [{"kind": each.kind, "tenant": each.tenant, "name": each.name} for each in effect.targets],
        }
        for effect in come_to
    ]  # fmt: skip
    return {
        "stream": stream, "issuer": signal.issuer, "id": signal.id, "issued_at": signal.issued_at, "key": signal.key,
        "algorithm": signal.algorithm, "token": signal.token, "events": events,
    }  # fmt: skip
