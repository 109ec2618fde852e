"""Rows of a table as records of a feed: which column is what. For CSV files and for queries.

Must not open anything, and must not know where rows come from.

Trust: a value is what the owner of the table says; its shape is checked by validate/people.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from onbehalf.errors import DirectoryInvalid
from onbehalf.model import Json
from onbehalf.validate.people import Record, record

__all__ = ["Columns"]

_PREFIX = "attribute."
_TRUE = {1: True, "1": True, "true": True, "yes": True}  # 1 is equal to True, and found for it
_FALSE = {0: False, "0": False, "false": False, "no": False}
_ACTIVE: dict[object, bool] = {**_TRUE, **_FALSE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Field to the column that holds it. A column that is not there leaves its field out; `id` and `name` must be.

    `manager` holds a person's id, empty for nobody above. `groups` holds names with `;` between them. `active` holds
    true or false, 1 or 0, yes or no; anything else is refused, an empty one too. `subject` with `issuer` is a login;
    `issuer_always` stands for a column of issuers where all people log in at one. A column `attribute.x` is attribute
    `x`, as is one that `attributes` names.
    """

    id: str = "id"
    name: str = "name"
    manager: str = "manager"
    position: str = "position"
    groups: str = "groups"
    active: str = "active"
    subject: str = "subject"
    issuer: str = "issuer"
    issuer_always: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def reader(self, header: Sequence[str]) -> Callable[[Sequence[object], str], Record]:
        """What makes records of rows under this header. Raises DirectoryInvalid for a header that leaves doubt."""
        own = [each.name for each in fields(self) if each.name not in ("issuer_always", "attributes")]
        named = {getattr(self, each): each for each in own}
        named |= {column: _PREFIX + attribute for attribute, column in self.attributes.items()}
        meant = [named.get(column, column if column.startswith(_PREFIX) else "") for column in header]
        for column, field_ in zip(header, meant, strict=True):
            if not field_:
                raise DirectoryInvalid(
                    f"the column `{column[:80]}` means nothing", hint=f"known are {', '.join(own)}, {_PREFIX}…"
                )
        for field_ in ("id", "name"):
            if field_ not in meant:
                raise DirectoryInvalid(f"there is no column `{getattr(self, field_)}`", hint="id and name are needed")
        if len(set(meant)) != len(meant):
            raise DirectoryInvalid("a column stands twice", hint="each field has one column")

        def read(row: Sequence[object], place: str) -> Record:
            if len(row) != len(meant):
                raise DirectoryInvalid(
                    f"{place} has {len(row)} fields, and the header {len(meant)}", hint="quote what holds a comma"
                )
            return record(self._value(dict(zip(meant, row, strict=True)), place), place)

        return read

    def _value(self, row: Mapping[str, object], place: str) -> Json:
        """One row in the shape of a JSON line."""
        made: dict[str, Json] = {"id": _text(row["id"]), "name": _text(row["name"])}
        if "manager" in row:
            made["manager"] = _text(row["manager"]) or None
        if position := _text(row.get("position")):
            made["position"] = position
            if not made.get("manager", ""):
                made.pop("manager", None)
        if "groups" in row:
            made["groups"] = [each.strip() for each in _text(row["groups"]).split(";") if each.strip()]
        if "active" in row:
            made["active"] = _active(row["active"], place)
        issuer, subject = self.issuer_always or _text(row.get("issuer")), _text(row.get("subject"))
        if subject:
            made["logins"] = [{"issuer": issuer, "subject": subject}]
        attributes: dict[str, Json] = {}
        for key, value in row.items():
            if key.startswith(_PREFIX) and value is not None and value != "":
                attributes[key.removeprefix(_PREFIX)] = value if isinstance(value, bool | int | float) else _text(value)
        made["attributes"] = attributes
        return made


def _active(value: object, place: str) -> bool:
    key = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(key, str | int) or key not in _ACTIVE:
        raise DirectoryInvalid(f"{place}: `active` is neither true nor false", hint="write true or false, or 1 or 0")
    return _ACTIVE[key]


def _text(value: object) -> str:
    """A column as text: a number as its digits, nothing as ""."""
    return "" if value is None else str(value).strip()
