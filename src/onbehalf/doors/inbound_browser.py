"""What the pages share: a browser's request read in one meaning, a page or a way onwards, and sending it.

Plain forms, no script. Must not know what a page is about.

Trust: cookies and parameters are the browser's word.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl

from onbehalf.doors.inbound_approve_style import STYLE
from onbehalf.doors.inbound_wire import Scope, Send
from onbehalf.errors import RequestRefused

__all__ = ["HEADERS", "BrowserRequest", "Page", "pairs", "read_browser", "send_page"]

_MAX_QUERY = 16 * 1024
_MAX_COOKIES = 8192
_MAX_FIELDS = 40
_AGAIN = "open the link that you were given, or start again from the program you came from"
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'".encode(),
    ),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),  # `no-referrer` would take the Origin from our own forms
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""Sent with every page and redirect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserRequest:
    """One request, read. `rest` is the path below the pages'; `query` and `cookies` hold each name once."""

    method: str
    rest: str
    query: Mapping[str, str]
    cookies: Mapping[str, str]
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page, or where to go on. `keep` are cookies to set, with their seconds."""

    status: int = 200
    body: str = ""
    to: str = ""
    keep: Mapping[str, tuple[str, int]] = field(default_factory=lambda: MappingProxyType({}))


def read_browser(scope: Scope, headers: Mapping[bytes, bytes], *, below: str) -> BrowserRequest:
    """The request of a browser to a page below a path. Raises RequestRefused."""
    if len(scope["query_string"]) > _MAX_QUERY or len(headers.get(b"cookie", b"")) > _MAX_COOKIES:
        raise RequestRefused("the request is too large", hint=_AGAIN)
    return BrowserRequest(
        method=scope["method"],
        rest=str(scope["path"]).removeprefix(below),
        query=pairs(scope["query_string"].decode("latin-1")),
        cookies=_cookies(headers.get(b"cookie", b"").decode("latin-1")),
        origin=headers.get(b"origin", b"").decode("latin-1").lower(),
    )


def pairs(encoded: str) -> Mapping[str, str]:
    """Parameters, each at most once (RFC 6749 section 3.1). Raises RequestRefused."""
    try:
        found = parse_qsl(encoded, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise RequestRefused("the parameters cannot be read", hint=_AGAIN) from error
    if len(dict(found)) != len(found):
        raise RequestRefused("a parameter stands twice", hint=_AGAIN)
    return dict(found)


async def send_page(send: Send, answer: Page, *, secure: bool, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Send it. With `secure` cookies are for https alone."""
    body = answer.body.encode("utf-8", "replace")
    sent = [*HEADERS, *headers, (b"content-length", str(len(body)).encode())]
    if answer.to:
        sent.append((b"location", answer.to.encode("ascii", "replace")))
    for name, (value, seconds) in answer.keep.items():
        cookie = f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
        sent.append((b"set-cookie", cookie.encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


def _cookies(header: str) -> Mapping[str, str]:
    """Cookies by name; of one that stands twice, none: another site's subdomain may have set the other."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name in found:
            twice.add(name)
        found[name] = value
    return {name: value for name, value in found.items() if name not in twice}
