"""Who may do what with a record in PostgreSQL, and on which servers a gateway starts."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from doors.ledger_postgres_house import Record, appended
from onbehalf.doors.ledger_postgres_schema import schema_sql
from onbehalf.doors.ledger_postgres_session import Demands, open_session
from onbehalf.errors import ConfigInvalid


@pytest.fixture
def record(tmp_path: Path, database: str) -> Record:
    return Record(tmp_path, database)


def test_a_database_without_a_record_says_what_to_do(record: Record) -> None:
    record.run("DROP SCHEMA onbehalf_log CASCADE")
    with pytest.raises(ConfigInvalid, match="no record") as refused:
        record.replica()
    assert "onbehalf db ledger" in refused.value.hint


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER ROLE {gw} SUPERUSER", "is a superuser"),
        ("GRANT onbehalf_log_owner TO {gw}", "owns the record"),
        ("GRANT UPDATE ON onbehalf_log.head TO {gw}", "may write the table head"),
        ("GRANT DELETE ON onbehalf_log.leaf TO {gw}", "may write the table leaf"),
        ("GRANT DELETE ON onbehalf_log.payload TO {gw}", "may write the table payload"),
        ("GRANT UPDATE ON onbehalf_keys.key TO {gw}", "may write the table key"),
        ("GRANT onbehalf_log_eraser TO {gw}", "may destroy keys of people"),
        ("GRANT onbehalf_log_rekeyer TO {gw}", "may change the log's keys"),
    ],
)
def test_a_login_that_may_do_more_than_append_is_refused(record: Record, change: str, expected: str) -> None:
    record.run(change.format(gw=conninfo_to_dict(record.dsn)["user"]))
    with pytest.raises(ConfigInvalid, match=expected):
        record.replica()


@pytest.mark.parametrize("weak", ["off", "local", "remote_write"])
def test_a_server_that_may_forget_what_it_committed_is_refused(record: Record, weak: str) -> None:
    user = conninfo_to_dict(record.dsn)["user"]
    record.run(f"ALTER ROLE {user} SET synchronous_commit = '{weak}'")
    with pytest.raises(ConfigInvalid, match=f"synchronous_commit is `{weak}`"):
        open_session(Demands(dsn=record.dsn))
    record.run(f"ALTER ROLE {user} SET synchronous_commit = 'on'")
    with pytest.raises(ConfigInvalid, match="fsync is `off`"):  # as the server of most tests has it
        open_session(Demands(dsn=record.dsn))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO onbehalf_log.leaf SELECT 1, gen_random_uuid(), '', '', '', 1, 1",
        "UPDATE onbehalf_log.leaf SET entry = ''",
        "DELETE FROM onbehalf_log.leaf",
        "TRUNCATE onbehalf_log.leaf",
        "UPDATE onbehalf_log.head SET size = 0",
        "DELETE FROM onbehalf_log.payload",
        "UPDATE onbehalf_log.replica SET gone = NULL",
        "INSERT INTO onbehalf_keys.key VALUES ('', '', '')",
        "UPDATE onbehalf_keys.key SET wrapped = ''",
        "DELETE FROM onbehalf_keys.hold",
        "SELECT onbehalf_keys.dying('{}')",
        "SELECT onbehalf_keys.destroy('', '{}', '')",
        "SELECT onbehalf_keys.destroy_again('', 'erase', '{}', '')",
        "SELECT onbehalf_keys.ask('', 'hold', '', '{}')",
        "SELECT onbehalf_keys.note('', 'done', '', '', 1)",
        "SELECT onbehalf_keys.erase_payloads('', 0, 1, '{0}')",
        "SELECT onbehalf_keys.scrub()",
        "SELECT onbehalf_log.lock_alone()",
        "SELECT onbehalf_log.hand_over(0, 1, '', '', '', '', '')",
        "DELETE FROM onbehalf_log.handover",
    ],
)
def test_a_gateways_login_can_neither_change_nor_remove(record: Record, statement: str) -> None:
    ledger = record.replica()
    appended(ledger, 1)
    ledger.close()
    with psycopg.connect(record.dsn, autocommit=True) as gateway, pytest.raises(psycopg.errors.InsufficientPrivilege):
        gateway.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT sealed FROM onbehalf_log.payload",
        "SELECT entry FROM onbehalf_log.leaf",
        "SELECT wrapped FROM onbehalf_keys.key",
        "DELETE FROM onbehalf_log.payload",
        "UPDATE onbehalf_keys.key SET label = NULL",
        "SELECT onbehalf_keys.keep('{}', '{}', '{}')",
        "SELECT onbehalf_log.join_log('eraser')",
    ],
)
def test_who_erases_can_neither_read_nor_append_nor_make_keys(record: Record, statement: str) -> None:
    with psycopg.connect(record.eraser, autocommit=True) as eraser, pytest.raises(psycopg.errors.InsufficientPrivilege):
        eraser.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO onbehalf_log.handover VALUES (1, '', 1)",
        "UPDATE onbehalf_log.head SET size = 0",
        "UPDATE onbehalf_log.replica SET gone = NULL",
        "SELECT wrapped FROM onbehalf_keys.key",
        "SELECT onbehalf_keys.keep('{}', '{}', '{}')",
        "SELECT onbehalf_keys.destroy('', '{}', '')",
        "SELECT onbehalf_log.join_log('one')",
        "SELECT onbehalf_log.fence(1, 1)",
        "SELECT onbehalf_log.enter(1, 0, 0, '{}', '{}', '', '', 0)",
    ],
)
def test_who_changes_the_logs_keys_can_neither_append_anything_else_nor_touch_keys_of_people(
    record: Record, statement: str
) -> None:
    with psycopg.connect(record.rekeyer, autocommit=True) as login, pytest.raises(psycopg.errors.InsufficientPrivilege):
        login.execute(statement.encode())


def test_a_record_of_an_older_release_says_what_to_do_and_keeps_what_it_has(record: Record) -> None:
    ledger = record.replica()
    appended(ledger, 1)
    ledger.close()
    for number, lacks in enumerate(("SCHEMA onbehalf_keys CASCADE", "TABLE onbehalf_log.handover"), start=2):
        record.run(f"DROP {lacks}")
        with pytest.raises(ConfigInvalid, match="of an older release") as refused:
            record.replica()
        assert "onbehalf db ledger" in refused.value.hint
        record.run(schema_sql(record.keys.signer))
        ledger = record.replica()
        appended(ledger, number)
        ledger.close()
        assert record.verified() == number


def test_the_functions_append_at_the_end_of_the_log_or_do_nothing(record: Record) -> None:
    ledger = record.replica()
    appended(ledger, 1, 2)
    before = record.run("SELECT size, note, epoch FROM onbehalf_log.head")
    [(size, note, epoch)] = before
    enter = "SELECT onbehalf_log.enter(%s, %s::bigint, %s::bigint, %s, %s, %s, %s, 0)"
    leaf, me = b'{"id":"%b","call":"","at":1}' % (b"0" * 32), ledger._sequencer.me
    longer = note.replace("\n2\n", "\n3\n")
    with psycopg.connect(record.dsn, autocommit=True) as gateway:
        for changed in (
            (me, epoch, size - 1, [leaf], [b""], b"", longer),
            (me, epoch + 1, size, [leaf], [b""], b"", longer),
            (me, epoch, size, [leaf], [b"", b""], b"", longer),
            (me, epoch, size, [leaf], [b""], b"", note),
            (me, None, size, [leaf], [b""], b"", longer),
            (me, epoch, None, [leaf], [b""], b"", longer),
            (None, epoch, size, [leaf], [b""], b"", longer),
            (me + 9, epoch, size, [leaf], [b""], b"", longer),
        ):
            with pytest.raises(psycopg.Error) as refused:
                gateway.execute(enter, changed)
            assert refused.value.sqlstate in ("OB001", "OB002")
        with pytest.raises(psycopg.Error) as refused:
            gateway.execute("SELECT onbehalf_log.fence(%s, %s)", (me + 9, me))
        assert refused.value.sqlstate == "OB001"
    assert record.run("SELECT size, note, epoch FROM onbehalf_log.head") == before
    ledger.close()


def test_a_live_replica_cannot_be_said_to_be_gone(record: Record) -> None:
    one, other = record.replica("one"), record.replica("other")
    me, live = one._sequencer.me, other._sequencer.me
    with open_session(Demands(dsn=record.dsn, insecure_durability=True))._connection as session:
        with pytest.raises(psycopg.Error) as refused:
            session.execute("SELECT onbehalf_log.fence(%s, %s)", (me, live))
        assert refused.value.sqlstate == "OB003"
    appended(other, 1)
    one.close()
    other.close()
