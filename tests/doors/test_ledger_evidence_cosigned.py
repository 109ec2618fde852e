"""The head of a bundle where a witness has a later one already: begun again, or the last one that a quorum cosigned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from onbehalf.doors.ledger_evidence import Asked, Exported, export
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_keys import read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_witness import Ahead, ask_quorum
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import quorum
from onbehalf.explain.checkpoint import Checkpoint, Head, write
from onbehalf.model import AuditEntry, Json, UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.policy import read_policy
from onbehalf.verifier.report import Verdict
from onbehalf.witness.judge import Answer
from verifier.bundle_house import KEY, ORIGIN, recorded
from witness_house import Told, policy_text, witnessing

PUBLIC: dict[str, Json] = {"receipts": {"desk": {"keys": [KEY.public]}}}


@dataclass(frozen=True, slots=True)
class House:
    place: Path
    told: Told
    heads: LedgerHeads

    @property
    def text(self) -> str:
        return policy_text(("w", self.told.vkey, self.told.url), quorum="all", log=self.heads._verifier.vkey)

    @property
    def policy(self) -> quorum.Policy:
        return quorum.parse(self.text.encode())

    def cosigned(self) -> int:
        """Have the newest head cosigned and kept, as a gateway does; its size."""
        head = self.heads.newest()
        [line] = ask_quorum(self.policy, head, lambda old: self.heads.proof(old, head.size))
        self.heads.keep(head, {"w": (1, line)})
        return head.size

    def grown(self) -> None:
        """Some leaves more."""

        async def more(ledger: SqliteLedger) -> None:
            for number in range(3):
                await ledger.append(AuditEntry(kind="start", call="", at=UnixTime(3000 + number), facts={}))

        recorded(self.place, calls=0, then=more).close()

    def export(self, **asked: object) -> Exported:
        reader = LedgerReader(self.place / "log.db", keys=read_ledger_keys(self.place / "keys", origin=ORIGIN))
        try:
            asked = replace(Asked(policy=self.policy, everything=True), **asked)
            return export(reader, self.place / "b.zip", asked, keys=PUBLIC, policies={}, heads=self.heads)
        finally:
            reader.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    reader = recorded(tmp_path)
    verifier = reader.verifier
    reader.close()
    heads = LedgerHeads(tmp_path / "log.db", tmp_path / "heads.db", verifier=verifier)
    with witnessing(tmp_path / "w", log=verifier.vkey) as told:
        yield House(tmp_path, told, heads)
    heads.close()


def ahead(size: int) -> Answer:
    return Answer(status=409, body=f"{size}\n", kind="text/x.tlog.size")


def test_a_witness_that_is_ahead_leaves_the_bundle_the_last_head_that_it_cosigned(house: House) -> None:
    size = house.cosigned()
    house.grown()
    house.told.change = lambda _: ahead(1000)
    with pytest.raises(Ahead, match="has seen 1000 leaves") as first:
        house.export()
    assert first.value.asked == house.heads.newest().size > size
    assert not (house.place / "b.zip").exists()
    with pytest.raises(Ahead):
        house.export(covering=size + 1)  # what was there when it was asked for is to be in it
    done = house.export(covering=size)
    assert (done.size, done.end) == (size, size)
    report = check(house.place / "b.zip", policy=read_policy(house.text.encode()))
    assert (report.verdict, report.findings, report.size) == (Verdict.verified, [], size), report.as_text()
    assert house.told.asked, "it was asked first"


def test_the_newest_head_is_taken_where_the_witness_cosigns_it(house: House) -> None:
    house.cosigned()
    house.grown()
    assert house.export(covering=1).size == house.heads.newest().size


def test_a_witness_that_others_ask_meanwhile_is_not_said_to_see_another_history(house: House) -> None:
    house.cosigned()
    house.grown()
    known = [5, 6, house.heads.newest().size - 1]
    house.told.change = lambda answer: ahead(known.pop(0)) if known else answer
    house.cosigned()
    known[:] = [5] * 20
    with pytest.raises(LedgerUnavailable, match=r"did not cosign \(409\)"):
        house.cosigned()
    house.told.change = lambda _: Answer(status=422, body="")
    with pytest.raises(LedgerCorrupt, match="no continuation"):
        house.cosigned()


def test_a_kept_head_that_is_none_of_this_log_or_lacks_a_signature_is_not_taken(house: House) -> None:
    size = house.cosigned()
    keys = read_ledger_keys(house.place / "keys", origin=ORIGIN)
    house.grown()
    newest = house.heads.newest()
    house.heads.keep(newest, {"w": (1, "— w.example/1 AAAAAAAA\n")})
    point = Checkpoint(origin=ORIGIN, size=size + 1, root=b"r" * 32)
    forged = Head(checkpoint=point, note=write(point, keys.signer))
    with witnessing(house.place / "fork", log=keys.signer.verifier.vkey) as other:  # which never saw the log itself
        there = quorum.parse(policy_text(("w", other.vkey, other.url), quorum="all").encode())
        [line] = ask_quorum(there, forged, lambda _: [])
        house.heads.keep(forged, {"w": (1, line)})
        for policy in (house.policy, there):
            house.told.change = other.change = lambda _: ahead(1000)
            with pytest.raises(Ahead):
                house.export(covering=size + 1, policy=policy)
    assert house.export(covering=size).size == size
