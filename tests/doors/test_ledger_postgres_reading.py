"""A record in PostgreSQL as people read it: by the same reader, with the same findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from doors.ledger_postgres_house import Record, appended
from onbehalf.explain import tree


@pytest.fixture
def record(tmp_path: Path, database: str) -> Record:
    return Record(tmp_path, database)


def test_what_people_ask_of_a_record_is_answered(record: Record) -> None:
    ledger = record.replica()
    receipts = appended(ledger, *range(20))
    ledger.close()
    reader = record.reader()
    call = f"call_{3:032x}"
    assert reader.find(call[:-1])[0] == f"call_{0:032x}"
    assert reader.records(call)[0].index == receipts[3].index
    assert len(reader.latest(5)) == 5
    assert reader.record(receipts[7].index).leaf == receipts[7].leaf
    proof = reader.proof(11)
    assert tree.verify_inclusion(leaf=tree.leaf_hash(proof.entry), index=11, size=20, path=proof.path, root=proof.root)
    assert reader.open_intents() == ()
    reader.close()


def test_damage_is_found_and_located(record: Record) -> None:
    ledger = record.replica()
    appended(ledger, *range(5))
    ledger.close()
    record.run("UPDATE onbehalf_log.leaf SET hash = sha256('x') WHERE idx = 2")
    record.run("UPDATE onbehalf_log.payload SET sealed = sealed || 'x' WHERE idx = 3")
    record.run("INSERT INTO onbehalf_log.payload VALUES (9, '')")
    reader = record.reader()
    found = [(each.index, each.code) for each in reader.verify().findings]
    reader.close()
    assert found == [(2, "leaf_changed"), (3, "payload_changed"), (9, "payload_without_leaf")]
