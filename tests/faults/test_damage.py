"""Bytes changed, torn off or put back: found and located in its place; and what nobody can find without a copy."""

from __future__ import annotations

import base64
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from faults.checker import Log, judge, judge_recovery, read_log
from faults.fault_house import Place
from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_settled import settle
from onbehalf.doors.ledger_tiles import LedgerTiles, export_log
from onbehalf.doors.ledger_witness import ask_witness
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, OnbehalfError
from onbehalf.explain import tree
from onbehalf.verifier.check import check
from onbehalf.witness.serve import Witness, server

LONG = "ONBEHALF_SOAK" in os.environ
A_COMMIT = 4
"""Two callers, and what each may have left to be written without waiting: no commit here has more leaves."""


def written(directory: Path, *, calls: int = 8, leave: bool = True) -> Place:
    """A ledger with some calls, its write-ahead log still beside it if it is left so."""
    place = Place.at(directory)
    place.run("--calls", str(calls), "--tasks", "2", *(["--leave"] if leave else []), code=0)
    return place


def copied(place: Place, directory: Path) -> Place:
    directory.mkdir(parents=True, exist_ok=True)
    for before in directory.glob("log.db*"):
        before.unlink()
    for source in place.directory.glob("log.db*"):
        if source.suffix != ".db-shm":
            shutil.copyfile(source, directory / source.name)
    if not (directory / "keys").exists():
        (directory / "keys").symlink_to(place.directory / "keys")
    return Place(directory)


def test_a_write_ahead_log_torn_or_garbled_at_any_byte_of_its_last_frame_keeps_all_before(tmp_path: Path) -> None:
    """The last commit was not synced then, so nobody was told of it; every earlier one was."""
    place = written(tmp_path / "it", calls=2)
    log = (place.directory / "log.db-wal").read_bytes()
    whole = read_log(place.database)
    frame = 4096 + 24
    cuts = range(len(log) - frame, len(log)) if LONG else random.sample(range(len(log) - frame, len(log)), 60)
    torn = Place(tmp_path / "torn")
    for cut in cuts:
        for data in (log[:cut], log[:cut] + bytes([log[cut] ^ 1 << random.randrange(8)]) + log[cut + 1 :]):
            copied(place, torn.directory)
            (torn.directory / "log.db-wal").write_bytes(data)
            before = read_log(torn.database)
            assert before.leaves == whole.leaves[: len(before.leaves)]
            assert len(before.leaves) >= len(whole.leaves) - A_COMMIT, "more than the last commit is gone"
            torn.opened().close()
            assert judge_recovery(before, read_log(torn.database)) == []


