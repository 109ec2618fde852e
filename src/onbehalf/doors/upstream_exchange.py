"""Access tokens for an API of the same company login: each person's own, exchanged at its issuer.

What was given is kept for its tenant, person, client and login alone, in memory, until shortly before it ends or the
login does. The person's own token is not here: doors/issuer_exchange.py holds it and sends it. Must not send a call or
decide one.

Trust: the issuer says what the person may at the API.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from onbehalf.act.bearer import UNFIT, BearerUnfit
from onbehalf.act.exchange import Exchanged, ExchangeRefused, LoginNeeded, asked, denied, taken
from onbehalf.config_upstreams import ExchangeSettings
from onbehalf.doors.issuer_client import TokenClient
from onbehalf.doors.issuer_exchange import IssuerExchange, NotExchangeable, SameToken, TokenNotHeld
from onbehalf.doors.issuer_fetch import FetchFailed
from onbehalf.doors.upstream_authorization import AuthorizationFailed
from onbehalf.model import ToolCall
from onbehalf.ports import Clock

__all__ = ["Exchanger"]

_KEPT = 10_000
_EARLY_S = 30
_MAX_S = 3600
_Key = tuple[str, str, str, str, str]


@dataclass(slots=True, kw_only=True)
class _Kept:
    token: str = field(repr=False)
    until: float
    used_again: bool = False


class Exchanger:
    """Tokens for one upstream; fulfils what an upstream door asks (BearerSource). `gateway` is this gateway's resource.
    Used within one event loop."""

    def __init__(
        self, rule: ExchangeSettings, exchange: IssuerExchange, client: TokenClient, *, gateway: str, clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._rule = rule
        self._exchange = exchange
        self._client = client
        self._gateway = gateway
        self._clock = clock
        self._monotonic = monotonic
        self._epoch = exchange.epoch
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._locks: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    async def bearer(self, call: ToolCall) -> str:
        """The person's access token at the API. Raises AuthorizationFailed."""
        key, epoch = _key(call), self._exchange.epoch
        if epoch != self._epoch:
            self._kept.clear()
            self._epoch = epoch
        if (token := self._at_hand(key)) is not None:
            return token
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:  # of calls at the same time, one asks
            if epoch == self._exchange.epoch and (token := self._at_hand(key)) is not None:
                return token
            return await self._fresh(call, key, epoch)

    async def refused(self, call: ToolCall) -> bool:
        """The API did not take the person's token. One that was used before may be over: another is worth a try."""
        kept = self._kept.pop(_key(call), None)
        return kept is not None and kept.used_again

    def _at_hand(self, key: _Key) -> str | None:
        kept = self._kept.get(key)
        if kept is None or self._monotonic() >= kept.until:
            return None
        self._kept.move_to_end(key)
        kept.used_again = True
        return kept.token

    async def _fresh(self, call: ToolCall, key: _Key, epoch: int) -> str:
        found = await self._exchanged(call)
        # It must not outlive the login that it was given for, whatever the issuer says.
        left = call.caller.evidence.expires_at - self._clock()
        keep = min(found.seconds - _EARLY_S, left, _MAX_S)
        if keep > 0 and epoch == self._exchange.epoch:
            self._kept[key] = _Kept(token=found.token, until=self._monotonic() + keep)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found.token

    async def _exchanged(self, call: ToolCall) -> Exchanged:
        try:
            answer = await self._exchange.asked(call.caller, asked(self._rule), rule=self._rule, client=self._client)
            return taken(answer, self._rule, gateway=self._gateway, now=self._clock())
        except NotExchangeable as error:
            message = f"only an unbound token that `{self._rule.issuer}` signed can be exchanged there"
            raise AuthorizationFailed(message, code="exchange_impossible") from error
        except TokenNotHeld as error:
            raise AuthorizationFailed("the person's token is over, or was given up meanwhile") from error
        except BearerUnfit as error:
            raise AuthorizationFailed(str(error), code=UNFIT) from error
        except SameToken as error:
            raise AuthorizationFailed("the issuer gave back the token that it was sent") from error
        except FetchFailed as error:
            if error.said:
                raise _failed(denied(error.said)) from error
            raise AuthorizationFailed(f"the issuer gave no token for the API: {error}") from error
        except ExchangeRefused as error:
            raise _failed(error) from error


def _failed(error: ExchangeRefused) -> AuthorizationFailed:
    code = "login_needed" if isinstance(error, LoginNeeded) else "upstream_login_failed"
    return AuthorizationFailed(str(error), code=code)


def _key(call: ToolCall) -> _Key:
    """Whose token: one login's. A new login may be stronger, or another client's."""
    caller = call.caller
    return (caller.evidence.issuer, caller.tenant, call.person.ref.id, caller.client, f"{caller.evidence.token}")
