"""An issuer, its token endpoint, and what holds and exchanges its people's tokens, within one process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from act.granted import allowed
from doors.issuer_house import METADATA, Hands, Issuer, issuing
from exchange_house import CLIENT, SECRET, TokenEndpoint
from identify.minting import NOW, RESOURCE
from onbehalf.config_upstreams import ExchangeSettings
from onbehalf.doors.issuer_client import TokenClient
from onbehalf.doors.issuer_exchange import IssuerExchange
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.upstream_authorization import AuthorizationFailed
from onbehalf.doors.upstream_exchange import Exchanger
from onbehalf.model import Caller, Presented, Ref, ToolCall, UnixTime
from replacing import replace

BASIC = TokenClient(id=CLIENT, secret=SECRET)


@dataclass(kw_only=True)
class House:
    """An issuer, its token endpoint, and what holds and exchanges its people's tokens."""

    issuer: Issuer
    endpoint: TokenEndpoint
    held: IssuerExchange
    callers: IssuerCallers
    exchanger: Exchanger
    hands: Hands
    clock: list[int]

    async def call(self, token: str) -> ToolCall:
        """A call by whoever the token proves."""
        caller = await self.callers.prove(Presented(token=token), now=UnixTime(NOW))
        return call_of(caller)

    async def bearer(self, token: str) -> str:
        return await self.exchanger.bearer(await self.call(token))

    async def fails(self, token: str) -> AuthorizationFailed:
        with pytest.raises(AuthorizationFailed) as caught:
            await self.bearer(token)
        assert token not in str(caught.value)
        return caught.value


def call_of(caller: Caller) -> ToolCall:
    call = allowed().call
    person = replace(call.person, ref=Ref(type="User", id=f"{caller.tenant}/{caller.subject}"), tenant=caller.tenant)
    return replace(call, caller=caller, person=person)


def rule_for(issuer: str, **changes: Any) -> ExchangeSettings:
    return ExchangeSettings(**{"issuer": issuer, "client_id": CLIENT, "audience": "orders", **changes})


@contextlib.asynccontextmanager
async def house(client: TokenClient = BASIC, *, seconds: float = 4, **changes: Any) -> AsyncIterator[House]:
    with issuing() as issuer, TokenEndpoint().serving() as endpoint:
        metadata = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks.json", "token_endpoint": endpoint.url}
        issuer.json(METADATA, metadata)
        hands, clock, fetcher = Hands(), [NOW], IssuerFetcher(seconds=seconds)

        def now() -> UnixTime:
            return UnixTime(clock[0])

        held = IssuerExchange([issuer.rule()], fetcher, clock=now, monotonic=hands)
        rule = rule_for(issuer.url, **changes)
        exchanger = Exchanger(rule, held, client, gateway=RESOURCE, clock=now, monotonic=hands)
        callers = IssuerCallers([issuer.rule()], resource=RESOURCE, keeper=held, monotonic=hands)
        try:
            yield House(
                issuer=issuer, endpoint=endpoint, held=held, callers=callers, exchanger=exchanger, hands=hands,
                clock=clock,
            )  # fmt: skip
        finally:
            await callers.aclose()
            await fetcher.aclose()
