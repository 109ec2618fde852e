"""One issuer over HTTP: discovery, the JWK Set, and a form for an endpoint of its, all bounded in time and size.

Redirects are not followed, no cookie is kept, no proxy of the environment used, nothing unpacked. Must not keep keys,
decide when to fetch (`issuer_keys` does) or know what a form is for (`issuer_login`).

Trust: whoever answers for an issuer's URL is the issuer. TLS says who that is; what is fetched is only ever
believed about the one issuer that was asked for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Mapping
from urllib.parse import quote_plus, urlencode, urlsplit

from onbehalf.config import IssuerSettings
from onbehalf.doors.outbound_clients import HttpClients
from onbehalf.doors.outbound_http import DeadlinePassed, HttpFailed, Reply
from onbehalf.errors import ConfigInvalid
from onbehalf.identify import KeysRefused, PublicKey, public_keys
from onbehalf.model import Json
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["KEYS_BYTES", "FetchFailed", "IssuerFetcher", "basic"]

_METADATA_BYTES = 64 * 1024
KEYS_BYTES = 256 * 1024
_DEPTH = 16
_MAX_URL = 2048
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FORM = {"content-type": "application/x-www-form-urlencoded"}


class FetchFailed(Exception):
    """It cannot be had. The message is a clause for a person, and holds nothing of what was sent. `status` is HTTP's,
    where there was an answer with another than 200; `said` is what a token endpoint said then (RFC 6749 section 5.2),
    which is hostile text."""

    def __init__(self, message: str, *, status: int = 0, said: Mapping[str, Json] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.said = said or {}


class IssuerFetcher:
    """Fetches keys for any issuer, over one pool of connections. `seconds` is for all of one issuer's requests."""

    def __init__(self, *, insecure_http: bool = False, seconds: float = 8.0) -> None:
        self._insecure = insecure_http
        self._seconds = seconds
        self._clients = HttpClients(seconds=seconds)

    def check(self, rule: IssuerSettings) -> None:
        """Raises ConfigInvalid for an issuer that must not be asked."""
        asked = rule.introspection.endpoint if rule.introspection is not None else ""
        for url in filter(None, (rule.issuer, rule.metadata, asked)):
            self.check_url(url)

    def check_url(self, url: str) -> None:
        """Raises ConfigInvalid for an address that must not be asked."""
        if not self._permitted(url):
            raise ConfigInvalid(f"`{url}` is not an https URL", hint="use https; only loopback addresses may be http")

    async def keys(self, rule: IssuerSettings) -> Mapping[str, PublicKey]:
        """The keys that the issuer publishes now, by id. Raises FetchFailed."""
        try:
            async with asyncio.timeout(self._seconds):
                found = await self.metadata(rule, "jwks_uri")
                document = await self._get(str(found["jwks_uri"]), KEYS_BYTES, "its JWK Set")
        except TimeoutError as error:
            raise FetchFailed(f"it did not answer within {self._seconds:g} s") from error
        try:
            return public_keys(document, issuer=rule.issuer)
        except KeysRefused as error:
            raise FetchFailed(str(error)) from error

    async def document(self, url: str, limit: int, what: str) -> bytes:
        """What is at a URL that `check_url` has passed. `what` is it in words. Raises FetchFailed."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._get(url, limit, what)
        except TimeoutError as error:
            raise FetchFailed(f"it did not answer within {self._seconds:g} s") from error

    async def metadata(self, rule: IssuerSettings, *names: str) -> Mapping[str, Json]:
        """The first discovery document that is the issuer's own and has these endpoints. Raises FetchFailed."""
        reasons: list[str] = []
        for url in _metadata_urls(rule):
            try:
                document = await self._get(url, _METADATA_BYTES, f"its metadata at `{url}`")
                return self._checked(document, url, rule, names)
            except FetchFailed as error:
                reasons.append(str(error))
        raise FetchFailed("; ".join(reasons))

    async def post(self, url: str, fields: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, Json]:
        """The object that an endpoint of the metadata answers to a form. Raises FetchFailed, without what it said."""
        what = "its token endpoint"
        _, body = await self.asked(
            url, fields, {"accept": "application/json", **headers}, limit=_METADATA_BYTES, what=what
        )
        try:
            return strict_object(body, depth=_DEPTH)
        except NotStrict as error:
            raise FetchFailed(f"{what} gave no usable answer") from error

    async def asked(
        self, url: str, fields: Mapping[str, str], headers: Mapping[str, str], *, limit: int, what: str
    ) -> tuple[str, bytes]:
        """The media type, in lower case, and body of the answer to a form. Raises FetchFailed, without what it said."""
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._clients.exchange("POST", url, {**_FORM, **headers}, urlencode(fields).encode()) as reply,
            ):
                if reply.status in (400, 401):
                    raise await _denied(reply, what)
                body, kind = await _answered(reply, limit, what), reply.headers.get("content-type", "")
        except (TimeoutError, DeadlinePassed) as error:
            raise FetchFailed(f"it did not answer within {self._seconds:g} s") from error
        except HttpFailed as error:
            raise FetchFailed(f"{what} cannot be reached") from error
        except ValueError as error:
            raise FetchFailed(f"{what} gave no usable answer") from error
        return kind.partition(";")[0].strip().lower(), body

    async def aclose(self) -> None:
        """Close all connections."""
        await self._clients.aclose()

    def _checked(self, document: bytes, url: str, rule: IssuerSettings, names: tuple[str, ...]) -> Mapping[str, Json]:
        try:
            members = strict_object(document, depth=_DEPTH)
        except NotStrict as error:
            raise FetchFailed(f"its metadata at `{url}` is refused: {error}") from error
        if members.get("issuer") != rule.issuer:  # RFC 8414 section 3.3: identical, or it must not be used
            raise FetchFailed(f"the metadata at `{url}` is of another issuer")
        for name in names:
            found = members.get(name)
            if not isinstance(found, str) or not self._permitted(found):
                raise FetchFailed(f"the metadata at `{url}` has no https `{name}`")
            # A document that came over TLS must not lead to one that anybody on this machine could serve.
            if url.startswith("https:") and not found.startswith("https:") and not self._insecure:
                raise FetchFailed(f"the metadata at `{url}` leads from https to http")
        return members

    def _permitted(self, url: str) -> bool:
        if len(url) > _MAX_URL or _VISIBLE.fullmatch(url) is None:
            return False
        try:
            parts = urlsplit(url)
            _ = parts.port  # raises where it is none
        except ValueError:
            return False
        if not parts.hostname or "@" in parts.netloc or "#" in url or "\\" in url:
            return False
        # Case counts: other code asks whether a URL starts with `https:`.
        return url.startswith("https://") or (
            url.startswith("http://") and (self._insecure or parts.hostname in _LOOPBACK)
        )

    async def _get(self, url: str, limit: int, what: str) -> bytes:
        try:
            async with self._clients.exchange("GET", url, {"accept": "application/json"}) as reply:
                return await _answered(reply, limit, what)
        except DeadlinePassed as error:
            raise FetchFailed(f"it did not answer within {self._seconds:g} s") from error
        except HttpFailed as error:
            raise FetchFailed(f"{what} cannot be reached") from error
        except ValueError as error:  # a URL that the client's own parser refuses
            raise FetchFailed(f"{what} is at no usable URL") from error


