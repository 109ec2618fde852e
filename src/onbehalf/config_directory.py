"""The section `directory` of `onbehalf.yaml`: whose people come from the company's own tables, and how old they may be.

Also the words that every section is written in. Must not read a file or a secret.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from onbehalf.errors import ConfigInvalid

__all__ = [
    "Algorithm", "ClaimsSettings", "DirectorySettings", "FeedSettings", "Keys", "Place", "Reference", "ScimSettings",
    "TenantClaim", "require_feeds",
]  # fmt: skip

Place = Annotated[str, Meta(pattern=r"^[^\x00-\x1f]+$")]
Reference = Annotated[str, Meta(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f]+)$")]
"""Where a secret is: `env:NAME`, or `file:path` relative to the configuration file. Never the secret itself."""


class Keys(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section: an unknown key in it is an error."""


Algorithm = Literal["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]


class TenantClaim(Keys, frozen=True):
    """The tenant is read from `claim`, and must be one of `allowed`."""

    claim: str
    allowed: Annotated[tuple[str, ...], Meta(min_length=1)]


class FeedSettings(Keys, frozen=True):
    """One tenant's people from a query on the company's own tables, asked every `every_seconds`.

    `query` is one SELECT that gives a row a person, with columns named as docs/directory.md says. It runs in `sqlite`,
    a path, or in `postgres`, a reference to a DSN: one of the two. `timeout_seconds` bounds the whole query.
    """

    tenant: Annotated[str, Meta(pattern=r"^[^/\x00-\x1f]{1,200}$")]
    query: Annotated[str, Meta(min_length=1, max_length=100_000)]
    sqlite: Place | UnsetType = UNSET
    postgres: Reference | UnsetType = UNSET
    every_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    timeout_seconds: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    insecure_tls_for_tests: bool = False
    """Take an `sslmode` below `verify-full` beyond loopback. Danger: whoever sits between says who is whose manager."""


class ScimSettings(Keys, frozen=True):
    """One tenant whose people an identity provider pushes (SCIM 2.0), with a `secret` of at least 32 characters.

    `issuer` is whose tokens they bring, `login` the attribute that is the `sub` of these, and `person` the one by which
    people are called here and in the company's tables. `attributes` are what else is taken over, for bound parameters.
    """

    tenant: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    issuer: Annotated[str, Meta(min_length=1, max_length=255)]
    secret: Reference
    person: Literal["userName", "externalId"] = "userName"
    login: Literal["userName", "externalId"] = "externalId"
    attributes: tuple[str, ...] = ()


class ClaimsSettings(Keys, frozen=True):
    """One tenant whose people are who the access tokens of `issuer` say, as they come.

    `person` is the claim by which people are called here and in the company's tables. Danger: whoever can change that
    claim of theirs, such as an e-mail address, can become somebody who has not called yet. `name` is what they are
    shown as, `groups` lists their groups, "" for none. With `group_names`, a value of it is the group of that name
    here, and other values count for nothing. `attributes` are what else is taken over, for bound parameters.
    """

    tenant: Annotated[str, Meta(pattern=r"^[^/\x00-\x1f]{1,200}$")]
    issuer: Annotated[str, Meta(min_length=1, max_length=255)]
    person: Annotated[str, Meta(min_length=1, max_length=255)] = "sub"
    name: Annotated[str, Meta(min_length=1, max_length=255)] = "name"
    groups: Annotated[str, Meta(max_length=255)] = ""
    group_names: dict[str, Annotated[str, Meta(pattern=r"^[^/\x00-\x1f]{1,200}$")]] = {}
    attributes: tuple[str, ...] = ()


class DirectorySettings(Keys, frozen=True):
    """Feeds, pushes and tokens beside people.yaml. Calls that write are refused to people of a fed tenant once its feed
    last succeeded more than `lag_budget_seconds` ago, and to people who are told by a token that was issued so long
    ago; 0 is no limit.

    A feed that would deactivate more than the share `deactivates_at_most` of a tenant's active people is refused.
    """

    feeds: tuple[FeedSettings, ...] = ()
    scim: tuple[ScimSettings, ...] = ()
    claims: tuple[ClaimsSettings, ...] = ()
    lag_budget_seconds: Annotated[int, Meta(ge=0, le=31_536_000)] = 0
    deactivates_at_most: Annotated[float, Meta(gt=0, le=1)] = 0.1


def require_feeds(directory: DirectorySettings) -> None:
    """See that a tenant has one feed, and a feed one place. Raises ConfigInvalid."""
    for feed in directory.feeds:
        if isinstance(feed.sqlite, str) == isinstance(feed.postgres, str):
            raise ConfigInvalid(
                f"the feed of `{feed.tenant}` needs one of `sqlite` and `postgres`", hint="name where its query runs"
            )
    told: tuple[FeedSettings | ScimSettings | ClaimsSettings, ...] = (
        *directory.feeds, *directory.scim, *directory.claims,
    )  # fmt: skip
    tenants = [each.tenant for each in told]
    if len(set(tenants)) != len(tenants):
        raise ConfigInvalid("a tenant has two feeds", hint="one query, or one provider, gives all people of a tenant")
    for claims in directory.claims:
        if claims.group_names and not claims.groups:
            raise ConfigInvalid(
                f"the claims of `{claims.tenant}` have `group_names` and no `groups`",
                hint="name the claim that lists groups",
            )
