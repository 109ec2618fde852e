"""Backends' own records as they are read: tables, exports, and what a real pgaudit wrote of the gateway's calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from psycopg.conninfo import make_conninfo

from company import wait_for
from doors.postgres_house import build, opened
from doors.upstream_house import a_call, a_token
from onbehalf.backend.calls import SqliteCalls
from onbehalf.backend.calls_postgres import CALLS_SQL
from onbehalf.doors.backend_records import COLUMNS, read_records
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.reconcile import Row
from onbehalf.model import CallId, Done
from postgres import PROGRAMS, database, fresh, postgres, run, server  # noqa: F401  # fixtures

ROW = {
    "channel": "c" * 16, "n": 1, "token": "call_1.7", "call": "call_1", "tool": "t", "arguments": "sha256:a",
    "record": 7, "leaf": "sha256:l", "at": 1000, "answer": "", "status": 0,
}  # fmt: skip
READ = Row(
    channel="c" * 16, n=1, token="call_1.7", call="call_1", tool="t", arguments="sha256:a", record=7, leaf="sha256:l",
    at=1000, answer="",  # type: ignore[arg-type]  # seconds
)  # fmt: skip
PGAUDIT = PROGRAMS is not None and (PROGRAMS.parent / "lib" / "pgaudit.so").exists()


def line(**changes: object) -> str:
    return json.dumps({name: value for name, value in {**ROW, **changes}.items() if value is not ...}) + "\n"


def test_a_line_is_a_row_and_the_digest_is_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_text(line() + line(n=2, extra="more is fine"))
    found = read_records(str(file), base=tmp_path)
    assert (found.kind, found.rows[0], len(found.rows)) == ("jsonl", READ, 2)
    assert found.digest.startswith("sha256:")


@pytest.mark.parametrize(
    "text",
    [
        "\n", "{\n", "[]\n", line(n=...), line(n="1"), line(n=-1), line(n=1.5), line(n=True), line(n=2**53),
        line(token=1), line(token=None), line(tool="x" * 3000), '{"n": 1, "n": 2}\n', "\xff\xfe\n",
    ],
)  # fmt: skip
def test_a_line_that_is_no_row_is_an_error_and_never_passed_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_bytes(line().encode() + text.encode("latin-1"))
    with pytest.raises(ConfigInvalid):
        read_records(str(file), base=tmp_path)


@pytest.mark.parametrize("text", ["channel,n\nx,1\n", "n\n1\n", '"', f"{','.join(COLUMNS)}\n{'x,' * 10}x\n"])
def test_a_table_in_csv_needs_all_columns(tmp_path: Path, text: str) -> None:
    file = tmp_path / "calls.csv"
    file.write_text(text)
    with pytest.raises(ConfigInvalid):
        read_records(str(file), base=tmp_path)


def test_a_database_is_read_as_its_export_would_be(tmp_path: Path, database: str) -> None:  # noqa: F811  # the fixture
    (tmp_path / "dsn").write_text(database)
    run(database, CALLS_SQL)
    values = ", ".join(f"'{each}'" if isinstance(each, str) else str(each) for each in ROW.values())
    run(database, f"INSERT INTO onbehalf_calls VALUES ({values})")
    in_postgres = read_records("file:dsn", base=tmp_path)
    calls = SqliteCalls(tmp_path / "calls.db")
    calls._connection.execute(f"INSERT INTO onbehalf_calls VALUES ({values})")
    in_sqlite = read_records(str(tmp_path / "calls.db"), base=tmp_path)
    assert in_postgres.rows == in_sqlite.rows == (READ,)
    assert in_postgres.digest == in_sqlite.digest
    run(database, "DROP TABLE onbehalf_calls")
    with pytest.raises(ConfigInvalid, match="42P01"):
        read_records("file:dsn", base=tmp_path)
    (tmp_path / "dsn").write_text(make_conninfo(database, port="1"))
    with pytest.raises(ConfigInvalid) as caught:
        read_records("file:dsn", base=tmp_path)
    assert "password" not in str(caught.value)
    for bad in (tmp_path / "none.db", tmp_path / "x.db"):
        (tmp_path / "x.db").write_text("no database")
        with pytest.raises(ConfigInvalid):
            read_records(str(bad), base=tmp_path)


# --- pgaudit ---


@pytest.fixture(scope="module")
def audited() -> Iterator[tuple[str, Path]]:
    """A server that pgaudit listens in, and where its CSV log is."""
    if not PGAUDIT:
        pytest.skip("PGAUDIT IS NOT INSTALLED, so it was not tested (apt-get install postgresql-15-pgaudit)")
    more = (
        "shared_preload_libraries=pgaudit", "pgaudit.log=read,write", "pgaudit.log_relation=on", "logging_collector=on",
        "log_destination=csvlog", "log_min_messages=warning", "log_timezone=UTC", "log_filename=audit",
    )  # fmt: skip
    with server(more) as dsn:
        (place,) = run(dsn, "SHOW data_directory")[0]
        yield dsn, Path(place) / "log" / "audit.csv"


def test_what_pgaudit_wrote_names_each_call_of_the_gateway_and_what_was_done_without_it(
    audited: tuple[str, Path], tmp_path: Path
) -> None:
    dsn, log = audited
    names: list[str] = []

    def settled(base: str, mark: str) -> list[Row]:
        """All rows, once the server's collector has written what was before the mark."""
        run(base, f"SELECT count(*) FROM countries /* {mark} */")
        wait_for(lambda: mark in log.read_text(errors="replace"), what="the log")
        return [*read_records(f"pgaudit:{log}", base=tmp_path).rows]

    async def walk(base: str) -> None:
        async with opened(base, {"t": "SELECT id FROM reviews ORDER BY id"}) as door:
            for number in range(2):
                call = replace(a_call("t"), id=CallId(f"call_{number:032x}"))
                token = a_token(call)
                assert isinstance(await door.send(call, token), Done)
                names.append(f"{call.id}.{token.grant.receipt.index}")

    with fresh(dsn) as base:
        build(base)
        made = len(settled(base, "made"))
        asyncio.run(walk(base))
        called = settled(base, "called")[made:]
        run(base, "UPDATE reviews SET score = 9 WHERE id = 1")
        behind = settled(base, "behind")[made + len(called) :]
    assert [row.token for row in called] == [*names, ""]  # the last one is the mark itself
    assert [row.index for row in called[:2]] == [0, 0]
    assert [(row.token, row.index) for row in behind] == [("", -1), ("", -1)]
    assert all(row.at > 1_700_000_000 for row in [*called, *behind])


