"""The key `introspection` of an issuer: its tokens that say nothing by themselves, and where it is asked about them.

Must not read a file or a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from onbehalf.config_directory import Keys, Reference
from onbehalf.config_upstreams import Url
from onbehalf.errors import ConfigInvalid

__all__ = ["IntrospectionSettings", "require_told_apart"]


class IntrospectionSettings(Keys, frozen=True):
    """Where an issuer says what its tokens are (RFC 7662), and this gateway as its client there, with a
    `client_secret` or a `client_key` (PEM with the certificate, or a private JWK).

    `asked` says which tokens it is asked about: `opaque` ones, or `every` one, of which JWTs must be signed by it as
    well. `prefix` is how its opaque tokens begin; needed where several issuers are asked about such. With `signed` only
    answers that the issuer signed are taken (RFC 9701). An answer is believed for `kept_seconds`: so long a token that
    was ended at the issuer still lets in; 0 asks every time.
    """

    endpoint: Url
    client_id: Annotated[str, Meta(min_length=1, max_length=500)]
    client_secret: Reference | UnsetType = UNSET
    client_key: Reference | UnsetType = UNSET
    asked: Literal["opaque", "every"] = "opaque"
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~+/-]{0,64}$")] = ""
    signed: bool = False
    kept_seconds: Annotated[int, Meta(ge=0, le=300)] = 30


def require_told_apart(asked: Mapping[str, IntrospectionSettings]) -> None:
    """See that an opaque token is of one issuer at most, by how it begins, and that it is shown to nobody else: the
    gateway proves there who it is.

    `asked` is by issuer. Raises ConfigInvalid.
    """
    for issuer, each in asked.items():
        if isinstance(each.client_secret, UnsetType) == isinstance(each.client_key, UnsetType):
            raise ConfigInvalid(
                f"`introspection` of `{issuer}` needs one of `client_secret` and `client_key`",
                hint="the issuer tells a client that it knows what a token is (RFC 7662 section 2.1)",
            )
    prefixes = sorted((each.prefix, issuer) for issuer, each in asked.items())
    for (prefix, issuer), (longer, other) in pairwise(prefixes):
        if longer.startswith(prefix):  # sorted: one that begins like another stands right behind the first such
            raise ConfigInvalid(
                f"an opaque token could be of `{issuer}` and of `{other}`, and would be shown to the wrong one",
                hint="give each a `prefix` under `introspection` with which its tokens, and no other's, begin",
            )