def basic(client_id: str, secret: str) -> str:
    """A client's `Authorization` at an issuer. RFC 6749 section 2.3.1: each part is form-encoded first."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


async def _answered(reply: Reply, limit: int, what: str) -> bytes:
    if reply.status != 200:
        raise FetchFailed(f"{what} was answered with HTTP status {reply.status}", status=reply.status)
    if reply.headers.get("content-encoding", "identity") != "identity":
        raise FetchFailed(f"{what} came packed, which nobody asked for")
    body = await reply.whole(limit)
    if body is None:
        raise FetchFailed(f"{what} is larger than {limit} bytes")
    return body


async def _denied(reply: Reply, what: str) -> FetchFailed:
    """Why an endpoint gave nothing, with what it said of it where that can be read."""
    said: Mapping[str, Json] = {}
    with contextlib.suppress(NotStrict):
        said = strict_object(await reply.whole(_METADATA_BYTES) or b"", depth=_DEPTH)
    return FetchFailed(f"{what} was answered with HTTP status {reply.status}", status=reply.status, said=said)


def _metadata_urls(rule: IssuerSettings) -> tuple[str, ...]:
    """Where the metadata is: between host and path (RFC 8414 section 3.1), or after the path (OIDC Discovery 4.1)."""
    if rule.metadata:
        return (rule.metadata,)
    parts = urlsplit(rule.issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    )
