"""Who may be a client: one that is configured, one that publishes its metadata, or one that registered itself.

Client metadata (RFC 7591 section 2) in whichever way it came: bounded, every redirect address one that may be. Names
are claims of whoever wrote them. Must not fetch or keep metadata, or prove that a client is who it says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from onbehalf.broker import redirect
from onbehalf.broker.refused import OauthRefused
from onbehalf.model import Json

__all__ = ["METHODS", "Client", "Origin", "from_metadata", "is_published_id"]

Origin = Literal["configured", "published", "registered"]

METHODS = ("none", "private_key_jwt")
"""How a client may show at the token endpoint who it is, where it is not configured with a secret."""
_MAX_URIS = 20
_MAX_NAME = 100
_MAX_ID = 255
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An OAuth client. `origin` says how it is known, `methods` how it may authenticate (RFC 7591 section 2).

    `keys` are its JWK Set as it stands, or `keys_at` is where to fetch it; both empty for a public client. `secret` is
    for configured clients only. With `dpop` it says of itself that it always proves a key (RFC 9449 section 5.2).
    """

    id: str
    name: str
    redirect_uris: tuple[str, ...]
    methods: tuple[str, ...]
    origin: Origin
    keys: Mapping[str, Json] = field(default_factory=dict)
    keys_at: str = ""
    secret: str = field(default="", repr=False)
    dpop: bool = False

    def redirect(self, asked: str) -> str:
        """The address to answer at. Raises OauthRefused for one that is not the client's own: answer nowhere then."""
        if not any(redirect.matches(registered, asked) for registered in self.redirect_uris):
            raise OauthRefused(
                "invalid_request", "the redirect address is not one of the client's",
                hint="start again from the program you came from; do not trust a link that led here",
            )  # fmt: skip
        return asked


def is_published_id(id: str) -> bool:
    """Whether a client id is a URL where the client's metadata is (draft-ietf-oauth-client-id-metadata-document-00).

    https, with a path, without user info, fragment, query or dot segments, in its one spelling.
    """
    if not 1 <= len(id) <= _MAX_ID or not _VISIBLE.fullmatch(id) or not id.startswith("https://"):
        return False
    try:
        parts = urlsplit(id)
        port = parts.port
    except ValueError:
        return False
    sound = parts.hostname and parts.path not in ("", "/") and port != 0
    plain = not ({"@", "#", "?", "\\", "%"} & set(id)) and not {".", ".."} & set(parts.path.split("/"))
    return bool(sound) and plain and parts.netloc == parts.netloc.lower()


def from_metadata(document: Mapping[str, Json], *, id: str, origin: Origin) -> Client:
    """A client from its metadata. Raises OauthRefused with `invalid_client_metadata` or `invalid_redirect_uri`.

    A method that is not offered here is replaced by `none`, as RFC 7591 section 3.2.1 lets a server do; a published
    client that can only use others is refused, since it cannot be told.
    """
    uris = document.get("redirect_uris")
    if not isinstance(uris, list) or not 1 <= len(uris) <= _MAX_URIS:
        raise OauthRefused("invalid_redirect_uri", f"`redirect_uris` is not a list of 1 to {_MAX_URIS} addresses")
    texts = tuple(uri for uri in uris if isinstance(uri, str) and redirect.allowed(uri))
    if len(texts) != len(uris):
        raise OauthRefused(
            "invalid_redirect_uri", "a redirect address is neither https, http on loopback, nor of a private-use scheme"
        )
    _require_code(document)
    name = document.get("client_name", "")
    if not isinstance(name, str) or len(name) > _MAX_NAME or (origin == "published" and not name.strip()):
        raise _bad(f"`client_name` is not a text of at most {_MAX_NAME} characters")
    methods = _methods(document, origin)
    keys, keys_at = _keys(document)
    if "private_key_jwt" in methods and not keys and not keys_at:
        raise _bad("`private_key_jwt` needs `jwks` or `jwks_uri`")
    dpop = document.get("dpop_bound_access_tokens", False)
    if not isinstance(dpop, bool):
        raise _bad("`dpop_bound_access_tokens` is neither true nor false")
    return Client(
        id=id, name=name.strip(), redirect_uris=texts, methods=methods, origin=origin, keys=keys, keys_at=keys_at,
        dpop=dpop,
    )  # fmt: skip


def _require_code(document: Mapping[str, Json]) -> None:
    for name, needed in (("grant_types", "authorization_code"), ("response_types", "code")):
        listed = document.get(name, [needed])
        if not isinstance(listed, list) or needed not in listed:
            raise _bad(f"`{name}` does not have `{needed}`, which is what this server gives")


def _methods(document: Mapping[str, Json], origin: Origin) -> tuple[str, ...]:
    listed = document.get("token_endpoint_auth_methods_supported")
    named = listed if isinstance(listed, list) else [document.get("token_endpoint_auth_method", "none")]
    methods = tuple(each for each in METHODS if each in named)
    if not methods and origin == "published":
        raise _bad("none of the client's authentication methods is taken here: " + ", ".join(METHODS))
    return methods or ("none",)


def _keys(document: Mapping[str, Json]) -> tuple[Mapping[str, Json], str]:
    keys, keys_at = document.get("jwks", {}), document.get("jwks_uri", "")
    if not isinstance(keys, dict) or not isinstance(keys_at, str) or (keys and keys_at):
        raise _bad("of `jwks` and `jwks_uri` there is at most one: an object or an address")
    if keys_at and not (keys_at.startswith("https://") and _VISIBLE.fullmatch(keys_at) and len(keys_at) <= 2048):
        raise _bad("`jwks_uri` is not an https address")
    return keys, keys_at


def _bad(message: str) -> OauthRefused:
    return OauthRefused("invalid_client_metadata", message)
