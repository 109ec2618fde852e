"""What the broker needs of doors. Must not hold anything that decides."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Protocol

from onbehalf.broker.client import Client
from onbehalf.broker.grant import Code, Granted, Reused
from onbehalf.model import Json, UnixTime

__all__ = ["Clients", "Store"]


class Store(Protocol):
    """Keeps clients that registered, grants, and what is used once. All raise BrokerUnavailable."""

    @property
    def ended(self) -> Container[str]:
        """Grants that are over before their time, for whoever proves access tokens."""
        ...

    async def register(self, id: str, metadata: Mapping[str, Json], *, now: UnixTime) -> None:
        """Keep a client. Raises OauthRefused where there are too many."""
        ...

    async def client(self, id: str, *, now: UnixTime) -> Mapping[str, Json] | None:
        """The metadata of a client that registered, which is used by this."""
        ...

    async def granted(self, code: str, kept: Code, *, until: UnixTime) -> None:
        """Keep a grant and its code, good until then."""
        ...

    async def take_code(self, code: str, *, now: UnixTime) -> Code | Reused | None:
        """What a code stands for, once; shown again, it ends its grant. None for one that is unknown or over."""
        ...

    async def keep_refresh(self, refresh: str, family: str) -> None:
        """Keep the first refresh token of a grant."""
        ...

    async def find_refresh(self, refresh: str, *, now: UnixTime) -> Granted | None:
        """The grant of a refresh token that is good, unused or not. None for one that is unknown or over."""
        ...

    async def rotate(self, refresh: str, fresh: str) -> bool:
        """Put a fresh refresh token in place of one; whether that was unused. Where not, its grant is over."""
        ...

    async def bind(self, family: str, key: str) -> None:
        """From now on the refresh tokens of a grant are of the key of this thumbprint, if they are of none."""
        ...

    async def end(self, family: str, why: str) -> bool:
        """End a grant and all that follows from it; whether it was not over."""
        ...

    async def once(self, issuer: str, id: str, *, until: UnixTime, now: UnixTime) -> bool:
        """Whether an assertion is shown for the first time; then it is kept that it was."""
        ...


class Clients(Protocol):
    """Knows clients, however they are known."""

    async def find(self, id: str) -> Client:
        """The client of that id. Raises OauthRefused for one that cannot be had."""
        ...

    async def keys(self, client: Client) -> bytes:
        """A client's JWK Set, as it published it. Raises OauthRefused."""
        ...
