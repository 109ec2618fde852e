"""Proves callers: issuers' keys over HTTP, and verified tokens kept until they expire.

The rooms' rules are in `identify`; this door finds the key for a token and remembers what was proven. About tokens that
say nothing by themselves `issuer_introspection` asks. Must not check a claim itself, but for the time of a token that
it kept.

What a bound token is bound to is asked for every time (issuer_proof.py). A bearer token costs one comparison for it.

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
from pathlib import Path
from typing import Protocol

from onbehalf.config import IssuerSettings, WorkloadSettings
from onbehalf.doors.issuer_client import TokenClient
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_introspection import Introspection
from onbehalf.doors.issuer_keys import IssuerKeys, KeySource
from onbehalf.doors.issuer_proof import Proofs
from onbehalf.doors.issuer_workloads import Workloads
from onbehalf.errors import ConfigInvalid, ProofMissing, UnknownIssuer
from onbehalf.identify import (
    TOLERANCE_S,
    PublicKey,
    check_algorithm,
    check_signed,
    check_tenants,
    check_type,
    peek,
    verify,
)
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
    """What a token proved, with which key of which issuer, and from when on it is refused. `bound` is the evidence
    where it says that something must be shown besides, else None."""

    caller: Caller
    bound: object | None
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
        proofs: Proofs | None = None,
        clients: Mapping[str, TokenClient] | None = None,
        workloads: Sequence[WorkloadSettings] = (),
        base: Path = Path(),
        keeper: TokenKeeper | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resource` is this gateway's, the one `aud`; `kept` maps an issuer to the claims that the directory is to
        know, `own` is asked about tokens of its own; without `proofs` no bound token is taken; `clients` are this
        gateway at issuers that are asked about theirs. The bundles of `workloads` are looked for at `base`. `keeper`
        gets what was proven. Raises ConfigInvalid."""
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
        self._proofs = proofs
        self._keeper = keeper
        self._workloads = Workloads(workloads, self._fetcher, base=base, resource=resource, monotonic=monotonic)
        self.introspection = Introspection(
            self._issuers, self._fetcher, clients=clients or {}, resource=resource, claims=self._claims,
            bound=proofs is not None, monotonic=monotonic,
        )  # fmt: skip
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
                if proven.bound is presented.shown and self._keeper is None:  # a bearer token, nothing shown with it
                    return proven.caller
                return await self._shown(proven.caller, presented, now)
            self._kept.pop(name, None)
        return await self._prove_anew(presented, name, now)

    async def warm(self) -> None:
        """Fetch all issuers' keys. Does not raise for those that cannot be had: `problems` tells."""
        await asyncio.gather(*(keys.refresh() for keys in self._all))

    def problems(self) -> Sequence[str]:
        """A sentence for each issuer whose tokens cannot be proven now. Within an event loop, also starts fetches
        that are due: without calls, it is the question after our health that keeps keys fresh. An issuer that cannot be
        asked about a token is none: a gateway that is sent no calls for it would never find that it can again."""
        if _within_loop():
            for keys in self._all:
                keys.nudge()
        needed = [each for name, each in self._issuers.items() if not self.introspection.does_without_keys(name)]
        return [problem for keys in (*needed, *self._workloads.keys) if (problem := keys.problem())]

    def keyless(self) -> Sequence[str]:
        """A sentence for each issuer that is asked about tokens, and whose JWTs cannot be proven now."""
        asked = [each for name, each in self._issuers.items() if self.introspection.does_without_keys(name)]
        return [problem for keys in asked if (problem := keys.problem())]

    def revoke_all(self) -> None:
        """Begin a new epoch: every token is proven anew, also those whose proof is under way now."""
        self._epoch += 1
        self._kept.clear()
        self.introspection.revoke_all()
        if self._keeper is not None:
            self._keeper.forget_all()

    async def aclose(self) -> None:
        """End all fetches and close all connections."""
        await self.introspection.aclose()
        for keys in self._all:
            await keys.aclose()
        await self._fetcher.aclose()

    async def _prove_anew(self, presented: Presented, name: bytes, now: UnixTime) -> Caller:
        epoch = self._epoch
        if asked := self.introspection.issuer_of(presented):
            return await self._shown(await self.introspection.prove(asked, presented, name, now=now), presented, now)
        peeked = peek(presented, nameless=bool(self._workloads))
        keys = self._issuers.get(peeked.claimed_issuer)
        if keys is None and self._workloads.has(peeked):
            caller, key, keys = await self._workloads.prove(peeked, now=now)
            self._keep(name, caller, key, keys, epoch)
            return await self._shown(caller, presented, now)
        if keys is None:
            raise UnknownIssuer(
                "the token is from an issuer that this gateway does not know",
                hint="list it under `issuers`, spelled exactly as in `iss`",
            )
        check_algorithm(peeked, keys.rule)  # before the key: what cannot be accepted causes no fetch
        key = await keys.find(peeked.key_id)
        if self.introspection.asks_every(keys.rule.issuer):
            check_signed(peeked, key, issuer=keys.rule.issuer)  # what anybody could make up causes no question
            check_type(peeked, keys.rule)
            caller = await self.introspection.prove(keys.rule.issuer, presented, name, now=now)
            return await self._shown(caller, presented, now)
        kept = self._claims.get(keys.rule.issuer, frozenset())
        caller = verify(
            peeked, rule=keys.rule, key=key, audience=self._resource, now=now, kept=kept,
            bound=self._proofs is not None,
        )  # fmt: skip
        if self._own is not None and keys.rule.issuer == self._own.issuer:
            self._own.refuse(peeked.claimed)
        self._keep(name, caller, key, keys, epoch)
        return await self._shown(caller, presented, now)

    def _keep(self, name: bytes, caller: Caller, key: PublicKey, keys: IssuerKeys, epoch: int) -> None:
        if epoch == self._epoch:
            ends = caller.evidence.expires_at + TOLERANCE_S
            self._kept[name] = _Proven(caller=caller, bound=_bound(caller), key=key, keys=keys, ends=ends)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    async def _shown(self, caller: Caller, presented: Presented, now: UnixTime) -> Caller:
        """The caller, once what the token is bound to was shown, and held for whom it may be exchanged."""
        if _bound(caller) is not presented.shown:  # not both None: there is a proof to see, wanted or not
            if self._proofs is None:
                raise ProofMissing("no proofs of tokens are taken here", hint="use a bearer token")
            await self._proofs.require(caller, presented, now=now)
        if self._keeper is not None:
            self._keeper.keep(caller, presented)
        return caller

    @property
    def _all(self) -> Sequence[IssuerKeys]:
        return [*self._issuers.values(), *self._workloads.keys]


def _bound(caller: Caller) -> object | None:
    return None if caller.evidence.proof == "bearer" else caller.evidence


def _within_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
