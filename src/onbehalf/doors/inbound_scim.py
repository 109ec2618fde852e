"""SCIM 2.0 (RFC 7644): identity providers push users and groups of one tenant, each with a secret of its own.

What every request passes, in order (the public door has looked at Host):
1 the secret is the tenant's, compared in constant time; an unknown tenant and a wrong secret are one answer; 2 the path
and method are served; 3 a body is bounded and one JSON object; 4 what it asks for is done in one transaction that ends
when the directory took it over, so that an answer means it is in force. Must not hold what resources mean
(validate/scim*.py) or keep them (directory_scim.py).

Trust: whoever has a tenant's secret decides who is who there, and nowhere else.
"""

from __future__ import annotations

import hmac
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import parse_qsl, unquote

from onbehalf.config import Limits
from onbehalf.doors.directory_scim import Kept
from onbehalf.doors.inbound_body import parse, read
from onbehalf.doors.inbound_scim_about import about
from onbehalf.doors.inbound_wire import ClientGone, Receive, Scope, Send, send_json
from onbehalf.errors import OnbehalfError, ScimInvalid
from onbehalf.model import Json, UnixTime
from onbehalf.validate.scim import EXACT, Kind, normal, patched
from onbehalf.validate.scim_path import holds, read_filter

__all__ = ["PATH", "Answer", "Change", "ScimApp", "ScimTenant"]

