"""The rules for request headers: which stand once, and MCP's mirrored headers against the body.

Headers that speak of an identity (X-User-*, X-Tenant-*, Txn-Token, X-Forwarded-*, Forwarded) are never read, here or
anywhere in the doors, but for a certificate's where inbound_proof.py is told to. Must not call the house.

Trust: every header is the client's own word; a mirrored one counts only where the body says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import cast
from urllib.parse import parse_qsl

from onbehalf.doors.mcp_words import decode_header, marks_headers, sdk_headers
from onbehalf.errors import (
    CredentialsRefused,
    HeaderMismatch,
    MediaTypeRefused,
    NotAcceptable,
)
from onbehalf.model import Json, Tool

__all__ = ["CREDENTIALS", "ParameterHeaders", "check_media", "check_mirrors", "refuse_token_in_query", "unique"]

_ONCE = frozenset(
    {
        b"mcp-protocol-version",
        b"mcp-method",
        b"mcp-name",
        b"mcp-session-id",
        b"host",
        b"origin",
        b"content-type",
        b"content-length",
    }
)
CREDENTIALS = frozenset({b"authorization", b"dpop"})
"""Headers that show who calls: of two nobody can say which counts (RFC 9449 section 4.3, number 1)."""
_ACCEPTED = frozenset({b"application/json", b"application/*", b"*/*"})
_SHORT = 128
"""Names of methods and tools are; what is longer is not remembered."""
_QUERY_TOKENS = frozenset({"access_token", "token", "bearer", "authorization", "id_token"})


def unique(raw: list[tuple[bytes, bytes]], credentials: frozenset[bytes] = CREDENTIALS) -> dict[bytes, bytes]:
    """Headers by lower-case name. Raises HeaderMismatch for one that stands twice, CredentialsRefused for those that
    are `credentials`.

    Two readers of a doubled header, one taking the first and one the last, would see two requests. White space around
    a value is not part of it (RFC 9110 section 5.5), and the server's parser leaves what trails.
    """
    headers = {name: value.strip(b" \t") for name, value in raw}
    if len(headers) == len(raw):
        return headers
    seen: set[bytes] = set()
    for name, _ in raw:
        if name in seen:
            if name in credentials:
                raise CredentialsRefused(f"header `{name.decode('latin-1')[:60]}` stands twice", hint="send it once")
            if name in _ONCE or name.startswith(b"mcp-param-"):
                raise HeaderMismatch(f"header `{name.decode('latin-1')[:60]}` stands twice", hint="send it once")
        seen.add(name)
    if b"accept" in headers:
        headers[b"accept"] = b",".join(value for name, value in raw if name == b"accept")
    return headers


def refuse_token_in_query(query: bytes) -> None:
    """Raise CredentialsRefused where the query names a token: URLs end up in logs (MCP authorization)."""
    names = {name.lower() for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
    if names & _QUERY_TOKENS:
        raise CredentialsRefused("a token stands in the query string", hint="send it in the Authorization header only")


def check_media(headers: Mapping[bytes, bytes]) -> None:
    """JSON in and JSON out. Raises NotAcceptable (an absent Accept names nothing, as in the SDK), MediaTypeRefused.

    A browser's form or `text/plain` post, which needs no preflight, ends here too.
    """
    if not _accepts_json(headers.get(b"accept", b"")):
        raise NotAcceptable("the client does not accept `application/json`", hint="accept it, and text/event-stream")
    if not _is_json(headers.get(b"content-type", b"")):
        raise MediaTypeRefused("the body is not said to be JSON", hint="send `Content-Type: application/json`")


@lru_cache(maxsize=256)
def _accepts_json(accept: bytes) -> bool:
    return any(part.partition(b";")[0].strip().lower() in _ACCEPTED for part in accept.split(b","))


@lru_cache(maxsize=256)
def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


def check_mirrors(headers: Mapping[bytes, bytes], message: Mapping[str, Json], *, required: bool) -> None:
    """Mcp-Method and Mcp-Name say what the body says. Raises HeaderMismatch.

    In 2026-07-28 they are `required`; an older client need not send them, but what it sends must be true, or a
    proxy before us that filters on them could be told one thing and we another.
    """
    method = message.get("method")
    _agree(headers.get(b"mcp-method"), method, name="Mcp-Method", required=required)
    if method != "tools/call":
        return
    params = message.get("params")
    named = params.get("name") if isinstance(params, dict) else None
    _agree(headers.get(b"mcp-name"), named, name="Mcp-Name", required=required)


def _agree(raw: bytes | None, value: Json, *, name: str, required: bool) -> None:
    if raw is None:
        if required:
            raise HeaderMismatch(f"header `{name}` is missing", hint="mirror the body in the headers (MCP 2026-07-28)")
        return
    if (_said(raw) if len(raw) <= _SHORT else decode_header(raw.decode("latin-1"))) != value:
        raise HeaderMismatch(f"header `{name}` does not match the body", hint="mirror the body in the headers")


@lru_cache(maxsize=256)
def _said(raw: bytes) -> str | None:
    return decode_header(raw.decode("latin-1"))


class ParameterHeaders:
    """`Mcp-Param-*` against arguments, where a tool's schema declares `x-mcp-header`.

    Which tools declare any is worked out once per definition. Fails closed: where the comparison cannot be made,
    the call is refused.
    """

    def __init__(self, tool: Callable[[str], Tool | None]) -> None:
        self._tool = tool
        self._declares: dict[str, tuple[str, bool]] = {}

    def check(self, name: str, arguments: Mapping[str, Json], headers: Mapping[bytes, bytes]) -> None:
        """Raises HeaderMismatch. An unknown tool has nothing declared; the house refuses it."""
        tool = self._tool(name)
        if tool is None:
            return
        known = self._declares.get(name)
        if known is None or known[0] != tool.definition:
            known = self._declares[name] = (tool.definition, _declares(tool.schema))
        if not known[1]:
            return
        schema = cast("dict[str, Json]", tool.schema)
        text = {key.decode("latin-1"): value.decode("latin-1") for key, value in headers.items()}
        rules = sdk_headers()
        verdict = rules.validate_mcp_param_headers(schema, arguments, text)
        if isinstance(verdict, rules.InboundLadderRejection):
            raise HeaderMismatch(verdict.message, hint="mirror the arguments that the schema marks `x-mcp-header`")


def _declares(schema: Mapping[str, Json]) -> bool:
    # Clients drop a tool whose annotations are invalid and send no header for it, so there is nothing to compare.
    if not marks_headers(schema):
        return False
    rules = sdk_headers()
    return rules.find_invalid_x_mcp_header(schema) is None and bool(rules.x_mcp_header_map(schema))
