"""Redirect addresses: which may be registered, which one fits, and how a person is told where it leads.

Exact comparison but for the port of a loopback address (RFC 8252 section 7.3, RFC 9700 section 2.1). Must not know
clients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

__all__ = ["allowed", "answer", "is_loopback", "matches", "place"]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_MAX = 1000
_VISIBLE = re.compile(r"[!-~]+")
_SCHEME = re.compile(r"[a-z][a-z0-9.+-]*")
_NETLOC = re.compile(r"[A-Za-z0-9.:\[\]_-]*")
_NEVER = frozenset(
    {"about", "blob", "chrome", "data", "file", "filesystem", "ftp", "intent", "javascript", "mailto", "tel",
     "vbscript", "view-source", "ws", "wss"}
)  # fmt: skip
"""Schemes that a browser or desktop gives a meaning of its own: an answer there is no answer to a client."""


def allowed(uri: str) -> bool:
    """Whether a client may have this address: https, http on loopback, or a private-use scheme (RFC 8252 section 7)."""
    if len(uri) > _MAX or not _VISIBLE.fullmatch(uri) or "#" in uri or "\\" in uri or '"' in uri or "<" in uri:
        return False
    try:
        parts = urlsplit(uri)
        host = parts.hostname
        _ = parts.port  # raises where it is none
    except ValueError:
        return False
    # urlsplit lowers the scheme: the text itself must be so, or two readers may see two schemes
    if not uri.startswith(f"{parts.scheme}:") or not _SCHEME.fullmatch(parts.scheme) or parts.scheme in _NEVER:
        return False
    if not _NETLOC.fullmatch(parts.netloc):  # no user info, no characters of other syntaxes
        return False
    if parts.scheme == "https":
        return bool(host)
    if parts.scheme == "http":
        return host in _LOOPBACK
    return len(uri) > len(parts.scheme) + 1


def is_loopback(uri: str) -> bool:
    """Whether the address is of a program on the person's own computer, by http."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # a host in brackets that is no address
        return False
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def matches(registered: str, asked: str) -> bool:
    """Whether an address that a client asks for is the one it has."""
    if registered == asked:
        return True
    if not allowed(asked) or not is_loopback(registered) or not is_loopback(asked):
        return False
    one, two = urlsplit(registered), urlsplit(asked)
    return one.hostname == two.hostname and (one.path, one.query) == (two.path, two.query)


def place(uri: str) -> str:
    """Where an allowed address leads, for a person: a host name, or which program opens it."""
    parts = urlsplit(uri)
    if is_loopback(uri):
        return f"a program on this computer ({parts.netloc})"
    return parts.netloc if parts.scheme == "https" else f"the program on this computer that opens {parts.scheme}: links"


def answer(uri: str, told: Mapping[str, str], *, state: str, issuer: str) -> str:
    """The address that takes an answer to a client: with its `state` as it came, and `iss` (RFC 9207 section 2)."""
    query = urlencode({**told, **({"state": state} if state else {}), "iss": issuer})
    return f"{uri}{'&' if '?' in uri else '?'}{query}"
