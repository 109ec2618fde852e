"""SCIM resources as values: what of a User or Group is kept, and what a PATCH makes of it (RFC 7643, RFC 7644).

Identity providers send the same in many forms (`"op": "Replace"`, `"active": "False"`, keys such as `name.givenName`);
here they become one. What is not kept is let go, as RFC 7644 section 3.3 allows. Values in, values out; must not know
the directory (scim_people.py) or where resources are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from onbehalf.errors import ScimInvalid
from onbehalf.model import Json
from onbehalf.validate.scim_path import ENTERPRISE, Equal, Path, holds, read_path

__all__ = ["EXACT", "Kind", "normal", "patched"]

Kind: TypeAlias = Literal["User", "Group"]
EXACT: Final = frozenset({"id", "externalid", "value"})
"""Attributes whose case counts (`caseExact`)."""
_MAX_TEXT = 255
_MAX_MEMBERS = 100_000
_MAX_MAILS = 20
_MAX_OPERATIONS = 1000
_USER_TEXTS = ("userName", "externalId", "displayName", "title")
_NAMES = ("formatted", "givenName", "familyName")
_ENTERPRISE_TEXTS = ("employeeNumber", "costCenter", "organization", "division", "department")


def normal(kind: Kind, sent: Mapping[str, Json]) -> dict[str, Json]:
    """What is kept of a resource, under the schema's own spelling. Raises ScimInvalid."""
    return _user(sent) if kind == "User" else _group(sent)


def patched(kind: Kind, kept: Mapping[str, Json], body: Mapping[str, Json]) -> dict[str, Json]:
    """A resource after all operations of a PATCH, or none of them. Raises ScimInvalid."""
    operations = _get(body, "Operations")
    if not isinstance(operations, list) or not 1 <= len(operations) <= _MAX_OPERATIONS:
        raise ScimInvalid("there are no `Operations`", kind="invalidSyntax")
    made: dict[str, Json] = dict(kept)
    for each in operations:
        if not isinstance(each, dict):
            raise ScimInvalid("an operation is not an object", kind="invalidSyntax")
        _operate(made, each)
    return normal(kind, made)


def _operate(made: dict[str, Json], operation: Mapping[str, Json]) -> None:
    word, path, value = _get(operation, "op"), _get(operation, "path"), _get(operation, "value")
    op = word.lower() if isinstance(word, str) else ""
    if op not in ("add", "replace", "remove"):
        raise ScimInvalid("`op` is neither add, replace nor remove", kind="invalidSyntax")
    if isinstance(path, str) and path:
        _apply(made, op, read_path(path), value)
    elif op == "remove" or not isinstance(value, dict):
        raise ScimInvalid("there is no `path`", kind="noTarget")
    else:
        for key, each in value.items():
            if key.lower() not in ("schemas", "id", "meta"):
                _apply(made, op, read_path(key), each)


def _apply(made: dict[str, Json], op: str, path: Path, value: Json) -> None:
    target = made
    if path.extension:
        found = _get(made, ENTERPRISE)
        target = dict(found) if isinstance(found, dict) else {}
        _put(made, ENTERPRISE, target)
        if not path.attribute:
            for key, each in (value if isinstance(value, dict) else {}).items():
                _set(target, op, read_path(key), each)
            return
    _set(target, op, path, value)


def _set(target: dict[str, Json], op: str, path: Path, value: Json) -> None:
    before = _get(target, path.attribute)
    if path.tests or isinstance(before, list) or path.attribute in ("members", "emails"):
        _put(target, path.attribute, _listed(before if isinstance(before, list) else [], op, path, value))
    elif path.part:
        inner: dict[str, Json] = dict(before) if isinstance(before, dict) else {}
        _put(inner, path.part, None if op == "remove" else value)
        _put(target, path.attribute, inner)
    elif isinstance(before, dict) and isinstance(value, dict) and op != "remove":
        merged: dict[str, Json] = dict(before)
        for key, each in value.items():
            _put(merged, key, each)
        _put(target, path.attribute, merged)
    else:
        _put(target, path.attribute, None if op == "remove" else value)


