"""The section `gateway.ledger` of `onbehalf.yaml`: where the record is kept, if not in a file of SQLite.

Must not say how it is written there (doors/ledger_postgres.py).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from onbehalf.config_directory import Keys, Reference

__all__ = ["LedgerSettings", "PostgresLedgerSettings"]


class PostgresLedgerSettings(Keys, frozen=True):
    """A PostgreSQL database that all replicas of this gateway share. `dsn` refers to a DSN that names host, user and
    database, of a login that can append and no more; `reader` to one that audit commands read as, by default the same;
    `eraser` to one that `audit erase` and `audit hold` change as, and that no gateway uses. A replica whose session
    ended is taken for gone after `gone_seconds`; its open calls are then `unknown`.
    """

    dsn: Reference
    reader: Reference | UnsetType = UNSET
    eraser: Reference | UnsetType = UNSET
    gone_seconds: Annotated[int, Meta(ge=1, le=600)] = 15
    insecure_tls_for_tests: bool = False
    """Take an `sslmode` below `verify-full` beyond loopback. Danger: whoever sits between may read and answer."""
    insecure_durability_for_tests: bool = False
    """Take a server that does not sync what it commits. Danger: what is said to be on record may be lost."""
    insecure_role_for_tests: bool = False
    """Take a login that may do more than append. Danger: whoever has it can destroy the record."""


class LedgerSettings(Keys, frozen=True):
    """Where the record is kept; without `postgres` in `ledger.db` of the folder `data`."""

    postgres: PostgresLedgerSettings | None = None
