"""A quorum of real witnesses over HTTP: what they cosign, what they refuse, and what if they do not answer."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.witness_http import WitnessClient
from onbehalf.doors.witness_quorum import QuorumWitnesses, Rounds
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable, WitnessesUnavailable
from onbehalf.explain import quorum
from onbehalf.explain.checkpoint import read
from onbehalf.explain.cosignature import cosigned
from onbehalf.model import AuditEntry, Receipt, UnixTime
from onbehalf.witness.judge import Answer
from onbehalf.witness.serve import Witness
from witness_house import Told, asking, policy_text, witnessing

ORIGIN = "gateway.example/log"


def entry(number: int) -> AuditEntry:
    return AuditEntry(kind="denial", call=f"call_{number:032x}", at=UnixTime(number), facts={"number": number})


@dataclass(slots=True)
class House:
    """A ledger, its heads, and the witnesses that are asked about them."""

    ledger: SqliteLedger
    heads: LedgerHeads
    witnesses: QuorumWitnesses
    policy: quorum.Policy
    stopped: list[str]

    async def witnessed(self, number: int) -> Receipt:
        return await self.witnesses.cosigned(await self.ledger.append(entry(number)))


@asynccontextmanager
async def houses(
    place: Path, policy: str, *, wait_s: float = 10, every_s: float = 600, running: bool = True
) -> AsyncIterator[House]:
    keys = open_ledger_keys(place / "keys", origin=ORIGIN)
    ledger = SqliteLedger.open(place / "log.db", keys=keys, origin=ORIGIN, now=lambda: UnixTime(1))
    heads = LedgerHeads(place / "log.db", place / "heads.db", verifier=keys.signer.verifier)
    stopped: list[str] = []

    def stop(why: str) -> None:
        stopped.append(why)
        ledger.stop(AuditEntry(kind="witness_refused", call="", at=UnixTime(9), facts={"reason": why}), why)

    parsed = quorum.parse(policy.encode())
    rounds = Rounds(wait_s=wait_s, every_s=every_s, stop=stop)
    try:
        async with asking(parsed, heads, rounds, running=running) as made:
            yield House(ledger, heads, made, parsed, stopped)
    finally:
        await asyncio.to_thread(ledger.close)


def vkey(place: Path) -> str:
    return open_ledger_keys(place / "keys", origin=ORIGIN).signer.verifier.vkey


def asked(told: Told) -> list[tuple[int, int]]:
    """What a witness was asked about: (old size, new size)."""
    found = []
    for each in told.asked:
        lines = each.decode().split("\n")
        found.append((int(lines[0].split()[1]), int(lines[lines.index(ORIGIN) + 1])))
    return found


def of(told: Told, name: str = "a") -> tuple[str, str, str]:
    return name, told.vkey, told.url


def test_a_receipt_says_who_cosigned_and_the_cosignatures_are_kept_and_verify(tmp_path: Path) -> None:
    log = vkey(tmp_path)

    async def walk(a: Told, b: Told) -> None:
        async with houses(tmp_path, policy_text(of(a), of(b, "b"), quorum="all", log=log)) as house:
            for number in range(4):
                receipt = await house.witnessed(number)
                assert receipt.witnessed is not None
                assert receipt.witnessed.size > receipt.index
                assert [name for name, _ in receipt.witnessed.by] == ["a", "b"]
                kept = house.heads.last_kept()
                assert kept is not None
                assert kept.size == receipt.witnessed.size
                lines = house.heads.cosignatures(kept)
                for each in house.policy.witnesses:
                    found = cosigned(kept.note + lines[each.name], each.key, kept.checkpoint)
                    assert found is not None
                    assert (each.name, found[0]) in receipt.witnessed.by
            assert house.witnesses.problems() == {}
        assert len(a.connections) == len(b.connections) == 1

    with witnessing(tmp_path / "a", log=log) as a, witnessing(tmp_path / "b", log=log, name="w.example/2") as b:
        asyncio.run(walk(a, b))


def test_many_calls_at_once_share_rounds_and_a_witness_has_one_request_at_a_time(tmp_path: Path) -> None:
    log = vkey(tmp_path)

    async def walk(a: Told) -> None:
        async with houses(tmp_path, policy_text(of(a), quorum="any")) as house:
            receipts = await asyncio.gather(*(house.witnessed(number) for number in range(200)))
            assert all(each.witnessed is not None and each.witnessed.size > each.index for each in receipts)
        assert len(a.asked) < 100
        assert len(a.connections) == 1
        sizes = asked(a)
        assert all(before[1] == after[0] for before, after in itertools.pairwise(sizes))

    with witnessing(tmp_path / "a", log=log) as a:
        asyncio.run(walk(a))


def test_what_a_round_that_is_over_had_already_waits_for_nobody(tmp_path: Path) -> None:
    async def walk(a: Told) -> None:
        async with houses(tmp_path, policy_text(of(a), quorum="any")) as house:
            early = await house.ledger.append(entry(1))
            late = await house.witnessed(2)
            asked_before = len(a.asked)
            assert (await house.witnesses.cosigned(early)).witnessed == late.witnessed
            assert len(a.asked) == asked_before

    with witnessing(tmp_path / "a", log=vkey(tmp_path)) as a:
        asyncio.run(walk(a))


def refused(place: Path, policy: str, why: str, *, wait_s: float = 10) -> None:
    async def walk() -> None:
        async with houses(place, policy, wait_s=wait_s) as house:
            with pytest.raises(WitnessesUnavailable, match=why):
                await house.witnessed(1)
            assert house.stopped == []
            await house.ledger.append(entry(2))

    asyncio.run(walk())


def test_a_witness_that_is_down_or_holds_its_answer_back_is_no_quorum_and_calls_are_refused(tmp_path: Path) -> None:
    log = vkey(tmp_path)
    with witnessing(tmp_path / "a", log=log) as a:
        down = Witness(tmp_path / "d", name="w.example/2", logs=[log])
        down.close()
        both = (of(a), ("b", down.vkey, "http://127.0.0.1:1"))
        refused(tmp_path, policy_text(*both, quorum="all"), "cannot be asked")
        a.hold = threading.Event()
        refused(tmp_path, policy_text(of(a), quorum="any"), "in time|no whole answer", wait_s=0.3)


def cosignatures(house: House) -> dict[str, str]:
    kept = house.heads.last_kept()
    assert kept is not None
    return house.heads.cosignatures(kept)


def test_one_of_two_is_enough_where_the_policy_says_so_and_the_slow_one_delays_nobody(tmp_path: Path) -> None:
    log = vkey(tmp_path)

    async def walk(a: Told, slow: Told) -> None:
        slow.hold = threading.Event()
        async with houses(tmp_path, policy_text(of(a), of(slow, "b"), quorum="any")) as house:
            for number in range(5):
                receipt = await house.witnessed(number)
                assert receipt.witnessed is not None
                assert [name for name, _ in receipt.witnessed.by] == ["a"]
            assert len(slow.asked) == 1
            slow.hold.set()
            while len(cosignatures(house)) < 2:  # it goes on with the newest head
                receipt = await house.witnessed(6)
                assert receipt.witnessed is not None
                await asyncio.sleep(0.05)

    with witnessing(tmp_path / "a", log=log) as a, witnessing(tmp_path / "b", log=log, name="w.example/2") as b:
        asyncio.run(walk(a, b))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda answer: replace(answer, body=answer.body.replace("w.example", "x.example")), "another key"),
        (lambda answer: replace(answer, body=answer.body[:99] + "AAAA" + answer.body[103:]), "does not verify"),
        (lambda answer: replace(answer, body=answer.body * 2), "malformed"),
        (lambda answer: replace(answer, body="hello"), "no signature"),
        (lambda answer: replace(answer, body="x" * 100_000), "too long"),
        (lambda answer: replace(answer, status=500), "answered 500"),
        (lambda answer: replace(answer, status=404), "answered 404"),
        (lambda answer: replace(answer, status=302), "answered 302"),
        (lambda answer: replace(answer, status=409, body="many\n"), "answered 409"),
    ],
    ids=range(9),
)  # fmt: skip
def test_an_answer_that_is_no_cosignature_of_that_head_counts_for_nothing(
    tmp_path: Path, change: Callable[[Answer], Answer], why: str
) -> None:
    with witnessing(tmp_path / "a", log=vkey(tmp_path)) as a:
        a.change = lambda answer: change(answer) if answer.status == 200 else answer
        refused(tmp_path, policy_text(of(a), quorum="any"), why)


def test_a_cosignature_of_an_older_head_is_none_of_the_newer(tmp_path: Path) -> None:
    kept: list[str] = []

    async def walk(a: Told) -> None:
        async with houses(tmp_path, policy_text(of(a), quorum="any")) as house:
            await house.witnessed(1)
            a.change = lambda answer: replace(answer, body=kept[0])
            with pytest.raises(WitnessesUnavailable, match="does not verify"):
                await house.witnessed(2)

    with witnessing(tmp_path / "a", log=vkey(tmp_path)) as a:
        a.change = lambda answer: kept.append(answer.body) or answer if answer.status == 200 else answer  # type: ignore[func-returns-value]
        asyncio.run(walk(a))


async def _grown(place: Path, policy: str, count: int) -> None:
    async with houses(place, policy) as house:
        for number in range(count):
            await house.witnessed(number)


def disowned(place: Path, policy: str, why: str) -> None:
    """The first witnessed call finds it out; nothing is taken any more, and what happened is the last leaf."""

    async def walk() -> None:
        async with houses(place, policy) as house:
            with pytest.raises(LedgerUnavailable, match=why):
                await house.witnessed(1)
            assert len(house.stopped) == 1
            for _ in range(2):
                with pytest.raises(LedgerUnavailable, match=why):
                    await house.ledger.append(entry(2))
                with pytest.raises(LedgerUnavailable, match=why):
                    await house.witnesses.cosigned(Receipt(index=0, leaf=entry(0).kind))  # type: ignore[arg-type]

    asyncio.run(walk())
    with sqlite3.connect(place / "log.db") as connection:
        last = connection.execute("SELECT entry FROM leaf ORDER BY idx DESC LIMIT 1").fetchone()[0]
    connection.close()
    assert b'"kind":"witness_refused"' in last


def put_back(place: Path) -> None:
    """The whole of the data as in an old backup, without what was cosigned."""
    for name in ("log.db", "log.db-wal", "log.db-shm", "heads.db", "heads.db-wal", "heads.db-shm"):
        (place / name).unlink(missing_ok=True)


@pytest.mark.parametrize("lost", [2, 12])
def test_a_ledger_that_was_put_back_is_found_by_the_witness_and_stops(tmp_path: Path, lost: int) -> None:
    """Put back to before the witness's head: shorter than it, or grown beyond it since by other records."""
    with witnessing(tmp_path / "a", log=vkey(tmp_path)) as a:
        policy = policy_text(of(a), quorum="any")
        asyncio.run(_grown(tmp_path, policy, 6))
        put_back(tmp_path)

        async def other() -> None:
            async with houses(tmp_path, policy, running=False) as house:
                for number in range(lost):
                    await house.ledger.append(entry(1000 + number))

        asyncio.run(other())
        disowned(tmp_path, policy, "put back" if lost < 6 else "no continuation")