def _listed(items: list[Json], op: str, path: Path, value: Json) -> list[Json]:
    """A multi-valued attribute after an operation on all of it, on those that pass the tests, or on those named."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not path.tests:
        if op == "replace":
            return list(values)
        if op == "remove" and not values:
            return []
        named = {_key(each) for each in values}
        left = [each for each in items if _key(each) not in named]
        return left if op == "remove" else [*left, *values]
    hits = [each for each in items if isinstance(each, dict) and holds(path.tests, each, exact=EXACT)]
    if op == "remove" and not path.part:
        return [each for each in items if each not in hits]
    if not hits and op != "remove":
        return [*items, _new(path.tests, path.part, value)]
    return [_changed(each, op, path.part, value) if each in hits else each for each in items]


def _new(tests: tuple[Equal, ...], part: str, value: Json) -> Json:
    made: dict[str, Json] = {test.attribute: test.value for test in tests}
    if part:
        made[part] = value
    elif isinstance(value, dict):
        made |= value
    return made


def _changed(item: Json, op: str, part: str, value: Json) -> Json:
    made: dict[str, Json] = dict(item) if isinstance(item, dict) else {}
    if part:
        _put(made, part, None if op == "remove" else value)
    elif isinstance(value, dict):
        for key, each in value.items():
            _put(made, key, each)
    return made


def _key(item: Json) -> str:
    return str(_get(item, "value")) if isinstance(item, dict) else str(item)


# --- what is kept --------------------------------------------------------------------------


def _user(sent: Mapping[str, Json]) -> dict[str, Json]:
    made: dict[str, Json] = {}
    for name in _USER_TEXTS:
        _keep(made, name, _text(_get(sent, name), name))
    if not made.get("userName"):
        raise ScimInvalid("`userName` is missing", kind="invalidValue")
    _keep(made, "name", _texts(_get(sent, "name"), _NAMES))
    made["active"] = _boolean(_get(sent, "active"))
    _keep(made, "emails", _each(_get(sent, "emails"), _mail, _MAX_MAILS, "emails"))
    found = _get(sent, ENTERPRISE)
    extension = _texts(found, _ENTERPRISE_TEXTS) or {}
    manager = _manager(_get(found, "manager")) if isinstance(found, dict) else ""
    if manager:
        extension["manager"] = {"value": manager}
    _keep(made, ENTERPRISE, extension or None)
    return made


def _group(sent: Mapping[str, Json]) -> dict[str, Json]:
    made: dict[str, Json] = {}
    for name in ("displayName", "externalId"):
        _keep(made, name, _text(_get(sent, name), name))
    if not made.get("displayName"):
        raise ScimInvalid("`displayName` is missing", kind="invalidValue")
    found = _each(_get(sent, "members"), _member, _MAX_MEMBERS, "members") or []
    unique: dict[str, Json] = {str(_get(each, "value")): each for each in found if isinstance(each, dict)}
    made["members"] = list(unique.values())
    return made


def _mail(item: Json) -> Json:
    made = _texts(item, ("value", "type")) or {}
    return made if made.get("value") else None


def _member(item: Json) -> Json:
    value = _text(_get(item, "value") if isinstance(item, dict) else item, "members.value")
    return {"value": value} if value else None


def _manager(found: Json) -> str:
    """The id of a manager, sent as an id, an object or a list of one object."""
    if isinstance(found, list):
        found = found[0] if found else None
    value = _get(found, "value") if isinstance(found, dict) else found
    return _text(value, "manager") or ""


def _each(found: Json, read: Callable[[Json], Json], most: int, name: str) -> list[Json] | None:
    if found is None:
        return None
    items = found if isinstance(found, list) else [found]
    if len(items) > most:
        raise ScimInvalid(f"`{name}` has more than {most} values", kind="tooMany")
    return [made for made in map(read, items) if made is not None]


def _texts(found: Json, names: tuple[str, ...]) -> dict[str, Json] | None:
    if not isinstance(found, dict):
        return None
    made: dict[str, Json] = {}
    for name in names:
        _keep(made, name, _text(_get(found, name), name))
    return made or None


def _text(value: Json, name: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise ScimInvalid(f"`{name}` is not up to {_MAX_TEXT} printable characters", kind="invalidValue")
    return value


def _boolean(value: Json) -> bool:
    if value is None:
        return True
    if isinstance(value, str) and value.lower() in ("true", "false"):  # Entra ID, without its compatibility flag
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ScimInvalid("`active` is neither true nor false", kind="invalidValue")
    return value


def _keep(made: dict[str, Json], name: str, value: Json) -> None:
    if value is not None:
        made[name] = value


def _get(found: Mapping[str, Json] | Json, name: str) -> Json:
    """An attribute whatever its case (RFC 7643 section 2.1)."""
    if not isinstance(found, Mapping):
        return None
    if name in found:
        return found[name]
    return next((value for key, value in found.items() if key.lower() == name.lower()), None)


def _put(found: dict[str, Json], name: str, value: Json) -> None:
    spelled = next((key for key in found if key.lower() == name.lower()), name)
    found.pop(spelled, None)
    if value is not None:
        found[spelled] = value
