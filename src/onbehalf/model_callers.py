"""The words for who calls: what was shown, what of it is known, and the proven caller.

`Caller` is made in identify/verify.py alone. Had from model.py, as all words are. Must not hold behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from onbehalf.model_json import Digest, UnixTime
from onbehalf.model_value import Value

__all__ = ["Caller", "Evidence", "Kind", "Presented", "Proof", "Shown"]

Kind: TypeAlias = Literal["person", "service"]
"""Who acts: somebody whom the directory knows, or a program that acts for nobody."""
Proof: TypeAlias = Literal["bearer", "dpop", "mtls"]


class Shown(Value, frozen=True, kw_only=True, eq=False, weakref=True):
    """What one HTTP request showed besides its token, nothing of it proven. Compared by identity: one for a request.

    `dpop` says that the token came under that scheme (RFC 9449 section 7.1), and `proof` is the proof with it;
    `certificate` is the client's as whoever ends TLS, or the connection, has it, "" for none.
    """

    hidden = frozenset({"proof", "certificate"})

    dpop: bool
    method: str
    proof: str = ""
    certificate: str = ""


class Presented(Value, frozen=True, kw_only=True):
    """What a client showed at a door; nothing in it is proven. `shown` is None for a bearer token with nothing else."""

    hidden = frozenset({"token"})

    token: str
    shown: Shown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """How we know who calls: the token's own facts, never the token."""

    issuer: str
    key: str
    algorithm: str
    token: Digest
    issued_at: UnixTime
    expires_at: UnixTime
    acr: str = ""
    """How the person logged in (OpenID Connect Core section 2), "" where the token does not say."""
    auth_time: UnixTime | None = None
    """When they did, where the token says."""
    proof: Proof = "bearer"
    """What had to be shown with the token: nothing, or a proof of the key or certificate of this `thumbprint`."""
    thumbprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A person through a client, or a service by itself, proven. `subject` is unique within `evidence.issuer` only.

    `client` is the OAuth client id the issuer named; `actors` the `act` chain, nearest first (RFC 8693 section 4.1).
    `claims` is what else of the token the directory is to know, as canonical JSON; b"" where it wants nothing of it.
    `service` is what a service is called within its tenant, "" for a person.
    """

    subject: str
    tenant: str
    client: str
    actors: tuple[str, ...]
    scopes: frozenset[str]
    evidence: Evidence
    claims: bytes = field(default=b"", repr=False)
    kind: Kind = "person"
    service: str = ""
    spellings: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)
    """As `Person.spellings`: what of it was spelled for the record already, and follows from the fields above."""
