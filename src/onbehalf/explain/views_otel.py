"""A record as an OpenTelemetry log record, with the names of the GenAI and MCP semantic conventions.

The body is the record's JSON line; attributes repeat some of it. Of a decision those conventions know nothing: such
names begin with `onbehalf.`. Arguments are never an attribute (`gen_ai.tool.call.arguments` is opt-in there, for being
sensitive). Nothing here is a trace id: what a client sends as one is its own choice, and no evidence.
Must not hold how log records are sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.views import View, json_line, read_json_line
from onbehalf.explain.views_said import Said, one_line, said
from onbehalf.model import Json

__all__ = ["SCOPE", "attributes", "export", "log_record", "read_log_record", "span_name"]

SCOPE = "onbehalf.record"
_INFO, _WARN, _ERROR = 9, 13, 17
"""SeverityNumber of the logs data model."""


def attributes(view: View) -> dict[str, Json]:
    """The attributes of a record, for a log record or a span."""
    flat = said(view)
    known: dict[str, Json] = {
        "error.type": _error(flat),
        "gen_ai.agent.id": flat.client,
        "gen_ai.operation.name": "execute_tool" if flat.tool else "",
        "gen_ai.tool.call.id": flat.call if flat.tool else "",
        "gen_ai.tool.name": flat.tool,
        "mcp.method.name": "tools/call" if flat.tool else "",
        "mcp.protocol.version": flat.protocol,
        "user.id": flat.person,
        "user_agent.original": flat.agent,
    }
    own: dict[str, Json] = {
        "onbehalf.call.id": flat.call,
        "onbehalf.command": flat.command,
        "onbehalf.decision": flat.effect,
        "onbehalf.event.id": view.leaf.id,
        "onbehalf.log.index": view.index,
        "onbehalf.log.leaf": view.hash,
        "onbehalf.log.origin": view.log,
        "onbehalf.outcome": flat.status,
        "onbehalf.policy.ids": list(flat.policies),
        "onbehalf.policy.set.digest": flat.policy,
        "onbehalf.purpose": flat.purpose,
        "onbehalf.reader.claimed": flat.reader,
        "onbehalf.reason.code": flat.code,
        "onbehalf.tenant": flat.tenant,
        "onbehalf.upstream": flat.upstream,
    }
    if flat.released >= 0:
        own["onbehalf.rows.released"] = flat.released
    return {name: _clean(value) for name, value in (known | own).items() if value not in ("", [])}


def span_name(view: View) -> str:
    """What a span of this call is called (MCP semantic conventions): method and tool."""
    tool = said(view).tool
    return f"tools/call {one_line(tool, 200)}" if tool else view.leaf.kind


def log_record(view: View) -> dict[str, Json]:
    """The log record in OTLP's JSON form (64-bit numbers are text there)."""
    nanoseconds = str(view.leaf.at * 1_000_000_000)
    number, text = _severity(said(view))
    return {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": number,
        "severityText": text,
        "eventName": f"onbehalf.{view.leaf.kind}",
        "body": {"stringValue": json_line(view).decode()},
        "attributes": _pairs(attributes(view)),
    }


def read_log_record(record: Json) -> View:
    """The view of a log record. Raises LedgerCorrupt, also where an attribute says otherwise than the record in it."""
    body = record.get("body") if isinstance(record, dict) else None
    text = body.get("stringValue") if isinstance(body, dict) else None
    found = read_json_line(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b"")
    if log_record(found) != record:
        raise LedgerCorrupt("the log record's attributes are not those of its record")
    return found


def export(views: Sequence[View], *, version: str, resource: Mapping[str, Json]) -> dict[str, Json]:
    """An ExportLogsServiceRequest in OTLP's JSON form. `resource` says more of where they come from than the service's
    name."""
    about: dict[str, Json] = {"service.name": "onbehalf", "service.version": version, **resource}
    logs: Json = [log_record(each) for each in views]
    scoped: Json = [{"scope": {"name": SCOPE, "version": version}, "logRecords": logs}]
    return {"resourceLogs": [{"resource": {"attributes": _pairs(about)}, "scopeLogs": scoped}]}


def _error(flat: Said) -> str:
    failed = flat.effect == "deny" or flat.status in ("failed", "unknown")
    return (flat.code or "_OTHER") if failed else ""


def _severity(flat: Said) -> tuple[int, str]:
    if flat.status == "unknown":
        return _ERROR, "ERROR"
    return (_WARN, "WARN") if flat.effect == "deny" or flat.status == "failed" else (_INFO, "INFO")


def _clean(value: Json) -> Json:
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return one_line(value) if isinstance(value, str) else value


def _pairs(values: Mapping[str, Json]) -> list[Json]:
    return [{"key": name, "value": _any_value(values[name])} for name in sorted(values)]


def _any_value(value: Json) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(each) for each in value]}}
    return {"stringValue": value}
