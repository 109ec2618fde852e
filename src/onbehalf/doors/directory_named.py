"""Everybody of a tenant who is called so: by id, by login or by an attribute.

For what must hold for all whom a name could mean. Must not pick one of several.

Trust: as directory_sqlite.py says. Attributes are what a tenant's source tells; who can change theirs can be taken for
another, and so have them logged out.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from onbehalf.doors.directory_sqlite_schema import books, connected, require_tables
from onbehalf.errors import DirectoryUnavailable
from onbehalf.validate.signals import Wanted

__all__ = ["named"]

_MOST = 1000
_QUERIES = {
    "person": "SELECT id FROM person WHERE book = :book AND lower(id) = lower(:value) LIMIT :most",
    "login": "SELECT subject FROM login WHERE book = :book AND issuer = :of AND lower(subject) = lower(:value) "
    "LIMIT :most",
    "attribute": "SELECT id FROM person WHERE book = :book AND EXISTS (SELECT 1 FROM json_each(attributes) "
    "WHERE key = :of AND type = 'text' AND (value = :value OR (NOT :exact AND lower(value) = lower(:value)))) "
    "LIMIT :most",
}


def named(path: Path, wanted: Wanted) -> Sequence[str]:
    """The subjects, or else the ids, of all who are meant; active or not.

    A login, or a person named by id, that the directory does not know is meant as it is told: it may be known later.
    Whatever is not an exact one of these looks at every person of the tenant. Raises DirectoryUnavailable, also for
    more than 1,000.
    """
    what, _, attribute = wanted.what.partition(":")
    told = [wanted.value] if what in ("login", "person") else []
    if told and wanted.exact:
        return told
    try:
        with contextlib.closing(connected(path)) as reading:
            reading.execute("PRAGMA query_only = 1")
            require_tables(reading)
            book = books(reading).get(wanted.tenant)
            values = {
                "book": book, "value": wanted.value, "of": attribute or wanted.issuer, "most": _MOST + 1,
                "exact": wanted.exact,
            }  # fmt: skip
            found = {name for (name,) in reading.execute(_QUERIES[what], values)}
    except (sqlite3.Error, OSError) as error:
        raise DirectoryUnavailable(f"the directory at `{path}` cannot be read: {error}") from error
    if len(found) > _MOST:
        raise DirectoryUnavailable(f"more than {_MOST} people have one name", hint="map another attribute")
    return sorted(found) or told
