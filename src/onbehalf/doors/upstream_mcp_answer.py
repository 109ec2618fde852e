"""What an MCP server says, read: the result of a tool call, and a tool as it is listed. Bounded already, not believed.

Must not send anything, or know HTTP.

Trust: every word is the server's own; only members that are known go on, and `_meta` never does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from onbehalf.doors.mcp_words import marks_headers, sdk_headers
from onbehalf.doors.upstream_mcp_wire import Garbage, ServerAsks
from onbehalf.model import Done, Json, canonical

__all__ = ["Described", "definition", "described", "done"]

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
    if not isinstance(content, list) or not all(
        isinstance(block, dict) and isinstance(block.get("type"), str) for block in content
    ):
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
