"""Heads that replicas keep together in PostgreSQL: one second line each, whoever signs, and none that is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from doors.ledger_postgres_house import Record, Server, Wire, appended, durable_server, wait_for
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_heads_kept import KEPT_HEADS, HeadsFile
from onbehalf.doors.ledger_postgres_heads import SharedHeads
from onbehalf.doors.ledger_postgres_schema import schema_sql
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.doors.ledger_signing import OWN, HeadSigning
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.explain.checkpoint import Checkpoint, Head, write
from onbehalf.explain.cosignature import HeadSigner, cosigned
from onbehalf.model import UnixTime


@pytest.fixture
def record(tmp_path: Path, database: str) -> Record:
    return Record(tmp_path, database)


@contextmanager
def heads(record: Record, name: str = "a", *, dsn: str = "") -> Iterator[LedgerHeads]:
    """What one replica has of them, with its own file beside."""
    (record.path / name).mkdir(exist_ok=True)
    kept = SharedHeads(dsn or record.dsn, HeadsFile(record.path / name / "heads.db"))
    made = LedgerHeads(PostgresStore(dsn or record.dsn), kept, verifier=record.keys.signer.verifier)
    try:
        yield made
    finally:
        made.close()


def signing(record: Record, of: LedgerHeads, now: int) -> HeadSigning:
    assert record.keys.heads is not None
    return HeadSigning(of, record.keys.heads, clock=lambda: UnixTime(now))


def filled(record: Record, *numbers: int) -> None:
    ledger = record.replica("writer")
    appended(ledger, *numbers)
    ledger.close()


def test_two_replicas_that_sign_one_head_at_different_times_show_one_line(record: Record) -> None:
    filled(record, 1, 2, 3)
    assert record.keys.heads is not None
    with heads(record, "a") as one, heads(record, "b") as two:
        first = signing(record, one, 1000).newest()
        assert signing(record, two, 2000).newest() == first
        found = cosigned(first, record.keys.heads.cosigner, one.newest().checkpoint)
        assert found is not None
        assert found[0] == 1000
        assert two.noted(3) == first
        head = two.newest()
        two.keep(head, {OWN: (3000, record.keys.heads.line(head.checkpoint, at=3000))})  # it comes too late
        assert one.noted(3) == first


def test_of_two_replicas_that_sign_one_head_at_once_both_show_the_line_that_came_first(record: Record) -> None:
    filled(record, 1)
    assert record.keys.heads is not None
    with heads(record, "a") as one, heads(record, "b") as two:
        shown: list[str] = []

        def late() -> UnixTime:  # asked for once it is seen that no line is there
            shown.append(signing(record, one, 1000).newest())
            return UnixTime(2000)

        assert HeadSigning(two, record.keys.heads, clock=late).newest() == shown[0]


def test_a_line_that_somebody_put_there_is_not_believed(record: Record) -> None:
    filled(record, 1)
    assert record.keys.heads is not None
    with heads(record) as one:
        head = one.newest()
        other = HeadSigner(record.keys.signer.name, bytes(32))
        one.keep(head, {OWN: (5, other.line(head.checkpoint, at=5))})
        shown = signing(record, one, 1000).newest()
        assert cosigned(shown, record.keys.heads.cosigner, head.checkpoint) is not None
        assert cosigned(shown, other.cosigner, head.checkpoint) is None


def test_the_database_keeps_no_head_that_the_log_has_not_reached_nor_another_one_of_a_size(record: Record) -> None:
    filled(record, 1, 2)
    with heads(record) as one:
        head = one.newest()
        one.keep(head, {"w": (7, "a line\n")})

        def of(size: int, root: bytes = b"r" * 32) -> Head:
            point = Checkpoint(origin=head.checkpoint.origin, size=size, root=root)
            return Head(checkpoint=point, note=write(point, record.keys.signer))

        for changed in (of(3), of(2), replace(of(1), note=head.note), replace(head, note=head.note * 80)):
            with pytest.raises(LedgerUnavailable, match=r"no head of the log|another head"):
                one.keep(changed, {"w": (8, "a line\n")})
        for name, line in (("w" * 1001, "a"), ("w", "a" * 20_000)):
            with pytest.raises(LedgerUnavailable, match="no head of the log"):
                one.keep(head, {name: (8, line)})
        assert one.cosignatures(head) == {"w": "a line\n"}
        assert one.cosigned(0, 9) == [(2, 7)]
        assert one.noted(2) == head.note + "a line\n"
        with pytest.raises(LedgerUnavailable, match="no head of 1 leaves"):
            one.noted(1)


def test_the_oldest_heads_make_room(record: Record) -> None:
    filled(record, *range(3))
    record.run(
        f"INSERT INTO onbehalf_log.kept_head SELECT -g, '' FROM generate_series(1, {KEPT_HEADS}) g;"
        f"INSERT INTO onbehalf_log.cosignature SELECT -g, 'w', 1, '' FROM generate_series(1, {KEPT_HEADS}) g"
    )
    with heads(record) as one:
        one.keep(one.newest(), {"w": (9, "a line\n")})
    for table in ("kept_head", "cosignature"):
        query = f"SELECT count(*), min(size), max(size) FROM onbehalf_log.{table}"
        assert record.run(query) == [(KEPT_HEADS, 1 - KEPT_HEADS, 3)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO onbehalf_log.kept_head VALUES (0, '')",
        "UPDATE onbehalf_log.kept_head SET note = ''",
        "DELETE FROM onbehalf_log.kept_head",
        "INSERT INTO onbehalf_log.cosignature VALUES (0, '', 0, '')",
        "UPDATE onbehalf_log.cosignature SET line = ''",
        "DELETE FROM onbehalf_log.cosignature",
    ],
)
def test_a_gateways_login_can_change_and_remove_none(record: Record, statement: str) -> None:
    with psycopg.connect(record.dsn, autocommit=True) as gateway, pytest.raises(psycopg.errors.InsufficientPrivilege):
        gateway.execute(statement.encode())


def test_who_only_reads_can_have_them_and_keeps_none(record: Record) -> None:
    filled(record, 1)
    user = f"rd_{conninfo_to_dict(record.owner)['dbname']}"
    record.run(f"CREATE ROLE {user} LOGIN PASSWORD 'x' IN ROLE onbehalf_log_reader")
    reader = psycopg.conninfo.make_conninfo(record.owner, user=user, password="x")
    with heads(record) as one:
        line = signing(record, one, 1000).newest()
        head = one.newest()
    shared = SharedHeads(reader, None)
    with pytest.raises(LedgerUnavailable, match="only be read"):
        shared.keep(head, {})
    of = LedgerHeads(PostgresStore(reader), shared, verifier=record.keys.signer.verifier)
    assert signing(record, of, 2000).newest() == line
    of.close()
    (record.path / "rd").mkdir()
    with heads(record, "rd", dsn=reader) as other, pytest.raises(LedgerUnavailable, match="permission denied"):
        other.keep(head, {})
    record.run(f"DROP OWNED BY {user}; DROP ROLE {user}")


def test_a_connection_that_was_lost_is_made_again_and_nothing_is_kept_twice(record: Record) -> None:
    filled(record, 1)
    wire = Wire(record.dsn)
    with heads(record, dsn=wire.dsn) as one:
        head = one.newest()
        one.keep(head, {"w": (7, "a line\n")})
        wire.cut()
        one.keep(head, {"v": (8, "another\n")})
        assert one.cosignatures(one.newest()) == {"v": "another\n", "w": "a line\n"}
        wire.open = False
        wire.cut()
        for ask in (lambda: one.keep(head, {}), one.newest, lambda: one.cosigned(0, 9)):
            with pytest.raises(LedgerUnavailable):
                ask()
        wire.open = True
        assert one.cosigned(0, 9) == [(1, 8)]
    wire.close()


def test_a_database_that_was_put_back_is_found_by_what_a_replica_remembers_itself(record: Record) -> None:
    filled(record, 1)
    [(size, root, note)] = record.run("SELECT size, root, note FROM onbehalf_log.head")
    filled(record, 2, 3, 4)
    with heads(record) as one:
        signing(record, one, 1000).newest()
        one.require_continued()
    record.run(
        f"DELETE FROM onbehalf_log.leaf WHERE idx >= {size}; DELETE FROM onbehalf_log.payload WHERE idx >= {size};"
        f"UPDATE onbehalf_log.head SET size = {size}, root = '\\x{root.hex()}', note = '{note}';"
        "TRUNCATE onbehalf_log.kept_head, onbehalf_log.cosignature"
    )
    with heads(record) as one, pytest.raises(LedgerCorrupt, match="no beginning"):
        one.require_continued()
    with heads(record, "another") as fresh:
        fresh.require_continued()  # who remembers nothing cannot know
    filled(record, 5, 6, 7, 8)
    with heads(record) as one, pytest.raises(LedgerCorrupt, match="no beginning"):
        one.require_continued()


def test_a_record_of_a_release_without_them_says_what_to_do_and_keeps_what_it_has(record: Record) -> None:
    filled(record, 1)
    record.run(
        "ALTER TABLE onbehalf_log.replica DROP COLUMN barred;"
        "DROP FUNCTION onbehalf_log.keep_head; DROP TABLE onbehalf_log.cosignature; DROP TABLE onbehalf_log.kept_head"
    )
    with pytest.raises(ConfigInvalid, match="of an older release") as refused:
        record.replica()
    assert "onbehalf db ledger" in refused.value.hint
    record.run(schema_sql(record.keys.signer))
    filled(record, 2)
    assert record.verified() == 2


def test_a_server_that_is_killed_loses_no_line_that_was_kept(tmp_path: Path) -> None:
    def killed(server: Server) -> None:
        server.stop()
        server.start()

    with durable_server() as server:
        record = Record(tmp_path, server.dsn)
        filled(record, *range(5))
        with heads(record) as one:
            head = one.newest()
            for number in range(5):
                one.keep(head, {f"w{number}": (number + 1, f"line {number}\n")})
                killed(server)
                wait_for(lambda n=number: len(one.cosignatures(head)) == n + 1, "what was kept")  # type: ignore[misc]
