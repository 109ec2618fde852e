"""What an MCP server says, read: the result of a tool call, tools as they are listed, and what a failure means.

Bounded already, not believed.

Must not send anything, or know HTTP.

Trust: every word is the server's own; only members that are known go on, and `_meta` never does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onbehalf.doors.mcp_words import marks_headers, sdk_headers
from onbehalf.doors.upstream_authorization import AuthorizationFailed
from onbehalf.doors.upstream_mcp_wire import Garbage, Late, NotSent, Rejected, ServerAsks, WireError
from onbehalf.errors import ReceiptRefused
from onbehalf.model import Done, Json, canonical

__all__ = ["UNREAD_CODES", "Described", "Listed", "classed", "definition", "described", "done", "listed", "unread"]

UNREAD_CODES = frozenset({-32700, -32600, -32601, -32602, -32020, -32021, -32022})
"""Errors that say the call was not begun: JSON-RPC 2.0 section 5.1 and MCP 2026-07-28's own."""
_MAX_DESCRIPTION = 64 * 1024
_NAME = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A tool in its server's own words: hostile text until a person has pinned it."""

    name: str
    title: str
    description: str
    schema: Mapping[str, Json]
    output: Mapping[str, Json] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A list of tools by name, why others are left out, and which arguments of a tool go into headers as well."""

    tools: Mapping[str, Described]
    odd: tuple[str, ...]
    mirrors: Mapping[str, dict[tuple[str, ...], str]]


def definition(described: Described) -> Json:
    """What is pinned of a tool: every word that a model is shown."""
    return {
        "name": described.name,
        "title": described.title,
        "description": described.description,
        "inputSchema": dict(described.schema),
    }


def done(result: Mapping[str, Json]) -> Done:
    """A tool's result, its known members only. Raises ServerAsks, Garbage."""
    kind = result.get("resultType", "complete")  # absent in older revisions, which means complete
    if kind == "input_required":
        raise ServerAsks("the server wants more input, which nobody here can give")
    if kind != "complete":
        raise Garbage("the result is of a kind that is not known")
    content = result.get("content", [])
    for block in content if isinstance(content, list) else (None,):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise Garbage("the result's content is not a list of blocks")
    is_error = result.get("isError", False)
    if not isinstance(is_error, bool):
        raise Garbage("the result does not say whether it is an error")
    members: dict[str, Json] = {"content": content, "isError": is_error}
    if "structuredContent" in result:
        members["structuredContent"] = result["structuredContent"]
    return Done(content=members)


def described(item: Json) -> tuple[Described | None, str]:
    """A tool as listed, or why it is left out."""
    if not isinstance(item, dict):
        return None, "it is not an object"
    name, schema, output = item.get("name"), item.get("inputSchema"), item.get("outputSchema")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        return None, "its name is not 1 to 128 visible ASCII characters"
    notes = item.get("annotations")
    title = item.get("title", notes.get("title", "") if isinstance(notes, dict) else "")
    description = item.get("description", "")
    if (
        not isinstance(title, str)
        or not isinstance(description, str)
        or len(title) + len(description) > _MAX_DESCRIPTION
    ):
        return None, f"`{name}` has words that are no text, or too many"
    if not isinstance(schema, dict) or schema.get("type") != "object" or not isinstance(output, dict | None):
        return None, f"`{name}` has no object schema"
    if marks_headers(schema) and sdk_headers().find_invalid_x_mcp_header(schema) is not None:
        return None, f"`{name}` has an invalid `x-mcp-header`"
    found = Described(name=name, title=title, description=description, schema=schema, output=output)
    try:
        canonical(definition(found))
    except ValueError:
        return None, f"`{name}` cannot be pinned: its definition has no canonical form"
    return found, ""


def listed(items: Sequence[Json], *, of: str) -> Listed:
    """The tools of a list that can be used as described. `of` is whose they are, for what is said of the others."""
    found: dict[str, Described] = {}
    odd: list[str] = []
    mirrors: dict[str, dict[tuple[str, ...], str]] = {}
    seen: set[str] = set()
    for item in items:
        tool, reason = described(item)
        if tool is not None and tool.name not in seen:
            seen.add(tool.name)
            found[tool.name] = tool
            if marks_headers(tool.schema):
                mirrors[tool.name] = sdk_headers().x_mcp_header_map(dict(tool.schema))
            continue
        if tool is not None:  # which of the two a call would meet is a guess
            found.pop(tool.name, None)
        odd.append(f"a tool of {of} is left out: {reason or 'its name stands twice'}")
    return Listed(tools=found, odd=tuple(odd), mirrors=mirrors)


def unread(error: Rejected) -> bool:
    """Whether a status says that the call was not begun. 408 and all of 3xx and 5xx may come after it was."""
    if error.code is not None:
        return error.code in UNREAD_CODES or error.status in (401, 403, 404)
    return 400 <= error.status < 500 and error.status != 408


def classed(error: Exception) -> tuple[str, str]:
    """The stable code of a failure, and a message of our own words."""
    if isinstance(error, TimeoutError | Late):
        return "upstream_timed_out", "the server did not answer in time"
    if isinstance(error, ReceiptRefused):
        return error.code, error.message
    if isinstance(error, AuthorizationFailed):
        return error.code, str(error)
    if isinstance(error, NotSent):
        return "upstream_unavailable", str(error)
    if isinstance(error, ServerAsks):
        return "upstream_asks", str(error)
    if isinstance(error, Garbage):
        return "upstream_garbage", str(error)
    if isinstance(error, Rejected):
        if error.status in (401, 403):
            return "upstream_refused", str(error)
        return "upstream_unavailable" if error.status >= 500 else "upstream_error", str(error)
    if isinstance(error, WireError):
        return "upstream_error", str(error)
    return "upstream_error", f"the exchange failed: {type(error).__name__}"
