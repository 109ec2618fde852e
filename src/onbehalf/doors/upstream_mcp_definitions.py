"""The tools of an MCP server written down: a file that a person looked at and the configuration pins.

It is the server's own list as tools/list gives it, or as `onbehalf tools` writes it. Must not ask a server.

Trust: what stands in the file was the server's own words; the digest says that they are those somebody looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from onbehalf.doors.pinned_file import file_bytes, require_pinned
from onbehalf.doors.upstream_mcp_answer import Described, Listed, definition, listed
from onbehalf.errors import ConfigInvalid
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["pinned_tools", "read_definitions", "written_definitions"]

_DEPTH = 64
_MAX_TOOLS = 1000


def pinned_tools(place: str, digest: str, *, base: Path) -> Listed:
    """The tools in a file below `base`, if its bytes have the digest. Raises ConfigInvalid."""
    data = file_bytes(base / place, what=f"the file of definitions `{place}`")
    require_pinned(data, digest, what=f"the file of definitions `{place}`")
    return read_definitions(data, what=f"`{place}`")


def read_definitions(data: bytes, *, what: str) -> Listed:
    """The tools that a file says. `what` is the file in words. Raises ConfigInvalid, also for one tool of no use."""
    try:
        items = strict_object(data, depth=_DEPTH).get("tools")
    except NotStrict as error:
        raise ConfigInvalid(f"{what} is refused: {error}", hint=_HINT) from error
    if not isinstance(items, list) or len(items) > _MAX_TOOLS:
        raise ConfigInvalid(f"{what} has no list `tools` of at most {_MAX_TOOLS}", hint=_HINT)
    found = listed(items, of=what)
    if found.odd:
        raise ConfigInvalid(found.odd[0], hint="mend it, or take it out")
    return found


_HINT = "`onbehalf tools` writes such a file"


def written_definitions(tools: Mapping[str, Described]) -> bytes:
    """The file that says these tools: every word that a model is shown, in a stable order, for people to compare."""
    items = [definition(tools[name]) for name in sorted(tools)]
    return orjson.dumps({"tools": items}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"
