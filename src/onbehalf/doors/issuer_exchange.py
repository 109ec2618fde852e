"""People's access tokens, held to be exchanged at the issuer they are of, and for nothing else (RFC 8693).

The only place behind the door of a request where such a token exists. It is held in memory, from when it was proven
until it ends, for issuers at which some upstream exchanges; and it leaves for one place only: the token endpoint that
the issuer's own metadata names, asked over https. No setting, argument or answer can name another. Must not know an
upstream, keep what was given for it, or decide what of an answer is good (act/exchange.py).

Trust: the issuer made the token, and says in its metadata where it exchanges it. Whoever reads this process's memory
can take the tokens of all who called lately.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from onbehalf.config import IssuerSettings
from onbehalf.config_upstreams import ExchangeSettings
from onbehalf.doors.issuer_client import TokenClient
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.errors import IdentifyError
from onbehalf.identify import peek
from onbehalf.model import Caller, Digest, Evidence, Json, Presented, UnixTime, digest
from onbehalf.ports import Clock

__all__ = ["IssuerExchange", "NotExchangeable", "SameToken", "TokenNotHeld"]

_HELD = 10_000
_METADATA_S = 300.0
_SWEEP_S = 60
_SUBJECT = {"token-exchange": "subject_token", "entra": "assertion"}


class TokenNotHeld(Exception):
    """The person's token was given up, or is over: they have to come again with theirs."""


class NotExchangeable(Exception):
    """The person's token is not of the issuer that is to exchange it, is bound to a key, or was proven otherwise than
    by that issuer's signature."""


class SameToken(Exception):
    """The issuer answered with the very token that it was sent, whatever it looks like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A token, "" for one that must not be exchanged, and who it is of. INVARIANT: it was proven to be `issuer`'s."""

    token: str = field(repr=False)
    issuer: str
    until: UnixTime


class IssuerExchange:
    """The tokens of `rules`' issuers. Used within one event loop; the fetcher is closed by whoever gave it."""

    def __init__(
        self, rules: Iterable[IssuerSettings], fetcher: IssuerFetcher, *, clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Raises ConfigInvalid for an issuer that must not be asked."""
        self._rules = {rule.issuer: rule for rule in rules}
        for rule in self._rules.values():
            fetcher.check(rule)
        self._fetcher = fetcher
        self._clock = clock
        self._monotonic = monotonic
        self._held: OrderedDict[Digest, _Held] = OrderedDict()
        self._endpoints: dict[str, tuple[float, str]] = {}
        self._swept = 0
        self.epoch = 0
        """Grows whenever all was given up: what was had before is not to be used again."""

    def keep(self, caller: Caller, presented: Presented) -> None:
        """Hold the token by which the caller was just proven, where it may be needed."""
        evidence = caller.evidence
        if evidence.issuer not in self._rules:
            return
        if evidence.token in self._held:
            self._held.move_to_end(evidence.token)
            return
        token = presented.token if _exchangeable(evidence, presented) else ""
        self._sweep()
        self._held[evidence.token] = _Held(token=token, issuer=evidence.issuer, until=evidence.expires_at)
        while len(self._held) > _HELD:
            self._held.popitem(last=False)

    def forget_all(self) -> None:
        """Give up every token, and have nothing used that was had for one."""
        self.epoch += 1
        self._held.clear()

    async def asked(
        self, caller: Caller, fields: Mapping[str, str], *, rule: ExchangeSettings, client: TokenClient
    ) -> Mapping[str, Json]:
        """What the caller's issuer answers to `fields` with the caller's token added; of it, only that it is not that
        token is seen to. Raises NotExchangeable, TokenNotHeld, SameToken, FetchFailed."""
        if caller.evidence.issuer != rule.issuer:
            raise NotExchangeable
        held = self._held.get(caller.evidence.token)
        if held is None or self._clock() >= held.until:
            raise TokenNotHeld
        if not held.token or held.issuer != rule.issuer:
            raise NotExchangeable
        endpoint = await self._endpoint(self._rules[held.issuer])
        more, headers = client.proof(endpoint, self._clock())
        form = {**fields, **more, _SUBJECT[rule.grant]: held.token}
        answer = await self._fetcher.post(endpoint, form, headers)
        given = answer.get("access_token")
        # A JWS can be spelled in several ways by its signature, so it is what was signed that must not come back.
        if isinstance(given, str) and held.token.rpartition(".")[0] in given:
            raise SameToken
        return answer

    async def supported(self, issuer: str) -> Mapping[str, Json]:
        """The issuer's metadata, as far as exchanges need it. Raises FetchFailed."""
        return await self._fetcher.metadata(self._rules[issuer], "token_endpoint")

    async def _endpoint(self, rule: IssuerSettings) -> str:
        fetched, endpoint = self._endpoints.get(rule.issuer, (0.0, ""))
        if endpoint and self._monotonic() - fetched < _METADATA_S:
            return endpoint
        found = await self._fetcher.metadata(rule, "token_endpoint")
        endpoint = str(found["token_endpoint"])
        self._endpoints[rule.issuer] = (self._monotonic(), endpoint)
        return endpoint

    def _sweep(self) -> None:
        """Give up what is over, at most once in a while: one look at all there is."""
        now = self._clock()
        if now - self._swept < _SWEEP_S:
            return
        self._swept = now
        for name in [name for name, held in self._held.items() if now >= held.until]:
            del self._held[name]


def _exchangeable(evidence: Evidence, presented: Presented) -> bool:
    """Whether this is the token that the evidence is of, proven by a signature, and nobody's key is needed with it."""
    try:
        peeked = peek(presented)
    except IdentifyError:
        return False  # proven by asking its issuer, not by its signature
    same = digest(peeked.token) == evidence.token and peeked.claimed_issuer == evidence.issuer
    return same and peeked.key_id == evidence.key and "cnf" not in peeked.claimed
