"""The section `signals` of `onbehalf.yaml`: who may tell us of security events (Shared Signals), and about whom.

Must not read a file or a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from onbehalf.config_directory import Keys, Reference, TenantClaim
from onbehalf.errors import ConfigInvalid

__all__ = ["PollSettings", "StreamSettings", "VerificationSettings", "require_streams", "tenants_of"]

_Address = Annotated[str, Meta(pattern=r"^https?://[\x21-\x7e]+$", max_length=2048)]
_Meaning = Annotated[str, Meta(pattern=r"^(|person|login|attribute:[^\x00-\x1f]{1,200})$")]


class PollSettings(Keys, frozen=True):
    """A stream that is fetched (RFC 8936) from `url`, showing `secret` as bearer.

    A request may be held open by the transmitter for `wait_seconds`; where it is not, the next one comes after
    `pause_seconds`.
    """

    url: _Address
    secret: Reference
    wait_seconds: Annotated[float, Meta(ge=1, le=300)] = 60.0
    pause_seconds: Annotated[float, Meta(ge=0.05, le=3600)] = 5.0


class VerificationSettings(Keys, frozen=True):
    """Where to ask for a verification event (SSF 1.0), showing `secret` as bearer, and the id of the stream there. It
    is asked for when the gateway starts and then every `every_seconds`."""

    url: _Address
    stream: Annotated[str, Meta(min_length=1, max_length=255)]
    secret: Reference
    every_seconds: Annotated[int, Meta(ge=10, le=86_400)] = 600


class StreamSettings(Keys, frozen=True):
    """One stream of security events. It is pushed (RFC 8935) to `/signals/<name>` of the resource's origin, showing
    `push` as bearer, or fetched: one of the two.

    `issuer` signs them, for `audience`. `tenant` is the tenant it speaks for, or a mapping from the provider's own
    names of tenants to ours. `logins` is where those log in whose subjects it names, by default itself. Its
    keys are found by `metadata`, by default where SSF 1.0 says, or at `jwks`.
    `email` and `opaque` say what such an identifier is here: `person` (the id in the directory), `login` (the `sub` of
    tokens) or `attribute:<name>`; without it, it tells nobody. With `unclear: tenant`, an event about somebody of the
    tenant of whom is not told who ends the tokens of all; with `record` it is recorded and no more.
    An event older than `max_age_seconds` is refused. A stream of which nothing was heard for `silent_seconds` is said
    loudly, 0 is no limit; if it is `required`, calls of its tenants are then refused.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    issuer: _Address
    audience: Annotated[str, Meta(min_length=1, max_length=2048)]
    tenant: str | dict[Annotated[str, Meta(min_length=1, max_length=255)], str]
    logins: Annotated[str, Meta(max_length=2048)] = ""
    metadata: Annotated[str, Meta(max_length=2048)] = ""
    jwks: Annotated[str, Meta(max_length=2048)] = ""
    algorithms: Annotated[tuple[Literal["RS256", "PS256", "ES256", "EdDSA", "Ed25519"], ...], Meta(min_length=1)] = (
        "RS256", "PS256", "ES256", "EdDSA", "Ed25519",
    )  # fmt: skip
    push: Reference | UnsetType = UNSET
    poll: PollSettings | None = None
    verification: VerificationSettings | None = None
    email: _Meaning = ""
    opaque: _Meaning = ""
    unclear: Literal["tenant", "record"] = "tenant"
    max_age_seconds: Annotated[int, Meta(ge=3600, le=90 * 86_400)] = 1_209_600
    silent_seconds: Annotated[int, Meta(ge=0, le=90 * 86_400)] = 0
    required: bool = False


def tenants_of(stream: StreamSettings) -> frozenset[str]:
    """Ours that it may speak for."""
    return frozenset({stream.tenant} if isinstance(stream.tenant, str) else stream.tenant.values())


def require_streams(streams: Sequence[StreamSettings], speakers: Mapping[str, str | TenantClaim]) -> None:
    """See that streams are told apart, and each comes in one way and names people of whom their login may speak.

    `speakers` are the tenants of each issuer of logins. Raises ConfigInvalid.
    """
    if len({stream.name for stream in streams}) != len(streams):
        raise ConfigInvalid("two streams of signals have one name", hint="the name is where it is pushed to")
    if len({(stream.issuer, stream.audience) for stream in streams}) != len(streams):
        raise ConfigInvalid(
            "two streams of signals have one issuer and audience", hint="one could be sent as the other; ask for two"
        )
    for stream in streams:
        if isinstance(stream.push, str) == (stream.poll is not None):
            raise ConfigInvalid(
                f"the stream `{stream.name}` needs one of `push` and `poll`", hint="as the transmitter was told"
            )
        if stream.metadata and stream.jwks:
            raise ConfigInvalid(f"the stream `{stream.name}` has `metadata` and `jwks`", hint="one says where keys are")
        if not tenants_of(stream):
            raise ConfigInvalid(f"the stream `{stream.name}` speaks for no tenant", hint="map its tenants to yours")
        if stream.required and not stream.silent_seconds:
            raise ConfigInvalid(
                f"the stream `{stream.name}` is `required` and may be silent for ever", hint="set `silent_seconds`"
            )
        logins = stream.logins or stream.issuer
        tenant = speakers.get(logins)
        if tenant is None:
            raise ConfigInvalid(
                f"the stream `{stream.name}` names logins at `{logins}`, where nobody here logs in",
                hint="set `logins` to one of `issuers`, or to the broker's login, spelled exactly so",
            )
        for each in tenants_of(stream) - ({tenant} if isinstance(tenant, str) else {*tenant.allowed}):
            raise ConfigInvalid(
                f"the issuer `{logins}` may not speak for the tenant `{each}` of stream `{stream.name}`",
                hint="name one of its tenants, or allow it this one where people log in",
            )
