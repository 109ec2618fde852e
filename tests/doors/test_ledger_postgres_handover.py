"""The keys of a record in PostgreSQL changed: while no replica is there, followed from either, broken off at each step.

A replica that runs on with the former keys writes nothing more, whoever looks.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from doors.ledger_postgres_house import ORIGIN, QUICK, Record, Wire, appended, wait_for
from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.doors.ledger_handover import finish, hand_over
from onbehalf.doors.ledger_keys import make_next_keys, read_ledger_keys, read_shared_keys
from onbehalf.doors.ledger_postgres import Patience
from onbehalf.doors.ledger_postgres_handover import PostgresChangeable
from onbehalf.doors.ledger_postgres_schema import schema_sql
from onbehalf.doors.ledger_postgres_session import Demands
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.doors.ledger_postgres_subjects import PostgresSubjects
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import checkpoint
from onbehalf.explain.cosignature import ML_DSA_44, cosigned, cosigner
from onbehalf.explain.handover import Handover
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.report import Verdict

STEPS = ("made", "committed", "published", "took log-ml-dsa.key", "took log.key")


@pytest.fixture
def record(tmp_path: Path, database: str) -> Record:
    made = Record(tmp_path, database)
    written(made, "a", 1, 2, 3)
    return made


def written(record: Record, name: str, *numbers: int, keys: LedgerKeys | None = None) -> None:
    """Entries by a replica that comes and goes."""
    ledger = record.replica(name, keys=keys)
    appended(ledger, *numbers)
    ledger.close()


def changeable(record: Record, dsn: str = "") -> PostgresChangeable:
    demands = Demands(dsn=dsn or record.rekeyer, insecure_durability=True, insecure_role=True, idle_seconds=60)
    (record.path / "command").mkdir(exist_ok=True)
    return PostgresChangeable(demands, replica=record.path / "command" / "replica.json", origin=ORIGIN)


def changed(record: Record, failpoint: Callable[[str], None] = lambda _: None, *, dsn: str = "") -> Handover:
    return hand_over(
        changeable(record, dsn), record.path / "keys", origin=ORIGIN, by="ops", at=UnixTime(7000), failpoint=failpoint
    )  # fmt: skip


def started(record: Record) -> Handover | None:
    """What a gateway does with key files before it opens the record."""
    return finish(changeable(record, record.dsn), record.path / "keys", origin=ORIGIN)


def killed(record: Record, step: str) -> None:
    """A process that changes the keys and is killed at this step."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            changed(record, lambda here: os.kill(os.getpid(), signal.SIGKILL) if here == step else None)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def keys(record: Record) -> LedgerKeys:
    return read_ledger_keys(record.path / "keys", origin=ORIGIN)


def kept(record: Record, name: str = "kept") -> Path:
    """The keys as they are now, as another machine has them."""
    return Path(shutil.copytree(record.path / "keys", record.path / name / "keys"))


def former(record: Record, folder: Path) -> LedgerKeys:
    return read_shared_keys(folder, origin=ORIGIN, people=PostgresSubjects(record.dsn))


def found(record: Record, vkey: str) -> list[str]:
    reader = LedgerReader(PostgresStore(record.owner), vkey=vkey)
    try:
        return [each.code for each in reader.verify().findings]
    finally:
        reader.close()


def exported(record: Record, name: str) -> Path:
    place, reader = record.path / name, record.reader()
    try:
        asked = Asked(start=("index", 0), end=None)
        export(reader, place, asked=asked, keys={}, policies={}, kept=lambda _: None)
    finally:
        reader.close()
    return place


