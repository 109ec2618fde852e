"""One question to the record, answered by DuckDB in memory: bounded in time, memory and rows.

A question is one SELECT over the table `records`. Files, the network, extensions and other settings are shut before
it is read, and cannot be opened again. Needs the extra `audit`. Must not read the record (query_records.py).

Trust: who asks sees all of what was loaded. DuckDB parses what they write.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onbehalf.doors.sink_parquet import needed, schema
from onbehalf.errors import ConfigInvalid, QueryFailed

__all__ = ["Answer", "Desk"]

_SHUT: Mapping[str, str | int | float | list[str]] = {
    "allow_community_extensions": False, "autoinstall_known_extensions": False, "autoload_known_extensions": False,
    "enable_external_access": False, "max_temp_directory_size": "0KiB", "python_enable_replacements": False,
}  # fmt: skip
_MAX_SQL = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`more` is whether there were more rows than asked for."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool


class Desk:
    """Where questions about one set of records are asked. `memory` is DuckDB's, such as `1GB`."""

    def __init__(self, records: Any, *, memory: str = "1GB") -> None:
        """`records` are Arrow tables one after another, which are kept, or an Arrow dataset, which is read when asked.

        Raises ConfigInvalid without the extra, QueryFailed for more than the memory takes.
        """
        needed()
        try:
            import duckdb
        except ModuleNotFoundError as error:
            raise ConfigInvalid(
                f"`{error.name}` is not installed", hint="pip install 'onbehalf-gateway[gateway,audit]'"
            ) from error
        self._failed: type[Exception] = duckdb.Error
        self._base = duckdb.connect(":memory:", config={**_SHUT, "memory_limit": memory})
        try:
            if isinstance(records, Iterable):
                self._keep(records)
            else:
                self._base.register("loaded", records)
                self._base.execute("CREATE VIEW records AS SELECT * FROM loaded")
            self._base.execute("SET lock_configuration = true")
        except duckdb.Error as error:
            self.close()
            raise QueryFailed(f"the records cannot be loaded: {_first_line(error)}", hint="ask about less") from error
        except BaseException:
            self.close()
            raise

    def _keep(self, tables: Iterable[Any]) -> None:
        self._base.register("loaded", schema().empty_table())
        self._base.execute("CREATE TABLE records AS SELECT * FROM loaded")
        for each in tables:
            self._base.register("loaded", each)
            self._base.execute("INSERT INTO records SELECT * FROM loaded")
        self._base.unregister("loaded")

    def ask(self, sql: str, values: Mapping[str, Any] | None = None, *, most: int, seconds: float) -> Answer:
        """The first `most` rows. Raises QueryFailed for what is no single SELECT, or takes longer than `seconds`."""
        if len(sql) > _MAX_SQL:
            raise QueryFailed(f"a question has at most {_MAX_SQL} characters")
        over = threading.Event()

        def interrupt() -> None:
            over.set()
            self._base.interrupt()

        timer = threading.Timer(seconds, interrupt)
        timer.daemon = True
        try:
            statements = self._base.extract_statements(sql)
            if len(statements) != 1 or statements[0].type.name != "SELECT":
                raise QueryFailed("a question is one SELECT", hint="over the table `records`: docs/audit-views.md")
            timer.start()
            found = self._base.execute(statements[0], dict(values or {}))
            columns = tuple(each[0] for each in found.description)
            rows = found.fetchmany(most + 1)
        except self._failed as error:
            if over.is_set():
                raise QueryFailed(f"it takes longer than {seconds:g} seconds", hint="ask about less") from error
            raise QueryFailed(_first_line(error), hint="`onbehalf audit query --columns` lists the columns") from error
        finally:
            timer.cancel()
        return Answer(columns=columns, rows=tuple(map(tuple, rows[:most])), more=len(rows) > most)

    def close(self) -> None:
        self._base.close()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:500] if str(error).strip() else type(error).__name__
