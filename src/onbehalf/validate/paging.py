"""Pages of a long answer, by the values of the last row before and not by a count: what comes in between moves nothing.

The last field of the order is the rows' id, so no two rows stand at one place. Where a page ends is told to the client
as a cursor: the values, sealed (AES-SIV, RFC 5297) and bound to this person, client, tool, arguments and policies, for
a quarter of an hour. So a cursor shows nothing of a row that was not released, and is worth nothing to anybody else.
Values in, values out; must not know how a statement is run.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from onbehalf.base64url import base64url
from onbehalf.errors import CursorInvalid
from onbehalf.model import Digest, Json, Page, Pages, Predicate, ToolCall, canonical

__all__ = ["ALIAS", "CURSOR", "SIZE", "cut", "opened", "properties", "sealed"]

CURSOR, SIZE = "cursor", "page_size"
"""The parameters by which a client asks for a page."""
ALIAS = "paged"
_LIFETIME_S = 900
_MAX_CURSOR = 2048
_LIMIT = "page_limit"


def properties(pages: Pages) -> dict[str, Json]:
    """What the model may send to turn pages."""
    return {
        CURSOR: {
            "type": "string",
            "maxLength": _MAX_CURSOR,
            "description": "Leave it out for the first page; then send the `next_cursor` of the page before.",
        },
        SIZE: {
            "type": "integer",
            "minimum": 1,
            "maximum": pages.size,
            "description": f"Rows a page, {pages.size} else.",
        },
    }


def opened(call: ToolCall, *, key: bytes, policy: Digest) -> Page | None:
    """The page that a call asks for, as a condition on the rows under the alias `paged`; None where it turns none.

    `key` is the gateway's secret. Raises CursorInvalid.
    """
    pages, asked = call.tool.pages, call.page
    if pages is None or asked is None:
        return None
    after = _opened(call, asked.cursor, key, policy) if asked.cursor else None
    parameters: dict[str, Json] = {_LIMIT: asked.size + 1}
    condition = _after(pages, after, parameters) if after is not None else ""
    order = ", ".join(f'{ALIAS}."{name}" {"DESC" if down else "ASC"}' for name, down in pages.by)
    text = f"{f'WHERE {condition} ' if condition else ''}ORDER BY {order} LIMIT :{_LIMIT}"
    return Page(size=asked.size, cursor=asked.cursor, tail=Predicate(sql=text, parameters=parameters))


def cut(call: ToolCall, content: Mapping[str, Json]) -> tuple[Mapping[str, Json], Json]:
    """The answer without the row that only tells that there are more, and where the page then ends; None at the end."""
    pages, page, shape = call.tool.pages, call.page, call.tool.rows
    if pages is None or page is None or shape is None:
        return content, None
    found: Json = content.get("structuredContent")
    for step in shape.at:
        found = found.get(step) if isinstance(found, dict) else None
    if not isinstance(found, list) or len(found) <= page.size:
        return content, None
    last = found[page.size - 1]
    value: Json = found[: page.size]
    for step in reversed(shape.at):
        value = {step: value}
    end: Json = [last.get(name) for name, _ in pages.by] if isinstance(last, dict) else None
    return {**content, "structuredContent": value}, end


def sealed(call: ToolCall, end: Json, *, key: bytes, policy: Digest) -> str:
    """The cursor of the page after one that ends there; "" where there is none."""
    if end is None or not key:
        return ""
    until = call.at + _LIFETIME_S
    found = _cipher(key).encrypt(orjson.dumps([until, end]), [_bound(call, policy)])
    cursor = base64url(found)
    return cursor if len(cursor) <= _MAX_CURSOR else ""


def _opened(call: ToolCall, cursor: str, key: bytes, policy: Digest) -> list[Json]:
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        until, end = orjson.loads(_cipher(key).decrypt(raw, [_bound(call, policy)]))
    except (ValueError, InvalidTag) as error:
        raise _stale() from error
    if call.at >= until:
        raise _stale()
    values: list[Json] = end
    return values


def _stale() -> CursorInvalid:
    return CursorInvalid("the cursor is not of this call, or too old", hint="ask for the first page again")


def _cipher(key: bytes) -> AESSIV:
    return AESSIV(HKDF(SHA512(), 64, salt=None, info=b"onbehalf/cursor/v1").derive(key))


def _bound(call: ToolCall, policy: Digest) -> bytes:
    bound: dict[str, Json] = {
        "tenant": call.caller.tenant, "person": call.person.known_as, "client": call.caller.client,
        "tool": call.tool.name, "definition": call.tool.definition, "arguments": call.digest, "policy": policy,
    }  # fmt: skip
    return canonical(bound)


def _after(pages: Pages, end: list[Json], parameters: dict[str, Json]) -> str:
    """That a row comes after the place, in the database's own order: its nulls are the smallest, or the largest."""
    said: list[str] = []
    same: list[str] = []
    for at, ((name, down), value) in enumerate(zip(pages.by, end, strict=True)):
        column, mark = f'{ALIAS}."{name}"', f":page_{at}"
        nulls_last = (pages.dialect == "postgres") != down
        if value is None:
            said.append(" AND ".join((*same, "FALSE" if nulls_last else f"{column} IS NOT NULL")))
            same.append(f"{column} IS NULL")
            continue
        parameters[f"page_{at}"] = value
        beyond = f"{column} {'<' if down else '>'} {mark}"
        said.append(" AND ".join((*same, f"({beyond} OR {column} IS NULL)" if nulls_last else beyond)))
        same.append(f"{column} = {mark}")
    return f"({' OR '.join(f'({each})' for each in said)})"