def test_a_byte_changed_in_any_commit_of_the_write_ahead_log_but_the_last_is_refused(tmp_path: Path) -> None:
    """SQLite would take it for the end of the log, and begin a ledger with nothing in it, as it did here once."""
    place = written(tmp_path / "it", calls=3)
    log = (place.directory / "log.db-wal").read_bytes()
    frame = 4096 + 24
    commits = [start for start in range(32, len(log), frame) if log[start + 4 : start + 8] != bytes(4)]
    bent = Place(tmp_path / "bent")
    for start in [0, *range(32, commits[-2] + 1, frame)]:
        copied(place, bent.directory)
        byte = start + random.choice([0, 8 + random.randrange(16), 24 + random.randrange(4096)] if start else range(32))
        (bent.directory / "log.db-wal").write_bytes(log[:byte] + bytes([log[byte] ^ 4]) + log[byte + 1 :])
        if byte in range(commits[-2], commits[-2] + 24):
            continue  # the one place where two commits look like one
        with pytest.raises(LedgerCorrupt, match="write-ahead log"):
            bent.opened()
    (bent.directory / "log.db-wal").write_bytes(
        log[: commits[-2] + frame + 24] + b"?" + log[commits[-2] + frame + 25 :]
    )
    settle(bent.database)
    assert (bent.directory / "log.db-wal").read_bytes() == log[: commits[-2] + frame], "what is torn is cut off"


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_flipped_bit_anywhere_in_the_files_is_found_or_changes_nothing(tmp_path: Path, suffix: str) -> None:
    """Either it is refused, or the record is as it was, or its last commit is gone, as if power had been lost."""
    place = written(tmp_path / "it", leave=bool(suffix))
    data = bytearray(Path(f"{place.database}{suffix}").read_bytes())
    good = read_log(place.database).leaves
    chance = random.Random()
    found = 0
    for _ in range(2000 if LONG else 80):
        bent = copied(place, tmp_path / "bent")
        bit = chance.randrange(len(data) * 8)
        changed = bytes([data[bit // 8] ^ 1 << bit % 8])
        Path(f"{bent.database}{suffix}").write_bytes(data[: bit // 8] + changed + data[bit // 8 + 1 :])
        try:
            bent.opened().close()
        except OnbehalfError:
            found += 1
            continue
        after = read_log(bent.database).leaves
        kept = next((i for i, (one, two) in enumerate(zip(good, after, strict=False)) if one != two), len(after))
        most = 2 * A_COMMIT if suffix else 0  # where a commit no longer says that it is one, two look like one
        assert kept >= len(good) - most, f"bit {bit} of {suffix or 'the file'} was not seen"
        found += kept < len(good) or not bent.reader().verify().ok
    assert found, "no flipped bit made a difference, so nothing was tested"


@pytest.mark.parametrize(
    ("table", "column", "index", "code"),
    [
        ("leaf", "entry", 5, "leaf_changed"),
        ("leaf", "hash", 5, "leaf_changed"),
        ("payload", "sealed", 5, "payload_changed"),
        ("head", "note", -1, "head_changed"),
        ("head", "root", -1, "head_changed"),
    ],
)
def test_each_flipped_bit_of_a_column_is_found_at_its_place(
    tmp_path: Path, table: str, column: str, index: int, code: str
) -> None:
    place = written(tmp_path, leave=False)
    where = f"idx = {index}" if index >= 0 else "one = 1"
    query = f"SELECT CAST({column} AS BLOB) FROM {table} WHERE {where}"
    with closing(sqlite3.connect(place.database, isolation_level=None)) as connection:
        connection.execute("DROP INDEX leaf_call")
        [(data,)] = connection.execute(query)
        for bit in range(len(data) * 8) if LONG else random.sample(range(len(data) * 8), 25):
            bent = data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
            kind = "TEXT" if column == "note" else "BLOB"
            connection.execute(f"UPDATE {table} SET {column} = CAST(? AS {kind}) WHERE {where}", (bent,))
            report = place.reader().verify()
            codes = {"head_changed", "file_damaged"} if column == "note" else {code}
            assert {(each.index, each.code) for each in report.findings} & {(index, each) for each in codes}, bit
            if table != "payload":
                with pytest.raises(LedgerCorrupt):
                    place.opened()


def test_a_column_that_is_null_in_a_damaged_file_is_found_and_refused(tmp_path: Path) -> None:
    """The table forbids it; a page of it that was torn does not."""
    place = written(tmp_path, leave=False)
    with closing(sqlite3.connect(place.database, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name IN ('leaf', 'head')"
        )
    with closing(sqlite3.connect(place.database, isolation_level=None)) as connection:
        connection.execute("UPDATE leaf SET entry = NULL WHERE idx = 5")
        connection.execute("UPDATE head SET root = NULL")
    with pytest.raises(LedgerCorrupt, match="leaf 5"):
        place.opened()
    reader = place.reader()
    found = {(each.index, each.code) for each in reader.verify().findings}
    assert {(5, "leaf_changed"), (5, "leaf_malformed"), (-1, "head_changed")} <= found
    with pytest.raises(LedgerCorrupt, match="record 5 is damaged"):
        reader.record(5)


@pytest.mark.parametrize("name", ["log.key", "payload.key", "log.pub"])
def test_a_flipped_bit_of_a_key_file_is_found(tmp_path: Path, name: str) -> None:
    place = written(tmp_path, leave=False)
    file = place.directory / "keys" / name
    data = file.read_bytes()
    for byte in random.sample(range(len(data) - 1), 20):
        file.write_bytes(data[:byte] + bytes([data[byte] ^ 1 << random.randrange(7)]) + data[byte + 1 :])
        if name == "log.pub":
            with pytest.raises((ConfigInvalid, LedgerCorrupt)):
                _verified_by(place, file.read_bytes().decode("latin-1").strip())
            continue
        try:
            with closing(place.reader()) as reader:
                codes = {each.code for each in reader.verify().findings}
        except ConfigInvalid:  # no base64
            continue
        if base64.b64decode(file.read_bytes()) == base64.b64decode(data):  # a spare bit of the last letter
            assert codes == set()
            continue
        assert codes == {"log.key": {"head_changed"}, "payload.key": {"payload_changed"}}[name]


def _verified_by(place: Place, vkey: str) -> None:
    report = LedgerReader(place.database, vkey=vkey).verify()
    if not report.ok:
        raise LedgerCorrupt(report.findings[0].text)


def test_a_flipped_bit_of_a_tile_is_found_by_whoever_holds_it_against_the_checkpoint(tmp_path: Path) -> None:
    place = written(tmp_path / "it", calls=70, leave=False)
    size = export_log(LedgerTiles(place.database), tmp_path / "public")
    assert size > 256
    leaves, entries = ([], [])
    for width in ("000", f"001.p/{size - 256}"):
        data = (tmp_path / "public" / "tile" / "0" / width).read_bytes()
        leaves += [data[start : start + 32] for start in range(0, len(data), 32)]
        bundle = (tmp_path / "public" / "tile" / "entries" / width).read_bytes()
        while bundle:
            length = int.from_bytes(bundle[:2], "big")
            entries.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
    note = (tmp_path / "public" / "checkpoint").read_text(encoding="utf-8")
    root = tree.root(leaves)
    assert judge(_log(entries, note), place.seen(), place.vkey) == []
    for _ in range(20):
        index, bit = random.randrange(size), random.randrange(256)
        bent = bytearray(leaves[index])
        bent[bit // 8] ^= 1 << bit % 8
        assert tree.root([*leaves[:index], bytes(bent), *leaves[index + 1 :]]) != root
        assert tree.leaf_hash(entries[index]) != bytes(bent), "and the entry says which of them"


def _log(entries: list[bytes], note: str) -> Log:
    return Log(leaves=tuple((i, tree.leaf_hash(each), each) for i, each in enumerate(entries)), note=note)


def test_a_file_put_back_to_an_old_backup_is_believed_without_a_copy_and_caught_with_one(tmp_path: Path) -> None:
    """The limit that the documentation states: the old state is whole and signed. A checkpoint that anyone kept shows
    it, and so does what clients were told."""
    place = written(tmp_path / "it", leave=False)
    backup = read_log(place.database)
    shutil.copyfile(place.database, tmp_path / "backup.db")
    place.run("--calls", "5", "--tasks", "2", code=0)
    kept = read_log(place.database).note
    shutil.copyfile(tmp_path / "backup.db", place.database)

    assert place.reader().verify().ok, "nothing in the file itself can say so"
    ledger = place.opened()
    assert ledger.closed == ""
    ledger.close()
    seen = place.seen()
    assert any("was acknowledged and is not on record" in each for each in judge(backup, seen, place.vkey))
    seen.acked, seen.effects, seen.heads = [], [], [kept]
    assert any("a head that was seen" in each for each in judge(read_log(place.database), seen, place.vkey))
    reader, bundle = place.reader(), tmp_path / "evidence.zip"
    export(reader, bundle, Asked(), keys={}, policies={})
    assert {each.code for each in check(bundle, key=place.vkey.strip()).findings} == set()
    said = check(bundle, key=place.vkey.strip(), kept=kept.encode())
    assert "head_newer" in {each.code for each in said.findings}


def test_a_file_put_back_is_caught_by_a_witness_and_so_is_one_that_went_on_from_there(tmp_path: Path) -> None:
    place = written(tmp_path / "it", leave=False)
    shutil.copyfile(place.database, tmp_path / "backup.db")
    with serving(tmp_path / "witness", place.vkey.strip()) as url:
        place.run("--calls", "5", "--tasks", "2", code=0)
        _cosigned(place, url)
        shutil.copyfile(tmp_path / "backup.db", place.database)
        with pytest.raises(LedgerCorrupt, match="has seen"):
            _cosigned(place, url)
        place.run("--calls", "30", "--tasks", "2", code=0)
        with pytest.raises(LedgerCorrupt, match="no continuation"):
            _cosigned(place, url)


@contextmanager
def serving(folder: Path, vkey: str) -> Iterator[str]:
    witness = Witness(folder, name="w.example/1", logs=[vkey])
    made = server(witness, "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}"
    finally:
        made.shutdown()
        made.server_close()
        thread.join()
        witness.close()


def _cosigned(place: Place, url: str) -> None:
    log = read_log(place.database)
    hashes = [hash_ for _, hash_, _ in log.leaves]
    ask_witness(url, log.note, len(hashes), lambda old: tree.consistency(old, hashes))


def test_a_backup_that_is_taken_while_the_gateway_writes_is_a_beginning_of_the_record(tmp_path: Path) -> None:
    """SQLite's own backup; a copy of the bare file without its write-ahead log may hold less, and is as whole."""
    place = Place.at(tmp_path / "it")
    process = place.start("--calls", "400")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        restored = Place(tmp_path / "restored")
        restored.directory.mkdir()
        (restored.directory / "keys").symlink_to(place.directory / "keys")
        with closing(sqlite3.connect(place.database)) as source, closing(sqlite3.connect(restored.database)) as to:
            source.backup(to)
    finally:
        process.kill()
        process.communicate()
    taken, whole = read_log(restored.database), read_log(place.database)
    assert whole.leaves[: len(taken.leaves)] == taken.leaves
    restored.opened().close()
    assert judge_recovery(taken, read_log(restored.database)) == []
