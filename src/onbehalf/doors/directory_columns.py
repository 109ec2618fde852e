"""Rows of a table as records of a feed: which column is what. For CSV files and for queries.

Must not open anything, and must not know where rows come from.

Trust: a value is what the owner of the table says; its shape is checked by validate/people.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onbehalf.errors import DirectoryInvalid
from onbehalf.model import Json
from onbehalf.validate.people import Record, record

__all__ = ["reader"]

_COLUMNS = ("id", "name", "manager", "position", "manager_position", "groups", "active", "subject", "issuer")
_PREFIX = "attribute."
_MOST = 100
_TRUE = {1: True, "1": True, "true": True, "yes": True}  # 1 is equal to True, and found for it
_FALSE = {0: False, "0": False, "false": False, "no": False}
_ACTIVE: dict[object, bool] = {**_TRUE, **_FALSE}


def reader(header: Sequence[str]) -> Callable[[Sequence[object], str], Record]:
    """What makes a record of a row under this header, told where the row stood.

    `manager` holds a person's id, empty for nobody above; or `position` and `manager_position` hold positions. `groups`
    holds names with `;` between them, or a list. `active` holds true or false, 1 or 0, yes or no; anything else is
    refused, an empty one too. `subject` with `issuer` is a login. A column `attribute.x` is the attribute `x`.
    Raises DirectoryInvalid for a header that leaves doubt, and what it returns raises it for such a row.
    """
    if len(header) > _MOST:
        raise DirectoryInvalid(f"there are more than {_MOST} columns", hint="select what is needed")
    for column in header:
        if column not in _COLUMNS and not column.startswith(_PREFIX):
            raise DirectoryInvalid(
                f"the column `{column[:80]}` means nothing", hint=f"known are {', '.join(_COLUMNS)}, {_PREFIX}…"
            )
    for column in ("id", "name"):
        if column not in header:
            raise DirectoryInvalid(f"there is no column `{column}`", hint="id and name are needed")
    if len(set(header)) != len(header):
        raise DirectoryInvalid("a column stands twice", hint="each field has one column")
    if ("subject" in header) != ("issuer" in header):
        raise DirectoryInvalid("`subject` and `issuer` are one login, and one of them is missing", hint="give both")

    def read(row: Sequence[object], place: str) -> Record:
        if len(row) != len(header):
            raise DirectoryInvalid(
                f"{place} has {len(row)} fields, and the header {len(header)}", hint="quote what holds a comma"
            )
        return record(_value(dict(zip(header, row, strict=True)), place), place)

    return read


def _value(row: Mapping[str, object], place: str) -> Json:
    """One row in the shape of a JSON line."""
    made: dict[str, Json] = {"id": _text(row["id"]), "name": _text(row["name"])}
    position = _text(row.get("position"))
    if position:
        made["position"] = position
    if "manager" in row and not (position and not _text(row["manager"])):
        made["manager"] = _text(row["manager"]) or None
    if above := _text(row.get("manager_position")):
        made["manager_position"] = above
    if "groups" in row:
        made["groups"] = [*_names(row["groups"])]
    if "active" in row:
        made["active"] = _active(row["active"], place)
    if subject := _text(row.get("subject")):
        made["logins"] = [{"issuer": _text(row["issuer"]), "subject": subject}]
    attributes: dict[str, Json] = {}
    for key, value in row.items():
        if key.startswith(_PREFIX) and value is not None and value != "":
            attributes[key.removeprefix(_PREFIX)] = value if isinstance(value, bool | int | float) else _text(value)
    made["attributes"] = attributes
    return made


def _names(value: object) -> list[str]:
    parts = value if isinstance(value, list | tuple) else _text(value).split(";")
    return [name for name in map(_text, parts) if name]


def _active(value: object, place: str) -> bool:
    key = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(key, str | int) or key not in _ACTIVE:
        raise DirectoryInvalid(f"{place}: `active` is neither true nor false", hint="write true or false, or 1 or 0")
    return _ACTIVE[key]


def _text(value: object) -> str:
    """A column as text: a number as its digits, nothing as ""."""
    return "" if value is None else str(value).strip()
