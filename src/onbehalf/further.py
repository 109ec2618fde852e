"""The corridor of the token service: a backend shows a call token and gets one for the next backend, on record first.

Which backend may call which is configuration. Must not know HTTP or hold a rule of the token's (act/further.py).
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson

from onbehalf.act import KIND
from onbehalf.act.claims import SERVICE
from onbehalf.act.further import Further, further_claims, require_granted
from onbehalf.errors import ActError, IdentifyError, TokenExpired, UnknownKey, WrongAudience, WrongType
from onbehalf.identify import PublicKey, check_signed, peek
from onbehalf.model import AuditEntry, CallId, Digest, Json, Presented, UnixTime
from onbehalf.ports import Clock, Ledger

__all__ = ["FurtherRefused", "Furthering", "Workload", "digest_in"]

_MOST = 16
"""So many calls further may come of one call token."""
_KEPT = 10_000


class FurtherRefused(ActError):
    """A backend may not have this token. `error` is a code of RFC 6749 section 5.2 or RFC 8693 section 2.2.2."""

    code = "further_refused"

    def __init__(self, error: str, message: str, *, http: int = 400) -> None:
        super().__init__(message)
        self.error = error
        self.http = http


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A backend that may call further: the audience its own call tokens have, its secret, and whom it may call."""

    name: str
    audience: str
    secret: str = field(repr=False)
    further: frozenset[str]


class Furthering:
    """Exchanges call tokens. `issuer` is the trust domain; `keys` gives its public keys, `sign` signs claims."""

    def __init__(
        self, workloads: Mapping[str, Workload], *, issuer: str, keys: Callable[[], Mapping[str, PublicKey]],
        sign: Callable[[bytes], str], ledger: Ledger, clock: Clock,
    ) -> None:  # fmt: skip
        self._workloads = dict(workloads)
        self._issuer = issuer
        self._keys = keys
        self._sign = sign
        self._ledger = ledger
        self._clock = clock
        self._given: OrderedDict[str, int] = OrderedDict()

    def workload(self, name: str, secret: str) -> Workload:
        """The backend that asks. Raises FurtherRefused."""
        found = self._workloads.get(name)
        expected = found.secret if found else "\0"
        if not hmac.compare_digest(expected.encode(), secret.encode("utf-8", "replace")) or found is None:
            raise FurtherRefused("invalid_client", "the backend is not known, or its secret is not its own", http=401)
        return found

    async def exchanged(self, by: Workload, token: str, asked: Further) -> tuple[str, int]:
        """The next token, and its life in seconds. Raises FurtherRefused, LedgerUnavailable."""
        if asked.audience not in by.further:
            raise FurtherRefused("invalid_target", "this backend may not call that one")
        now = self._clock()
        claims = self._proven(by, token, now)
        try:
            require_granted(claims, asked)
        except ActError as error:
            raise FurtherRefused("invalid_scope", error.message) from error
        spent = str(claims.get("jti"))
        count = self._given.get(spent, 0)
        if count >= _MOST:
            raise FurtherRefused("invalid_request", f"one call token is good for {_MOST} calls further")
        self._given[spent] = count + 1
        while len(self._given) > _KEPT:  # the oldest are over long since
            self._given.popitem(last=False)
        facts: dict[str, Json] = {
            "by": by.name, "audience": asked.audience, "tool": asked.tool, "arguments": asked.arguments,
            "subject": claims.get("sub"), "scope": claims.get("scope"), "of": spent,
        }  # fmt: skip
        call = CallId(str(claims.get("txn")))
        receipt = await self._ledger.append(
            AuditEntry(kind="further", call=call, at=now, facts=facts, about=_about(claims.get("sub")))
        )
        made = further_claims(claims, asked, issuer=self._issuer, receipt=receipt, now=now)
        until = claims["exp"]
        assert isinstance(until, int)  # INVARIANT: _proven looked
        return self._sign(orjson.dumps(made)), until - now

    def _proven(self, by: Workload, token: str, now: UnixTime) -> Mapping[str, Json]:
        """The claims of a call token for this very backend, alive. Raises FurtherRefused."""
        try:
            peeked = peek(Presented(token=token))
            key = self._keys().get(peeked.key_id)
            if key is None:
                raise UnknownKey("the key is not one of the gateway's")
            check_signed(peeked, key, issuer=self._issuer)
            claims = peeked.claimed
            if peeked.type != KIND:
                raise WrongType("the token is no call token")
            if claims.get("aud") != by.audience:
                raise WrongAudience("the call token is not this backend's")
            until = claims.get("exp")
            if not isinstance(until, int) or now >= until:
                raise TokenExpired("the call token's time is over")
        except IdentifyError as error:
            raise FurtherRefused("invalid_request", f"the subject token is refused: {error.message}") from error
        return claims


def digest_in(text: str) -> Digest:
    """A digest of arguments as a backend sends it. Raises FurtherRefused."""
    kind, _, hexadecimal = text.partition(":")
    if kind != "sha256" or len(hexadecimal) != 64 or not set(hexadecimal) <= set("0123456789abcdef"):
        raise FurtherRefused("invalid_request", "`arguments` is `sha256:` and the hex digest of all of them")
    return Digest(text)


def _about(subject: Json) -> str:
    """Whom a call token is of, as the record knows them (`Person.known_as`)."""
    said = str(subject)
    if not said.startswith(SERVICE):
        return said
    tenant, _, name = said.removeprefix(SERVICE).partition("/")
    return f"{tenant}/service/{name}"
