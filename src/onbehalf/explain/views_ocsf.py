"""A record as an OCSF 1.8.0 API Activity event (class 6003) with the profile `security_control`.

The record's document is under `unmapped`, whole; the other attributes repeat some of it under OCSF's names.
Must not hold how events are sent.
"""

from __future__ import annotations

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.views import View, document, read_document
from onbehalf.explain.views_said import Said, one_line, said
from onbehalf.model import Json

__all__ = ["CLASS_UID", "VERSION", "ocsf", "read_ocsf"]

VERSION = "1.8.0"
CLASS_UID = 6003
_UNKNOWN, _READ, _OTHER = 0, 2, 99
_MAX_RESOURCES = 1000
"""More are left to `unmapped`, which has them all."""


def ocsf(view: View, *, version: str) -> dict[str, Json]:
    """The event. `version` is the gateway's own.

    What was written is activity 99 (Other): the record knows that a tool writes, not whether it creates or deletes.
    No address of a client is on record, so `src_endpoint` names the client itself.
    """
    flat = said(view)
    activity, name = _activity(flat)
    event: dict[str, Json] = {
        "activity_id": activity,
        "activity_name": name,
        "actor": _actor(flat),
        "api": _api(flat),
        "category_name": "Application Activity",
        "category_uid": 6,
        "class_name": "API Activity",
        "class_uid": CLASS_UID,
        "metadata": _metadata(view, flat, version),
        "severity_id": _severity(flat),
        "src_endpoint": {"name": one_line(flat.client) or "unknown"},
        "status_id": _status(flat),
        "time": view.leaf.at * 1000,
        "type_name": f"API Activity: {name}",
        "type_uid": CLASS_UID * 100 + activity,
        "unmapped": {"onbehalf": document(view)},
    }
    event |= _decided(flat)
    if resources := _resources(flat):
        event["resources"] = resources
    for key, text in (("status_code", flat.code), ("status_detail", flat.text)):
        if text:
            event[key] = one_line(text)
    if flat.agent:
        event["http_request"] = {"user_agent": one_line(flat.agent)}
    return event


def read_ocsf(event: Json) -> View:
    """The view of an event. Raises LedgerCorrupt, also where an attribute says otherwise than the record in it."""
    unmapped = event.get("unmapped") if isinstance(event, dict) else None
    found = read_document(unmapped.get("onbehalf") if isinstance(unmapped, dict) else None)
    metadata = event.get("metadata") if isinstance(event, dict) else None
    product = metadata.get("product") if isinstance(metadata, dict) else None
    version = product.get("version") if isinstance(product, dict) else None
    if not isinstance(version, str) or ocsf(found, version=version) != event:
        raise LedgerCorrupt("the event's attributes are not those of its record")
    return found


def _activity(flat: Said) -> tuple[int, str]:
    if flat.command:
        return _READ, "Read"
    if not flat.tool:
        return (_UNKNOWN, "Unknown") if flat.erased else (_OTHER, one_line(flat.kind, 100))
    if flat.writes is None:
        return _UNKNOWN, "Unknown"
    return (_OTHER, "Write") if flat.writes else (_READ, "Read")


def _metadata(view: View, flat: Said, version: str) -> dict[str, Json]:
    told: dict[str, Json] = {
        "log_name": view.log, "log_provider": "onbehalf", "product": {"name": "onbehalf", "version": version},
        "profiles": ["security_control"], "sequence": view.index, "uid": view.leaf.id, "version": VERSION,
    }  # fmt: skip
    if flat.call:
        told["correlation_uid"] = one_line(flat.call)
    if flat.tenant:
        told["tenant_uid"] = one_line(flat.tenant)
    return told


def _actor(flat: Said) -> dict[str, Json]:
    actor: dict[str, Json] = {"app_uid": one_line(flat.client) or "unknown"}
    user = {"uid": flat.person, "uid_alt": flat.subject}
    told: dict[str, Json] = {name: one_line(value) for name, value in user.items() if value}
    if flat.person:
        actor["user"] = told
    elif flat.subject:
        actor["user"] = {"uid": one_line(flat.subject)}
    elif flat.reader:  # an account on the host, by its name: no person is proven
        actor["user"] = {"name": one_line(flat.reader)}
    if flat.issuer:
        actor["idp"] = {"name": one_line(flat.issuer), "issuer": one_line(flat.issuer)}
    if flat.policies and flat.effect:
        actor["authorizations"] = [
            {"decision": flat.effect, "policy": {"uid": one_line(each)}} for each in flat.policies[:_MAX_RESOURCES]
        ]
    return actor


def _api(flat: Said) -> dict[str, Json]:
    api: dict[str, Json] = {"operation": one_line(flat.tool or flat.command) or one_line(flat.kind, 100)}
    if flat.upstream:
        api["service"] = {"name": one_line(flat.upstream)}
    if flat.call:
        api["request"] = {"uid": one_line(flat.call)}
    if flat.status in ("failed", "unknown"):
        api["response"] = {"error": one_line(flat.code) or flat.status}
    return api


def _decided(flat: Said) -> dict[str, Json]:
    """What the profile `security_control` says: action and disposition."""
    if flat.effect == "allow":
        return {"action_id": 1, "disposition_id": 1}
    if flat.effect == "deny":
        return {"action_id": 2, "disposition_id": 2}
    if flat.effect == "ask":
        return {"action_id": 99, "action": "Asked", "disposition_id": 99, "disposition": "Asked"}
    return {"action_id": 0, "disposition_id": 0}


def _resources(flat: Said) -> list[Json]:
    """What was decided on; for an outcome the rows that were released, of a type where all are of one."""
    if not flat.ids:
        one = {"type": one_line(flat.resource_type), "uid": one_line(flat.resource_id)}
        return [dict[str, Json](one)] if flat.resource_id else []
    kind: dict[str, Json] = {"type": one_line(flat.types[0])} if len(flat.types) == 1 else {}
    return [{"uid": one_line(each), **kind} for each in flat.ids[:_MAX_RESOURCES]]


def _severity(flat: Said) -> int:
    if flat.status == "unknown":
        return 3
    return 2 if flat.effect == "deny" or flat.status == "failed" else 1


def _status(flat: Said) -> int:
    """1 success, 2 failure, 0 unknown: of the call where it ended, of the decision before."""
    if flat.status:
        return {"done": 1, "failed": 2, "unknown": 0}[flat.status]
    return {"allow": 1, "deny": 2, "ask": 99, "": 0}[flat.effect]