def test_a_log_whose_cosigned_head_is_no_longer_in_it_is_not_opened(tmp_path: Path) -> None:
    with witnessing(tmp_path / "a", log=vkey(tmp_path)) as a:
        policy = policy_text(of(a), quorum="any")
        asyncio.run(_grown(tmp_path, policy, 4))
        heads = LedgerHeads(
            tmp_path / "log.db", tmp_path / "heads.db",
            verifier=open_ledger_keys(tmp_path / "keys", origin=ORIGIN).signer.verifier,
        )  # fmt: skip
        heads.require_continued()
        heads.close()
        for name in ("log.db", "log.db-wal", "log.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)

        async def other(count: int) -> None:
            async with houses(tmp_path, policy, running=False) as house:
                for number in range(count):
                    await house.ledger.append(entry(2000 + number))
                with pytest.raises(LedgerCorrupt, match="no beginning"):
                    house.heads.require_continued()

        asyncio.run(other(1))
        asyncio.run(other(9))


def test_a_witness_that_was_asked_by_another_meanwhile_is_asked_again(tmp_path: Path) -> None:
    """An export has the newest head cosigned too; what the witness then says is no sign of a log that was put back."""

    async def walk(a: Told) -> None:
        async with houses(tmp_path, policy_text(of(a), quorum="any")) as house:
            await house.witnessed(1)
            await house.ledger.append(entry(2))
            head = await asyncio.to_thread(house.heads.newest)
            other = WitnessClient(house.policy.witnesses[0], seconds=5, proof=house.heads.proof)
            await other.ask(head)
            await other.aclose()
            receipt = await house.witnessed(3)
            assert receipt.witnessed is not None
            assert house.stopped == []

    with witnessing(tmp_path / "a", log=vkey(tmp_path)) as a:
        asyncio.run(walk(a))


def test_without_calls_the_newest_head_is_cosigned_now_and_then_and_not_twice(tmp_path: Path) -> None:
    async def walk(a: Told) -> None:
        async with houses(tmp_path, policy_text(of(a), quorum="any"), every_s=0.02) as house:
            await house.ledger.append(entry(1))
            while house.witnesses.size < 1:
                await asyncio.sleep(0.02)
            before = len(a.asked)
            await asyncio.sleep(0.2)
            assert len(a.asked) == before
            await house.ledger.append(entry(2))
            while house.witnesses.size < 2:
                await asyncio.sleep(0.02)

    with witnessing(tmp_path / "a", log=vkey(tmp_path)) as a:
        asyncio.run(walk(a))


def test_a_witness_that_could_not_keep_a_head_is_asked_again_on_another_connection(tmp_path: Path) -> None:
    def full(_: Answer) -> Answer:
        raise OSError("no space is left")

    async def walk(a: Told) -> None:
        async with houses(tmp_path, policy_text(of(a), quorum="any")) as house:
            await house.witnessed(1)
            a.change = full
            with pytest.raises(WitnessesUnavailable, match="answered 500"):
                await house.witnessed(2)
            a.change = lambda answer: answer
            assert (await house.witnessed(3)).witnessed is not None
        assert len(a.connections) == 2

    with witnessing(tmp_path / "a", log=vkey(tmp_path)) as a:
        asyncio.run(walk(a))


def test_what_cannot_be_kept_counts_as_not_cosigned(tmp_path: Path) -> None:
    async def walk(a: Told) -> None:
        async with houses(tmp_path, policy_text(of(a), quorum="any")) as house:
            await house.witnessed(1)
            other = sqlite3.connect(tmp_path / "heads.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(WitnessesUnavailable, match="cannot be kept"):
                await house.witnessed(2)
            other.close()
            assert (await house.witnessed(3)).witnessed is not None

    with witnessing(tmp_path / "a", log=vkey(tmp_path)) as a:
        asyncio.run(walk(a))


def test_proofs_are_those_of_the_specification_from_any_size_to_any(tmp_path: Path) -> None:
    from onbehalf.explain import tree

    async def walk() -> None:
        async with houses(tmp_path, "quorum none\n", running=False) as house:
            hashes: list[bytes] = []
            for number in range(70):
                receipt = await house.ledger.append(entry(number))
                hashes.append(bytes.fromhex(receipt.leaf.removeprefix("sha256:")))
            for old in (1, 64, 3, 7, 40, 69, 33):
                for size in (old + 1, 64, 70):
                    if old < size:
                        assert house.heads.proof(old, size) == tree.consistency(old, hashes[:size])
            head = house.heads.newest()
            assert head.checkpoint.root == tree.root(hashes)
            assert read(head.note, house.heads._verifier, origin=ORIGIN).size == 70

    asyncio.run(walk())


def test_a_file_for_heads_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    verifier = open_ledger_keys(tmp_path / "keys", origin=ORIGIN).signer.verifier
    with pytest.raises(LedgerUnavailable, match="no ledger can be read"):
        LedgerHeads(tmp_path / "none.db", tmp_path / "heads.db", verifier=verifier)
    assert not (tmp_path / "heads.db").exists()


def test_a_witness_beyond_loopback_must_be_https() -> None:
    from onbehalf.doors.witness_http import address

    assert address("https://w.example/x/") == "https://w.example/x/add-checkpoint"
    for url in ("http://w.example", "ftp://w.example", "w.example", "https://w.example/?a", "", "https://"):
        with pytest.raises(ConfigInvalid, match="https"):
            address(url)