_log = logging.getLogger(__name__)
PATH = "/scim/v2/"
_KINDS: Mapping[str, Kind] = {"Users": "User", "Groups": "Group"}
_LIMITS = Limits(body_bytes=4 * 2**20, body_seconds=20, depth=16)
_MOST = 200
_MAX_QUERY = 4096
_TYPE = (b"content-type", b"application/scim+json")
_ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
_LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_CORE = "urn:ietf:params:scim:schemas:core:2.0:"
_ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to become of a resource: `body` as it will be, None for deleted; `kept` as it is, None for a new one."""

    tenant: str
    kind: Kind
    kept: Kept | None
    body: Mapping[str, Json] | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScimTenant:
    """One tenant that is pushed. `secret` is the digest of the provider's."""

    tenant: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back: a status, a body where there is one, and headers."""

    status: int = 200
    body: Json = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class ScimApp:
    """The ASGI app below `/scim/v2/`. `look` gives what is kept of a tenant, `make` brings a change about or raises."""

    def __init__(
        self,
        tenants: Sequence[ScimTenant],
        *,
        origin: str,
        look: Callable[[str, Kind], Awaitable[list[Kept]]],
        make: Callable[[Change], Awaitable[Kept | None]],
    ) -> None:
        self._tenants = {each.tenant: each for each in tenants}
        self._origin = origin
        self._look = look
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        """Answer one request below PATH whose Host is ours; `headers` by lower-case name."""
        try:
            answer = await self._answer(scope, receive, headers)
        except ClientGone:
            return
        except ScimInvalid as error:
            answer = _error(error.http, error.message, error.kind)
        except OnbehalfError as error:
            _log.warning("a push was refused with %s: %r", error.code, error.message)
            answer = _error(503 if error.status >= 500 else error.status, error.message)
        except sqlite3.Error as error:
            _log.error("a push could not be kept: %s", error)
            answer = _error(503, "it could not be kept; nothing was changed")
        except Exception:  # the door's last resort: refuse without details, and log them
            _log.exception("a push failed")
            answer = _error(500, "something is wrong here; nothing was promised")
        await _send(send, answer)

    async def _answer(self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes]) -> Answer:
        tenant, _, rest = str(scope["path"]).removeprefix(PATH).partition("/")
        if not self._admits(tenant, headers.get(b"authorization", b"")):  # 1
            return Answer(status=401, body=_told(401, "no tenant and secret that fit"), headers=(_CHALLENGE,))
        name, _, id = rest.partition("/")
        method = scope["method"]
        if name not in _KINDS:  # 2
            found = about(rest, f"{self._origin}{PATH}{tenant}")
            return _error(404, "there is no such address") if found is None or method != "GET" else Answer(body=found)
        kind = _KINDS[name]
        if method == "GET":
            query = _query(scope)
            return await (self._one(tenant, kind, id) if id else self._list(tenant, kind, query))
        if (method, bool(id)) not in (("POST", False), ("PUT", True), ("PATCH", True), ("DELETE", True)):
            return _error(405, "this cannot be done here")
        body: dict[str, Json] = {}
        if method != "DELETE":
            found_body = parse(await read(receive, dict(headers), _LIMITS), depth=_LIMITS.depth)  # 3
            if not isinstance(found_body, dict):
                raise ScimInvalid("the body is not one JSON object", kind="invalidSyntax")
            body = found_body
        return await self._change(method, tenant, kind, unquote(id), body, headers.get(b"if-match", b""))

    def _admits(self, tenant: str, authorization: bytes) -> bool:
        kind, _, secret = authorization.partition(b" ")
        known = self._tenants.get(tenant)
        expected = known.secret if known is not None else bytes(32)
        return hmac.compare_digest(sha256(secret.strip()).digest(), expected) and kind.lower() == b"bearer"

    async def _one(self, tenant: str, kind: Kind, id: str) -> Answer:
        found = await self._find(tenant, kind, unquote(id))
        return _error(404, "there is no such resource") if found is None else self._shown(tenant, found)

    async def _find(self, tenant: str, kind: Kind, id: str) -> Kept | None:
        return next((each for each in await self._look(tenant, kind) if each.id == id and not each.deleted), None)

    async def _list(self, tenant: str, kind: Kind, query: Mapping[str, str]) -> Answer:
        tests = read_filter(query["filter"]) if query.get("filter") else ()
        found = [each for each in await self._look(tenant, kind) if not each.deleted]
        hits = [each for each in found if holds(tests, {"id": each.id, **each.body}, exact=EXACT)]
        start, count = max(1, _number(query, "startIndex", 1)), min(_MOST, max(0, _number(query, "count", 100)))
        shown = hits[start - 1 : start - 1 + count]
        return Answer(
            body={
                "schemas": [_LIST],
                "totalResults": len(hits),
                "startIndex": start,
                "itemsPerPage": len(shown),
                "Resources": [self._resource(tenant, each) for each in shown],
            }
        )

    async def _change(
        self, method: str, tenant: str, kind: Kind, id: str, body: dict[str, Json], match: bytes
    ) -> Answer:  # 4
        kept = await self._find(tenant, kind, id) if id else None
        if id and kept is None:
            return _error(404, "there is no such resource")
        if match and kept is not None and match.strip() not in (b"*", _version(kept)):
            return _error(412, "it was changed since it was looked at")
        if method == "DELETE":
            await self._make(Change(tenant=tenant, kind=kind, kept=kept, body=None))
            return Answer(status=204)
        made = patched(kind, kept.body, body) if method == "PATCH" and kept is not None else normal(kind, body)
        changed = await self._make(Change(tenant=tenant, kind=kind, kept=kept, body=made))
        assert changed is not None  # INVARIANT: only what is deleted is gone
        return self._shown(tenant, changed, status=201 if method == "POST" else 200)

    def _shown(self, tenant: str, kept: Kept, *, status: int = 200) -> Answer:
        body = self._resource(tenant, kept)
        meta = body["meta"]
        assert isinstance(meta, dict)
        place = (b"location", str(meta["location"]).encode("ascii", "replace"))
        return Answer(status=status, body=body, headers=(place, (b"etag", _version(kept))))

    def _resource(self, tenant: str, kept: Kept) -> dict[str, Json]:
        schemas: list[Json] = [f"{_CORE}{kept.kind}"]
        if _ENTERPRISE in kept.body:
            schemas.append(_ENTERPRISE)
        meta: dict[str, Json] = {
            "resourceType": kept.kind, "created": _time(kept.created), "lastModified": _time(kept.modified),
            "location": f"{self._origin}{PATH}{tenant}/{kept.kind}s/{kept.id}", "version": _version(kept).decode(),
        }  # fmt: skip
        return {"schemas": schemas, "id": kept.id, **kept.body, "meta": meta}


_CHALLENGE = (b"www-authenticate", b'Bearer realm="scim"')


async def _send(send: Send, answer: Answer) -> None:
    if answer.body is None:
        await send({"type": "http.response.start", "status": answer.status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return

    async def as_scim(message: Scope) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message["headers"] if pair[0] != b"content-type"]
            message = {**message, "headers": [_TYPE, *kept]}
        await send(message)

    await send_json(as_scim, answer.status, answer.body, answer.headers)


def _error(status: int, detail: str, kind: str = "") -> Answer:
    return Answer(status=status, body=_told(status, detail, kind))


def _told(status: int, detail: str, kind: str = "") -> dict[str, Json]:
    told: dict[str, Json] = {"schemas": [_ERROR], "status": str(status), "detail": detail}
    return {**told, "scimType": kind} if kind else told


def _query(scope: Scope) -> Mapping[str, str]:
    if len(scope["query_string"]) > _MAX_QUERY:
        raise ScimInvalid("the query is too long", kind="invalidFilter")
    try:
        return dict(parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=20))
    except ValueError as error:
        raise ScimInvalid("the query cannot be read", kind="invalidFilter") from error


def _number(query: Mapping[str, str], name: str, other: int) -> int:
    text = query.get(name, "")
    if not text:
        return other
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 10):
        raise ScimInvalid(f"`{name}` is no number", kind="invalidValue")
    return int(text)


def _version(kept: Kept) -> bytes:
    return f'W/"{kept.version}"'.encode()


def _time(at: UnixTime) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