def test_a_change_is_one_leaf_under_a_head_of_all_keys_and_the_log_goes_on_by_the_new_ones(record: Record) -> None:
    old = keys(record)
    [(epoch,)] = record.run("SELECT epoch FROM onbehalf_log.head")
    made = changed(record)
    new = keys(record)
    assert record.run("SELECT epoch FROM onbehalf_log.head") == [(epoch + 1,)]
    assert set(old.vkeys).isdisjoint(new.vkeys)
    for each in (old, new):
        head = checkpoint.read(made.note, each.signer.verifier, origin=ORIGIN)
        assert (head.size, each.heads is not None) == (made.size, True) == (4, True)
        assert cosigned(made.note, cosigner(each.vkeys[1], (ML_DSA_44,)), head) is not None
    written(record, "a", 4, 5)
    written(record, "b", 6)
    changed(record)
    third = keys(record)
    written(record, "a", 7)
    assert record.verified() == 9
    for each in (old, new, third):
        assert found(record, each.vkeys[0]) == []
        bundle = exported(record, "b.zip")
        assert check(bundle, key="\n".join(each.vkeys)).findings == [], "the second keys signed both changes"
        report = check(bundle, key=each.vkeys[0])
        assert (report.verdict, report.findings) == (Verdict.verified, [])
        assert [span.first for span in report.keys] == [0, 4, 8]
    reader = record.reader()
    facts = reader.record(3).facts
    reader.close()
    assert (facts["by"], facts["log_key"]) == ("ops", {"before": [*old.vkeys], "after": [*new.vkeys]})
    assert (record.path / "keys" / "log.pub").read_text().split() == [*third.vkeys]
    assert not [*(record.path / "keys").glob("*.next")]
    assert not (record.path / "ledger-keys.db").exists()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("then", ["start", "again"])
def test_a_change_that_was_killed_at_any_step_is_finished_by_the_next_start_or_run(
    record: Record, step: str, then: str
) -> None:
    old = keys(record)
    killed(record, step)
    assert found(record, old.vkeys[0]) == []
    ended = step == STEPS[-1]
    if then == "start":
        assert (started(record) is None) == (step == "made" or ended)
    elif not ended:
        changed(record)
    after = keys(record)
    written(record, "a", 4)
    assert found(record, old.vkeys[0]) == found(record, after.vkeys[0]) == []
    assert (record.path / "keys" / "log.pub").read_text().split() == [*after.vkeys]
    unchanged = step == "made" and then == "start"
    [(count,)] = record.run("SELECT count(*) FROM onbehalf_log.handover")
    assert (count, after.vkeys == old.vkeys) == ((0, True) if unchanged else (1, False))
    assert (record.path / "keys" / "log.key.next").exists() == unchanged


def test_it_is_refused_while_a_replica_is_there_and_says_which_and_nothing_is_changed(record: Record) -> None:
    before, ledger = keys(record), record.replica("b")
    with pytest.raises(LedgerUnavailable, match=rf"replicas are there: {ledger._sequencer.me} on ") as refused:
        changed(record)
    assert "stop all gateways" in refused.value.hint
    appended(ledger, 4)
    ledger.close()
    assert (keys(record).vkeys, record.verified()) == (before.vkeys, 4)
    assert not [*(record.path / "keys").glob("*.next")]


def test_no_replica_joins_or_comes_again_while_the_keys_are_changed(record: Record) -> None:
    tried: list[object] = []

    def join(step: str) -> None:
        def open_() -> None:
            try:
                record.replica("b").close()
            except LedgerUnavailable as error:
                tried.append(error)

        if step == "made":
            thread = threading.Thread(target=open_)
            thread.start()
            waits = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%join_log%' AND wait_event_type = 'Lock'"
            wait_for(lambda: record.run(waits), "who would join")
            tried.append(thread)

    old = keys(record)
    changed(record, join)
    thread = tried[0]
    assert isinstance(thread, threading.Thread)
    thread.join(60)
    assert record.run("SELECT barred FROM onbehalf_log.handover") == [(1,)]
    assert record.run("SELECT max(id) FROM onbehalf_log.replica") == [(2,)]
    assert record.verified() == 4, "it had the former key when it joined, and wrote nothing"
    assert found(record, old.vkeys[0]) == []