def _logged(message: str, *, application: str = "", zone: str = "UTC", columns: int = 26) -> str:
    told = [f"2026-11-28 23:00:00.123 {zone}", *[""] * 12, message.replace('"', '""'), *[""] * 8, application]
    told += [""] * (columns - len(told))
    return ",".join(f'"{each}"' if "," in each or '"' in each else each for each in told) + "\n"


def test_lines_of_the_log_that_are_not_of_calls_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "audit.csv"
    tagged = "AUDIT: SESSION,1,1,READ,SELECT,TABLE,public.reviews,select 1,<none>"
    log.write_text(
        _logged("connection received") + _logged("AUDIT: SESSION,1,1,MISC,BEGIN,,,begin,<none>")
        + _logged("AUDIT: SESSION,1,1,READ,SELECT,TABLE,pg_catalog.pg_class,select,<none>")
        + _logged("AUDIT: SESSION,1,1,READ,SELECT,,,select 1,<none>")
        + _logged(tagged, application="onbehalf/call_1.7") * 2 + _logged(tagged, application="psql", columns=24)
    )  # fmt: skip
    found = read_records(f"pgaudit:{log}", base=tmp_path).rows
    assert [(row.token, row.call, row.index) for row in found] == [("call_1.7", "call_1", 7), ("", "", -1)]


@pytest.mark.parametrize("text", ["a,b\n", _logged("AUDIT: SESSION,1,1"), _logged("x") + '"', "\x00" * 30 + "\n"])
def test_a_log_that_is_none_or_damaged_is_an_error(tmp_path: Path, text: str) -> None:
    log = tmp_path / "audit.csv"
    log.write_text(text)
    with pytest.raises(ConfigInvalid):
        read_records(f"pgaudit:{log}", base=tmp_path)


def test_a_log_that_tells_local_time_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "audit.csv"
    log.write_text(_logged("AUDIT: SESSION,1,1,WRITE,UPDATE,TABLE,public.t,update t,<none>", zone="CET"))
    with pytest.raises(ConfigInvalid, match="tells time in `CET`"):
        read_records(f"pgaudit:{log}", base=tmp_path)
