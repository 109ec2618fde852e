"""The section `broker` of `onbehalf.yaml`: the gateway as authorization server in front of the company's login.

Must not read a file or a secret.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from onbehalf.config_directory import Algorithm, Keys, Reference, TenantClaim
from onbehalf.config_upstreams import Url

__all__ = ["BrokerClient", "BrokerLogin", "BrokerSettings"]


class BrokerLogin(Keys, frozen=True):
    """The company's OpenID provider, where people log in. The gateway is a client there, with or without a secret; its
    redirect address is `/oauth/callback` of the resource's origin.

    `tenant` is one fixed tenant, or a claim of the ID token with its allowed values. `subject_claim` is who a person
    is; `claims` are carried into access tokens, for `directory.claims` and policies. `assertions` takes the provider's
    word for a client without a login (ID-JAG), from clients that are configured or hold a key.
    """

    issuer: Url
    client_id: Annotated[str, Meta(min_length=1, max_length=500)]
    tenant: str | TenantClaim
    client_secret: Reference | UnsetType = UNSET
    scope: str = "openid email profile"
    metadata: str = ""
    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
    subject_claim: str = "sub"
    claims: tuple[str, ...] = ()
    assertions: bool = False


class BrokerClient(Keys, frozen=True):
    """A client that neither registers nor publishes its metadata. With neither `client_secret` nor `jwks_uri` it is a
    public client."""

    id: Annotated[str, Meta(min_length=1, max_length=255)]
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    redirect_uris: tuple[str, ...] = ()
    client_secret: Reference | UnsetType = UNSET
    jwks_uri: str = ""


class BrokerSettings(Keys, frozen=True):
    """The gateway as authorization server for its own resource; its issuer identifier is the resource's origin.

    Access tokens live `access_seconds`, a login `refresh_seconds`, after which a person logs in anew. `registration`
    lets clients register themselves (RFC 7591). `client_hosts` are the hosts whose clients, published at a URL, are
    taken; empty for all.
    """

    login: BrokerLogin
    access_seconds: Annotated[int, Meta(ge=60, le=3600)] = 300
    refresh_seconds: Annotated[int, Meta(ge=300, le=30 * 86_400)] = 43_200
    registration: bool = True
    client_hosts: tuple[str, ...] = ()
    clients: tuple[BrokerClient, ...] = ()