@pytest.mark.parametrize("by", ["the database", "its own reading"])
def test_a_replica_that_was_cut_off_and_comes_again_with_the_former_keys_writes_nothing_and_says_why(
    record: Record, by: str
) -> None:
    wire = Wire(record.dsn)
    replica = record.replica("b", dsn=wire.dsn, patience=Patience(record=5, again=0.05, look=60))
    [open_] = appended(replica, 4, kind="intent")
    wire.open = False
    wire.cut()
    wait_for(lambda: not record.backends(), "that its session has ended")
    changed(record)
    if by == "its own reading":
        record.run("UPDATE onbehalf_log.handover SET barred = 0")
    wire.open = True
    with pytest.raises(LedgerUnavailable):
        appended(replica, 5)
    wait_for(lambda: replica.closed, "that it is closed")
    said = (
        "keys were changed, and this replica has the former" if by == "the database" else "not signed by the `log.key`"
    )
    assert said in replica.closed
    replica.close()
    wire.close()
    assert record.verified() == 5
    later = record.replica("c", patience=QUICK)
    reader = record.reader()
    wait_for(lambda: [each.index for each in reader.unsettled()[1]] == [open_.index], "that its call is unknown")
    reader.close()
    later.close()
    assert record.verified() == 6


def test_a_replica_that_only_looks_is_closed_too(record: Record) -> None:
    wire = Wire(record.dsn)
    replica = record.replica("b", dsn=wire.dsn)
    wire.open = False
    wire.cut()
    wait_for(lambda: not record.backends(), "that its session has ended")
    changed(record)
    wire.open = True
    wait_for(lambda: "the former ones" in replica.closed, "that it is closed")
    replica.close()
    wire.close()


def test_the_database_takes_no_head_by_another_key_than_the_newest(record: Record) -> None:
    old = keys(record)
    ledger = record.replica("b")
    appended(ledger, 4)
    [(size, root, note, epoch)] = record.run("SELECT size, root, note, epoch FROM onbehalf_log.head")
    leaf = b'{"id":"%b","call":"","at":1}' % (b"0" * 32)
    enter = "SELECT onbehalf_log.enter(%s, %s::bigint, %s::bigint, %s, %s, %s, %s, 0)"
    after = make_next_keys(record.path / "keys", origin=ORIGIN)
    head = checkpoint.Checkpoint(origin=ORIGIN, size=size + 1, root=bytes(root))
    with psycopg.connect(record.dsn, autocommit=True) as gateway:
        by = checkpoint.write(head, after.signer)
        with pytest.raises(psycopg.Error) as refused:
            gateway.execute(enter, (ledger._sequencer.me, epoch, size, [leaf], [b""], b"", by))
        assert refused.value.sqlstate == "OB006"
    ledger.close()
    assert record.run("SELECT note FROM onbehalf_log.head") == [(note,)]
    hand = "SELECT onbehalf_log.hand_over(%s::bigint, %s::bigint, %s, %s, %s, %s, '')"
    [(epoch,)] = record.run("SELECT epoch FROM onbehalf_log.head")
    change = leaf.replace(b'"call"', b'"kind":"key_change","call"')
    with psycopg.connect(record.rekeyer, autocommit=True) as login:
        for place, entry, sealed, signer in (
            ((epoch, size), change, b"\1", old), ((epoch, size), leaf, b"\1", after),
            ((epoch, size), change, b"\2", after), ((epoch + 1, size), change, b"\1", after),
            ((epoch, size + 1), change, b"\1", after),
        ):  # fmt: skip
            with pytest.raises(psycopg.Error) as refused:
                login.execute(hand, (*place, entry, sealed, b"", checkpoint.write(head, signer.signer)))
            assert refused.value.sqlstate == "OB002"
    assert record.run("SELECT count(*) FROM onbehalf_log.handover") == [(0,)]


