"""An upstream of kind `openapi` as its settings say, with its tools: what may be offered of a document, and how.

Must not hold how a call is sent (upstream_openapi.py) or how a document is read (validate/api.py).

Trust: as upstream_openapi.py; the credentials come from where the configuration refers to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from onbehalf.config import OpenapiToolSettings, OpenapiUpstream
from onbehalf.config_upstreams import audience_of
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.upstream_authorization import BearerSource
from onbehalf.doors.upstream_openapi import OpenapiServer
from onbehalf.doors.upstream_openapi_document import document_bytes
from onbehalf.doors.upstream_receipts import open_receipts
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json, Tool
from onbehalf.validate import tools
from onbehalf.validate.api import Operation, read_document, read_operation
from onbehalf.validate.api_dry_run import dry_run_of
from onbehalf.validate.api_schema import exposed

__all__ = ["open_openapi"]

_OWN = frozenset(
    {"accept", "connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"}
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


async def open_openapi(
    name: str,
    upstream: OpenapiUpstream,
    *,
    base: Path,
    insecure_http: bool = False,
    authorizer: BearerSource | None = None,
) -> tuple[OpenapiServer, list[Tool]]:
    """The API named `name` and its tools; the server itself is not asked. Raises ConfigInvalid.

    `base` is the directory of the configuration file. Danger: `insecure_http` lets tokens travel in the clear.
    """
    _require_safe(upstream.url, insecure_http)
    headers = _credentials(upstream.headers, base)
    own = [*headers, *(("Authorization",) if authorizer is not None else ())]
    document = read_document(
        await document_bytes(upstream.document, base=base, hosts=upstream.document_hosts, digest=upstream.digest)
    )
    operations: dict[str, Operation] = {}
    made: list[Tool] = []
    for tool, settings in upstream.tools.items():
        remote = settings.remote or tool
        operations[remote] = read_operation(document, remote, own_headers=own)
        made.append(_tool(tool, name, settings, operations[remote]))
    door = OpenapiServer(
        upstream.url, audience=audience_of(name, upstream), operations=operations, headers=headers,
        timeout=upstream.timeout_seconds, response_bytes=upstream.response_bytes,
        private_network=upstream.private_network, receipts=open_receipts(upstream.receipt_keys, base=base),
        authorizer=authorizer,
    )  # fmt: skip
    return door, made


def _tool(name: str, upstream: str, settings: OpenapiToolSettings, operation: Operation) -> Tool:
    if settings.scoped and settings.rows is None:
        raise ConfigInvalid(f"tool `{name}` is `scoped` and maps no `rows`", hint="map what it gives to a type")
    if not operation.reads and not settings.writes:
        raise ConfigInvalid(f"tool `{name}` is {operation.method} and not marked as writing", hint="set `writes: true`")
    schema: Mapping[str, Json] = operation.schema()
    dry_run = dry_run_of(name, settings, operation)
    waived = set(settings.waived)
    own = {*settings.bound, dry_run.parameter} if dry_run else {*settings.bound}
    found = {
        path for each in operation.parameters if each.name not in own for path in exposed(each.name, each.schema)
    }  # fmt: skip
    if found - waived:
        raise ConfigInvalid(
            f"tool `{name}`: `{min(found - waived)[:80]}` may say whose data it is, or takes undeclared members",
            hint="set it under `bound`, or name it under `waived` if the model may choose it",
        )
    if waived - found:
        raise ConfigInvalid(f"tool `{name}`: there is no such parameter to waive as `{min(waived - found)}`")
    return tools.mcp_tool(
        name, upstream, settings, title=operation.title, description=operation.description, schema=schema,
        dry_run=dry_run,
    )  # fmt: skip


def _credentials(references: Mapping[str, str], base: Path) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, reference in references.items():
        if name.lower() in _OWN or name.lower() == "txn-token" or name.lower() in map(str.lower, headers):
            raise ConfigInvalid(f"the header `{name}` is the gateway's own, or stands twice")
        value = resolved(reference, base=base, what=f"headers.{name}")
        if not value.isascii() or not value.isprintable():
            raise ConfigInvalid(f"what `headers.{name}` refers to cannot stand in a header")
        headers[name] = value
    return headers


def _require_safe(url: str, insecure_http: bool) -> None:
    parts = urlsplit(url)
    dots = {".", ".."} & set(parts.path.split("/"))
    if not parts.hostname or "@" in parts.netloc or not url.isascii() or "\\" in url or "%" in url or dots:
        raise ConfigInvalid("an upstream's url is not a plain http(s) URL", hint="no user, escapes or dots in it")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not insecure_http:
        raise ConfigInvalid(f"`{url}` is not https", hint="use https; only loopback addresses may be http")
