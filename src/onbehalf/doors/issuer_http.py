"""Proves callers: issuers' keys over HTTP, and verified tokens kept until they expire.

The rooms' rules are in `identify`; this door finds the key for a token and remembers what was proven. Must not check a
claim itself, but for the time of a token that it kept.

Trust: an issuer is believed about its own tenants and subjects, and about no other's. A token proven once is believed
until it expires, its key is withdrawn or `revoke_all` is called; that its person left is for the directory to know.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from onbehalf.config import IssuerSettings
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_keys import IssuerKeys, KeySource
from onbehalf.errors import ConfigInvalid, UnknownIssuer
from onbehalf.identify import TOLERANCE_S, PublicKey, check_algorithm, check_tenants, peek, verify
from onbehalf.model import Caller, Json, Presented, UnixTime

__all__ = ["IssuerCallers", "OwnIssuer"]

_KEPT = 10_000


class OwnIssuer(KeySource, Protocol):
    """This gateway's own authorization server: its keys are not fetched, and it knows which grants are over."""

    issuer: str

    def refuse(self, claims: Mapping[str, Json]) -> None:
        """Raises TokenRevoked for proven claims of a token whose grant is over."""
        ...


class TokenKeeper(Protocol):
    """Who holds proven tokens to have them exchanged at their issuer (issuer_exchange.py)."""

    def keep(self, caller: Caller, presented: Presented) -> None: ...
    def forget_all(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proven:
    """What a token proved, with which key of which issuer, and from when on it is refused."""

    caller: Caller
    key: PublicKey
    keys: IssuerKeys
    ends: int


class IssuerCallers:
    """The port `Callers` for several issuers. Made anywhere, used within one event loop, ended by `aclose`."""

    def __init__(
        self,
        issuers: Sequence[IssuerSettings],
        *,
        resource: str,
        insecure_http: bool = False,
        kept: Mapping[str, frozenset[str]] | None = None,
        own: OwnIssuer | None = None,
        keeper: TokenKeeper | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resource` is this gateway's, the one `aud`; `kept` maps an issuer to the claims that the directory is to
        know, `own` is asked about tokens of its own, `keeper` gets what was proven. Raises ConfigInvalid."""
        self._resource = resource
        self._claims = dict(kept or {})
        self._monotonic = monotonic
        self._fetcher = IssuerFetcher(insecure_http=insecure_http)
        self._issuers: dict[str, IssuerKeys] = {}
        for rule in issuers:
            self._fetcher.check(rule)
            check_tenants(rule)
            if rule.issuer in self._issuers:
                raise ConfigInvalid(f"the issuer `{rule.issuer}` stands twice", hint="one entry per issuer")
            source = own if own is not None and rule.issuer == own.issuer else self._fetcher
            self._issuers[rule.issuer] = IssuerKeys(rule, source, monotonic=monotonic)
        self._own = own
        self._keeper = keeper
        self._kept: OrderedDict[bytes, _Proven] = OrderedDict()
        self._epoch = 0

    async def prove(self, presented: Presented, *, now: UnixTime) -> Caller:
        """The caller: from a token proven before, or proven now. Raises an IdentifyError."""
        # Characters that no token has become `?`, which no token has either: such text meets nothing kept.
        name = sha256(presented.token.encode("ascii", "replace")).digest()
        proven = self._kept.get(name)
        if proven is not None:
            if self._monotonic() >= proven.keys.fresh_until:
                await proven.keys.current()
            if now < proven.ends and proven.keys.by_id.get(proven.key.key_id) is proven.key and name in self._kept:
                self._kept.move_to_end(name)
                if self._keeper is not None:
                    self._keeper.keep(proven.caller, presented)
                return proven.caller
            self._kept.pop(name, None)
        return await self._prove_anew(presented, name, now)

    async def warm(self) -> None:
        """Fetch all issuers' keys. Does not raise for those that cannot be had: `problems` tells."""
        await asyncio.gather(*(keys.refresh() for keys in self._issuers.values()))

    def problems(self) -> Sequence[str]:
        """A sentence for each issuer whose tokens cannot be proven now. Within an event loop, also starts fetches
        that are due: without calls, it is the question after our health that keeps keys fresh."""
        if _within_loop():
            for keys in self._issuers.values():
                keys.nudge()
        return [problem for keys in self._issuers.values() if (problem := keys.problem())]

    def revoke_all(self) -> None:
        """Begin a new epoch: every token is proven anew, also those whose proof is under way now."""
        self._epoch += 1
        self._kept.clear()
        if self._keeper is not None:
            self._keeper.forget_all()

    async def aclose(self) -> None:
        """End all fetches and close all connections."""
        for keys in self._issuers.values():
            await keys.aclose()
        await self._fetcher.aclose()

    async def _prove_anew(self, presented: Presented, name: bytes, now: UnixTime) -> Caller:
        epoch = self._epoch
        peeked = peek(presented)
        keys = self._issuers.get(peeked.claimed_issuer)
        if keys is None:
            raise UnknownIssuer(
                "the token is from an issuer that this gateway does not know",
                hint="list it under `issuers`, spelled exactly as in `iss`",
            )
        check_algorithm(peeked, keys.rule)  # before the key: what cannot be accepted causes no fetch
        key = await keys.find(peeked.key_id)
        kept = self._claims.get(keys.rule.issuer, frozenset())
        caller = verify(peeked, rule=keys.rule, key=key, audience=self._resource, now=now, kept=kept)
        if self._own is not None and keys.rule.issuer == self._own.issuer:
            self._own.refuse(peeked.claimed)
        if epoch == self._epoch:
            self._kept[name] = _Proven(caller=caller, key=key, keys=keys, ends=caller.evidence.expires_at + TOLERANCE_S)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            if self._keeper is not None:
                self._keeper.keep(caller, presented)
        return caller


def _within_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
