"""What SCIM clients may ask about this service itself (RFC 7644 section 4): fixed documents, true of what is served.

Must not know resources.

Trust: nothing here is secret.
"""

from __future__ import annotations

from onbehalf.model import Json
from onbehalf.validate.scim_path import ENTERPRISE

__all__ = ["about"]

_CORE = "urn:ietf:params:scim:schemas:core:2.0:"
_LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_USER = ("userName", "externalId", "displayName", "title", "name.formatted", "name.givenName", "name.familyName")
_EXTENSION = ("employeeNumber", "costCenter", "organization", "division", "department", "manager.value")


def about(path: str, base: str) -> Json:
    """The document at a path below a tenant's address `base`; None for none."""
    if path == "ServiceProviderConfig":
        return _service(base)
    types = {"User": _type("User", base), "Group": _type("Group", base)}
    schemas = {
        f"{_CORE}User": _schema(f"{_CORE}User", "User", (*_USER, "active", "emails.value", "emails.type"), base),
        f"{_CORE}Group": _schema(f"{_CORE}Group", "Group", ("displayName", "externalId", "members.value"), base),
        ENTERPRISE: _schema(ENTERPRISE, "EnterpriseUser", _EXTENSION, base),
    }
    for name, found in (("ResourceTypes", types), ("Schemas", schemas)):
        if path == name:
            listed: list[Json] = list(found.values())
            return {"schemas": [_LIST], "totalResults": len(found), "startIndex": 1, "Resources": listed}
        if path.startswith(f"{name}/"):
            return found.get(path.removeprefix(f"{name}/"))
    return None


def _service(base: str) -> Json:
    no: Json = {"supported": False}
    return {
        "schemas": [f"{_CORE}ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": False, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": 200},
        "changePassword": no,
        "sort": no,
        "etag": {"supported": True},
        "authenticationSchemes": [
            {"type": "oauthbearertoken", "name": "Bearer", "description": "The tenant's secret.", "primary": True}
        ],
        "meta": {"resourceType": "ServiceProviderConfig", "location": f"{base}/ServiceProviderConfig"},
    }


def _type(name: str, base: str) -> dict[str, Json]:
    extensions: list[Json] = [{"schema": ENTERPRISE, "required": False}] if name == "User" else []
    return {
        "schemas": [f"{_CORE}ResourceType"],
        "id": name,
        "name": name,
        "endpoint": f"/{name}s",
        "schema": f"{_CORE}{name}",
        "schemaExtensions": extensions,
        "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/{name}"},
    }


def _schema(id: str, name: str, attributes: tuple[str, ...], base: str) -> dict[str, Json]:
    parts: dict[str, list[str]] = {}
    for each in attributes:
        top, _, part = each.partition(".")
        parts.setdefault(top, []).extend([part] if part else [])
    shown: list[Json] = [_attribute(top, inner) for top, inner in parts.items()]
    meta: Json = {"resourceType": "Schema", "location": f"{base}/Schemas/{id}"}
    return {"schemas": [f"{_CORE}Schema"], "id": id, "name": name, "attributes": shown, "meta": meta}


def _attribute(name: str, inner: list[str]) -> dict[str, Json]:
    made: dict[str, Json] = {
        "name": name,
        "type": "complex" if inner else "boolean" if name == "active" else "string",
        "multiValued": name in ("emails", "members"),
        "required": name in ("userName", "displayName"),
        "caseExact": name in ("externalId", "value"),
        "mutability": "readWrite",
        "returned": "default",
        "uniqueness": "server" if name == "userName" else "none",
    }
    if inner:
        made["subAttributes"] = [_attribute(each, []) for each in inner]
    return made
