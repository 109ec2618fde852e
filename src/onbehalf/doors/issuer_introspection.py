"""Asks issuers about tokens that say nothing by themselves (RFC 7662), and keeps what they answer for a short while.

At most one question about a token is under way, and 16 to an issuer; tokens that were good lately do not wait behind
those that nobody knows, so that made-up ones can only delay each other. What cannot be asked in 5 s is refused. Tokens
are kept as digests only. Must not check a claim itself (`identify.introspected` does) or know who a caller is.

Trust: whoever answers at the endpoint, or with `signed` whoever holds the issuer's keys, says who calls, within the
issuer's own tenants. A token that was ended at the issuer lets in for `kept_seconds` more, unless `revoke_all` is
called.
"""

from __future__ import annotations

import asyncio
import logging
import secrets as random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from onbehalf.config import IntrospectionSettings, IssuerSettings
from onbehalf.config_introspection import require_told_apart
from onbehalf.doors.issuer_client import TokenClient, open_client
from onbehalf.doors.issuer_fetch import FetchFailed, IssuerFetcher
from onbehalf.doors.issuer_keys import IssuerKeys
from onbehalf.errors import AnswerRefused, ConfigInvalid, IdentifyError, IssuerUnavailable, UnknownIssuer
from onbehalf.identify import (
    ANSWER_TYPE,
    is_opaque,
    media,
    opaque_text,
    peek,
    read_answer,
    verify_answer,
    verify_introspected,
)
from onbehalf.model import Caller, Json, Presented, UnixTime

__all__ = ["Introspection", "introspection_clients"]

_SECONDS = 5.0
_AT_ONCE = 16
_KEPT = 10_000
_REFUSED_S = 10.0
"""How long a token that the issuer does not know is not asked about again."""
_ANSWER_BYTES = 64 * 1024

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def introspection_clients(issuers: Sequence[IssuerSettings], *, base: Path) -> dict[str, TokenClient]:
    """This gateway as a client of each issuer that is asked about tokens. Raises ConfigInvalid."""
    return {
        rule.issuer: open_client(
            rule.introspection.client_id, secret=rule.introspection.client_secret, key=rule.introspection.client_key,
            base=base, what="introspection",
        )
        for rule in issuers
        if rule.introspection is not None
    }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """Who calls, as the issuer said it: until `until` of the monotonic clock, and before `ends`."""

    caller: Caller
    until: float
    ends: UnixTime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    """Why a token proves nobody, until then. Not the error itself, whose traceback holds the token."""

    kind: type[IdentifyError]
    message: str
    hint: str
    until: float


@dataclass(slots=True, kw_only=True)
class _Asked:
    """One issuer that is asked, and the two queues before it."""

    rule: IssuerSettings
    settings: IntrospectionSettings
    client: TokenClient
    keys: IssuerKeys
    known: asyncio.Semaphore
    unknown: asyncio.Semaphore
    failure: str = ""