def test_a_gateway_that_has_the_former_key_files_says_what_to_copy_and_one_with_the_prepared_ones_takes_them(
    record: Record,
) -> None:
    elsewhere = kept(record, "elsewhere")
    make_next_keys(record.path / "keys", origin=ORIGIN)
    prepared = kept(record, "prepared")
    changed(record)
    new = keys(record)
    with pytest.raises(ConfigInvalid, match="a former key of this log: leaf 3 says") as refused:
        record.replica("b", keys=former(record, elsewhere))
    assert "copy `log.key`, `log-ml-dsa.key` and `log.pub`" in refused.value.hint
    with pytest.raises(ConfigInvalid, match="a former key of this log: leaf 3 says"):
        hand_over(changeable(record), elsewhere, origin=ORIGIN, by="ops", at=UnixTime(7000))
    assert not [*elsewhere.glob("*.next")]
    second = (prepared / "log-ml-dsa.key.next").rename(record.path / "aside")
    with pytest.raises(ConfigInvalid, match="the new second key") as refused:
        finish(changeable(record, record.dsn), prepared, origin=ORIGIN)
    assert "copy `log-ml-dsa.key.next`" in refused.value.hint
    second.rename(prepared / "log-ml-dsa.key.next")
    made = finish(changeable(record, record.dsn), prepared, origin=ORIGIN)
    assert made is not None
    assert sorted(each.name for each in prepared.iterdir()) == sorted(p.name for p in (record.path / "keys").iterdir())
    for each in prepared.iterdir():
        assert each.read_bytes() == (record.path / "keys" / each.name).read_bytes()
    written(record, "c", 4, keys=former(record, prepared))
    shutil.copy(record.path / "keys" / "log.key", elsewhere / "log.key")
    with pytest.raises(ConfigInvalid, match=r"is not the one that came with `log\.key` at leaf 3"):
        record.replica("b", keys=former(record, elsewhere))
    for name in ("log-ml-dsa.key", "log.pub"):
        shutil.copy(record.path / "keys" / name, elsewhere / name)
    written(record, "b", 5, keys=former(record, elsewhere))
    assert (keys(record).vkeys, record.verified()) == (new.vkeys, 6)


def test_keys_that_the_log_had_before_do_not_come_after_the_newest(record: Record) -> None:
    make_next_keys(record.path / "keys", origin=ORIGIN)
    stale = {each.name: each.read_bytes() for each in (record.path / "keys").glob("*.next")}
    changed(record)
    changed(record)
    for name, content in stale.items():
        (record.path / "keys" / name).write_bytes(content)
        (record.path / "keys" / name).chmod(0o600)
    assert started(record) is None
    with pytest.raises(ConfigInvalid, match="a key that this log had before"):
        changed(record)
    assert record.verified() == 5


def test_new_keys_that_cannot_be_put_in_place_are_taken_once_they_can(record: Record) -> None:
    old, blocked = keys(record), record.path / "keys" / ".log.pub.new"
    blocked.mkdir()
    with pytest.raises(ConfigInvalid, match="cannot be put in place") as refused:
        changed(record)
    assert "log.key.next" in refused.value.hint
    with pytest.raises(ConfigInvalid, match="cannot be put in place"):
        started(record)
    assert (keys(record).vkeys, found(record, old.vkeys[0])) == (old.vkeys, [])
    blocked.rmdir()
    assert started(record) is not None
    written(record, "a", 4)
    assert record.verified() == 5


def test_without_a_login_that_may_nothing_is_changed(record: Record) -> None:
    with pytest.raises(ConfigInvalid, match="may not change the keys") as refused:
        changed(record, dsn=record.dsn)
    assert "onbehalf_log_rekeyer" in refused.value.hint
    with pytest.raises(LedgerUnavailable, match="another process uses"), changeable(record).seen():
        changed(record)  # while a gateway of the same folder starts
    assert record.verified() == 3