class Introspection:
    """Callers by what their issuers answer. Made anywhere, used within one event loop, ended by `aclose`; the fetcher
    and keys are closed by whoever gave them."""

    def __init__(
        self, keys: Mapping[str, IssuerKeys], fetcher: IssuerFetcher, *, clients: Mapping[str, TokenClient],
        resource: str, claims: Mapping[str, frozenset[str]], bound: bool = False, monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        """`keys` are all issuers' with their rules, `clients` this gateway at those that are asked, `claims` what the
        directory is to know of each, `bound` as for `verify`. Raises ConfigInvalid."""
        self._fetcher = fetcher
        self._resource = resource
        self._claims = claims
        self._bound = bound
        self._monotonic = monotonic
        self._asked: dict[str, _Asked] = {}
        for issuer, each in keys.items():
            if each.rule.introspection is not None:
                if issuer not in clients:
                    raise ConfigInvalid(f"`{issuer}` is asked about tokens, and this gateway is no client there")
                self._asked[issuer] = _Asked(
                    rule=each.rule, settings=each.rule.introspection, client=clients[issuer], keys=each,
                    known=asyncio.Semaphore(_AT_ONCE), unknown=asyncio.Semaphore(_AT_ONCE),
                )  # fmt: skip
        require_told_apart({issuer: each.settings for issuer, each in self._asked.items()})
        self._kept: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, _Refused] = OrderedDict()
        self._flights: dict[bytes, asyncio.Task[Caller]] = {}
        self._tasks: set[asyncio.Task[Caller]] = set()
        self._epoch = 0

    def issuer_of(self, presented: Presented) -> str:
        """Which issuer is asked about a token that names none; "" for one that names its issuer, or if none is asked.

        Raises UnknownIssuer, TokenTooLarge, TokenMalformed.
        """
        if not self._asked or not is_opaque(presented):
            return ""
        text = opaque_text(presented)
        for issuer, each in self._asked.items():
            if text.startswith(each.settings.prefix):
                return issuer
        raise UnknownIssuer(
            "the token names no issuer, and begins like none of those that are asked",
            hint="send an access token from a listed authorization server, unchanged",
        )

    def asks_every(self, issuer: str) -> bool:
        """Whether this issuer is asked about JWTs, too."""
        asked = self._asked.get(issuer)
        return asked is not None and asked.settings.asked == "every"

    def does_without_keys(self, issuer: str) -> bool:
        """Whether tokens of this issuer can be proven without its keys."""
        asked = self._asked.get(issuer)
        return asked is not None and not asked.settings.signed

    async def prove(self, issuer: str, presented: Presented, name: bytes, *, now: UnixTime) -> Caller:
        """The caller: as the issuer said lately, or says now. `name` is the token's digest. Raises an IdentifyError."""
        at = self._monotonic()
        known = self._kept.get(name)
        if known is not None and at < known.until and now < known.ends:
            self._kept.move_to_end(name)
            return known.caller
        refused = self._refused.get(name)
        if refused is not None and at < refused.until:
            raise refused.kind(refused.message, hint=refused.hint)
        flight = self._flights.get(name)
        if flight is None:
            flight = asyncio.create_task(self._proven(self._asked[issuer], presented.token, name, now))
            self._flights[name] = flight
            self._tasks.add(flight)
            flight.add_done_callback(lambda done: self._over(name, done))
        return await asyncio.shield(flight)

    def revoke_all(self) -> None:
        """Begin a new epoch: every token is asked about anew, also those about which a question is under way."""
        self._epoch += 1
        self._kept.clear()
        self._flights.clear()

    async def tried(self, *, now: UnixTime) -> AsyncIterator[tuple[str, str]]:
        """Each issuer with what is wrong with asking it, "" for nothing: about a made-up token, which is not active."""
        for issuer, asked in self._asked.items():
            text = asked.settings.prefix + random.token_urlsafe(32)
            try:
                answer, _ = await self._answer(asked, asked.unknown, text, now)
                active = answer.get("active")
                yield issuer, "" if active is False else "it does not say of a made-up token that it is not active"
            except IdentifyError as error:
                yield issuer, asked.failure or error.message

    async def aclose(self) -> None:
        """End the questions under way."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, name: bytes, flight: asyncio.Task[Caller]) -> None:
        self._tasks.discard(flight)
        if self._flights.get(name) is flight:  # after `revoke_all` another may be under way
            del self._flights[name]
        if not flight.cancelled():
            flight.exception()  # has been told to whoever waited; nobody may be waiting any more

    async def _proven(self, asked: _Asked, text: str, name: bytes, now: UnixTime) -> Caller:
        began, epoch = self._monotonic(), self._epoch
        lane = asked.known if name in self._kept else asked.unknown
        try:
            answer, key = await self._answer(asked, lane, text, now)
            kept = self._claims.get(asked.rule.issuer, frozenset())
            caller = verify_introspected(
                answer, token=text, rule=asked.rule, key=key, audience=self._resource, now=now, kept=kept,
                bound=self._bound,
            )  # fmt: skip
        except IdentifyError as error:
            self._kept.pop(name, None)
            if error.status == 401:  # the issuer answered; a 503 is for the next call to try again
                until = began + _REFUSED_S
                _put(
                    self._refused, name, _Refused(kind=type(error), message=error.message, hint=error.hint, until=until)
                )
            raise
        if epoch == self._epoch:
            until = began + asked.settings.kept_seconds
            _put(self._kept, name, _Known(caller=caller, until=until, ends=caller.evidence.expires_at))
        return caller

    async def _answer(
        self, asked: _Asked, lane: asyncio.Semaphore, text: str, now: UnixTime
    ) -> tuple[Mapping[str, Json], str]:
        """What the issuer says, and the key that signed it, "" for none. Raises IssuerUnavailable, AnswerRefused."""
        try:
            async with asyncio.timeout(_SECONDS), lane:
                answer = await self._posted(asked, text, now)
        except (FetchFailed, TimeoutError) as error:
            failure = f"it did not answer within {_SECONDS:g} s" if isinstance(error, TimeoutError) else str(error)
            self._failed(asked, failure)
            raise IssuerUnavailable(
                f"the issuer `{asked.rule.issuer}` cannot be asked about the token", hint="try again soon"
            ) from error
        except AnswerRefused as error:
            self._failed(asked, error.message)
            raise
        asked.failure = ""
        return answer

    async def _posted(self, asked: _Asked, text: str, now: UnixTime) -> tuple[Mapping[str, Json], str]:
        settings = asked.settings
        more, headers = asked.client.proof(settings.endpoint, now)
        kind, body = await self._fetcher.asked(
            settings.endpoint, {"token": text, "token_type_hint": "access_token", **more},
            {**headers, "accept": f"application/{ANSWER_TYPE}" if settings.signed else "application/json"},
            limit=_ANSWER_BYTES, what="its introspection endpoint",
        )  # fmt: skip
        if media(kind) == ANSWER_TYPE:
            return await _signed(asked, body, now)
        if settings.signed:
            raise AnswerRefused("the issuer's answer about the token is not signed (RFC 9701)")
        if kind.lower() != "application/json":
            raise AnswerRefused("the issuer's answer about the token is no JSON (RFC 7662 section 2.2)")
        return read_answer(body), ""

    def _failed(self, asked: _Asked, failure: str) -> None:
        if asked.failure != failure:  # an outage is said once, and not for each call
            _log.warning("the issuer `%s` cannot be asked about tokens: %s", asked.rule.issuer, failure)
        asked.failure = failure


async def _signed(asked: _Asked, body: bytes, now: UnixTime) -> tuple[Mapping[str, Json], str]:
    try:
        peeked = peek(Presented(token=body.decode("ascii", "replace")))
        key = await asked.keys.find(peeked.key_id)
        return verify_answer(peeked, rule=asked.rule, key=key, client=asked.settings.client_id, now=now), key.key_id
    except IssuerUnavailable:
        raise
    except IdentifyError as error:  # what is wrong is the issuer's, not the caller's
        raise AnswerRefused(f"the issuer's signed answer is refused: {error.message}", hint=error.hint) from error


def _put(kept: OrderedDict[bytes, _T], name: bytes, value: _T) -> None:
    kept[name] = value
    kept.move_to_end(name)
    while len(kept) > _KEPT:
        kept.popitem(last=False)