def test_a_server_that_ends_the_session_before_the_commit_changes_nothing(record: Record) -> None:
    old = keys(record)
    user = conninfo_to_dict(record.rekeyer)["user"]

    def end(step: str) -> None:
        if step == "made":
            record.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'")

    with pytest.raises(LedgerUnavailable, match="database"):
        changed(record, end)
    assert (keys(record).vkeys, started(record)) == (old.vkeys, None)
    written(record, "a", 4)
    assert record.verified() == 4
    changed(record)
    assert record.verified() == 5


def test_a_commit_whose_answer_is_lost_gives_up_no_key_until_it_is_seen(record: Record) -> None:
    wire, old = Wire(record.rekeyer), keys(record)

    def deafen(step: str) -> None:
        if step == "made":
            wire.deaf = True
            threading.Thread(target=cut).start()

    def cut() -> None:
        wait_for(lambda: record.run("SELECT 1 FROM onbehalf_log.handover"), "the commit")
        wire.cut()

    with pytest.raises(LedgerUnavailable):
        changed(record, deafen, dsn=wire.dsn)
    wire.close()
    assert keys(record).vkeys == old.vkeys
    made = changed(record)
    assert made.index == 3
    assert keys(record).vkeys != old.vkeys
    written(record, "a", 4)
    assert record.verified() == 5


def test_no_old_key_is_given_up_for_a_change_that_a_standby_may_not_have(record: Record) -> None:
    """A server whose wait for a standby is ended commits all the same, and only warns."""
    old = keys(record)
    for dsn in (record.rekeyer, record.dsn):
        record.run(f"ALTER ROLE {conninfo_to_dict(dsn)['user']} SET synchronous_commit = on")
    record.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    record.run("SELECT pg_reload_conf()")
    try:
        for attempt in (lambda: changed(record), lambda: started(record), lambda: changed(record)):
            thread = threading.Thread(target=end_waiting, args=(record,))
            thread.start()
            with pytest.raises(LedgerUnavailable, match=r"the server warns: .* synchronous replication"):
                attempt()
            thread.join(60)
            assert keys(record).vkeys == old.vkeys
            assert record.run("SELECT count(*) FROM onbehalf_log.handover") == [(1,)]
    finally:
        record.run("ALTER SYSTEM RESET synchronous_standby_names")
        record.run("SELECT pg_reload_conf()")
    assert started(record) is not None
    assert keys(record).vkeys != old.vkeys
    written(record, "a", 4)
    assert record.verified() == 5


def end_waiting(record: Record) -> None:
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_for(lambda: record.run(waiting), "the wait for the standby")
    record.run(f"SELECT pg_cancel_backend(pid) FROM ({waiting}) w")


def test_a_changed_or_missing_change_is_found_and_no_replica_starts_on_it(record: Record) -> None:
    made, old = changed(record), keys(record)
    [(told,)] = record.run("SELECT told FROM onbehalf_log.handover")
    assert told == made.line().rstrip("\n")
    record.run("UPDATE onbehalf_log.handover SET told = replace(told, '\"path\"', '\"paht\"')")
    assert "handover_wrong" in found(record, old.vkeys[0])
    with pytest.raises(LedgerCorrupt):
        record.replica("b")
    record.run("DELETE FROM onbehalf_log.handover")
    assert found(record, old.vkeys[0]) == ["handover_missing"]
    with pytest.raises(LedgerCorrupt, match="not kept"):
        record.replica("b")


def test_the_sql_run_again_leaves_a_change_as_it_is(record: Record) -> None:
    changed(record)
    before = record.run("SELECT * FROM onbehalf_log.handover, onbehalf_log.head")
    record.run(schema_sql(keys(record).signer))
    assert record.run("SELECT * FROM onbehalf_log.handover, onbehalf_log.head") == before
    written(record, "a", 4)
    assert record.verified() == 5
