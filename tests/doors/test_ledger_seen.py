"""Checkpoints that clients keep and bring back: a log that was put back is found by whoever saw more of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, wait_for
from onbehalf.cli.explain import opened
from onbehalf.doors import ledger_heads, ledger_seen
from onbehalf.doors.inbound_seen import CHECKPOINT, Watched, brought
from onbehalf.doors.ledger_handover import hand_over
from onbehalf.doors.ledger_handover_sqlite import SqliteChangeable
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_keys import read_ledger_keys
from onbehalf.doors.ledger_seen import SeenCheckpoints, Verdict
from onbehalf.errors import ParametersInvalid
from onbehalf.explain import tree
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, write
from onbehalf.model import CallId, Json, Presented, Receipt, Reply, ToolRequest, UnixTime, digest
from verifier.bundle_house import ORIGIN, recorded


class House:
    """What was brought, and what came of it."""

    def __init__(self, place: Path) -> None:
        self.keys = read_ledger_keys(place / "keys", origin=ORIGIN)
        self.heads = LedgerHeads(place / "log.db", place / "heads.db", verifier=self.keys.signer.verifier)
        self.counted: list[Verdict] = []
        self.alarms: list[dict[str, Json]] = []
        self.seen = SeenCheckpoints(self.heads, count=self.counted.append, alarm=self.alarms.append)

    async def judged(self, *notes: str) -> list[Verdict]:
        before = len(self.counted)
        for note in notes:
            self.seen.offer(note)
        while len(self.counted) < before + len(notes):
            await asyncio.sleep(0.01)
        return self.counted[before:]

    def signed(self, size: int, root: bytes) -> str:
        return write(Checkpoint(origin=ORIGIN, size=size, root=root), self.keys.signer)


@asynccontextmanager
async def looking(place: Path) -> AsyncIterator[House]:
    house = House(place)
    task = asyncio.create_task(house.seen.run())
    try:
        yield house
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        house.heads.close()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_seen, "_PAUSE_S", 0)


def test_each_head_that_was_signed_agrees_and_one_of_another_history_is_an_alarm(tmp_path: Path) -> None:
    recorded(tmp_path).close()

    async def walk() -> None:
        async with looking(tmp_path) as house:
            with closing(opened_ledger(tmp_path)) as leaves:
                hashes = [row[0] for row in leaves.execute("SELECT hash FROM leaf ORDER BY idx")]
            good = [house.signed(size, tree.root(hashes[:size])) for size in (0, 1, 7, len(hashes))]
            assert await house.judged(*good, *good) == ["agrees"] * 8
            forked = house.signed(5, tree.root([*hashes[:4], hashes[5]]))
            ahead = house.signed(len(hashes) + 1, tree.root([*hashes, hashes[0]]))
            assert await house.judged(forked, ahead, forked) == ["split"] * 3
            assert [alarm["brought"] for alarm in house.alarms] == [forked, ahead]
            assert house.alarms[0]["ours"] == house.heads.newest().note

    asyncio.run(walk())


def test_a_head_by_a_key_that_the_log_gave_up_is_an_alarm_where_it_tells_another_history(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    former = read_ledger_keys(tmp_path / "keys", origin=ORIGIN).signer
    with closing(opened_ledger(tmp_path)) as leaves:
        hashes = [row[0] for row in leaves.execute("SELECT hash FROM leaf ORDER BY idx")]
    hand_over(SqliteChangeable(tmp_path / "log.db"), tmp_path / "keys", origin=ORIGIN, by="ops", at=UnixTime(7000))
    kept = write(Checkpoint(origin=ORIGIN, size=len(hashes), root=tree.root(hashes)), former)
    stolen = write(Checkpoint(origin=ORIGIN, size=len(hashes) + 5, root=b"f" * 32), former)

    async def walk() -> None:
        async with looking(tmp_path) as house:
            assert await house.judged(kept, stolen) == ["agrees", "split"]
            assert [each["brought"] for each in house.alarms] == [stolen]

    asyncio.run(walk())


def opened_ledger(place: Path) -> Any:
    import sqlite3

    return sqlite3.connect(place / "log.db")


def test_what_the_log_did_not_sign_says_nothing_and_leaves_no_record(tmp_path: Path) -> None:
    recorded(tmp_path).close()

    async def walk() -> None:
        async with looking(tmp_path) as house:
            stranger = write(Checkpoint(origin=ORIGIN, size=99, root=bytes(32)), NoteSigner(ORIGIN, b"x" * 32))
            other = write(Checkpoint(origin="o.example", size=9, root=bytes(32)), NoteSigner("o.example", b"x" * 32))
            good = house.heads.newest().note
            notes = ["", "x", stranger, other, good[:-10], good.replace("14", "15"), "\0", "— a b\n\n", good + good]
            assert set(await house.judged(*notes)) == {"unsigned"}
            assert house.alarms == []

    asyncio.run(walk())


def test_more_than_can_be_looked_at_is_dropped_and_answers_do_not_wait(tmp_path: Path) -> None:
    recorded(tmp_path).close()

    async def walk() -> None:
        house = House(tmp_path)  # nobody looks
        for number in range(100):
            house.seen.offer(f"{number}")
        assert house.counted == ["dropped"] * 36
        house.heads.close()

    asyncio.run(walk())


def test_alarms_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_seen, "_ALARMS", 3)
    recorded(tmp_path).close()

    async def walk() -> None:
        async with looking(tmp_path) as house:
            notes = [house.signed(5, bytes([number]) * 32) for number in range(6)]
            assert await house.judged(*notes) == ["split"] * 6
            assert len(house.alarms) == 3

    asyncio.run(walk())


def test_trees_of_landmark_sizes_stay_and_give_the_same_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_heads, "_LANDMARK", 4)
    monkeypatch.setattr(ledger_heads, "_KEPT_TREES", 2)
    recorded(tmp_path).close()
    house = House(tmp_path)
    with closing(opened_ledger(tmp_path)) as leaves:
        hashes = [row[0] for row in leaves.execute("SELECT hash FROM leaf ORDER BY idx")]
    for size in (14, 3, 9, 4, 0, 13, 1, 12, 14, 5):
        assert house.heads.begins_with(Checkpoint(origin=ORIGIN, size=size, root=tree.root(hashes[:size])))
        assert not house.heads.begins_with(Checkpoint(origin=ORIGIN, size=size, root=bytes(32)))
    assert {0, 4, 8, 12} <= house.heads._trees.keys()
    assert len(house.heads._trees) == 6
    house.heads.close()


@pytest.mark.parametrize("value", [1, True, [], {}, "", "x" * 9000])
def test_what_cannot_be_a_checkpoint_is_a_clear_error(value: Any) -> None:
    with pytest.raises(ParametersInvalid, match="no checkpoint"):
        brought({CHECKPOINT: value})
    assert brought({}) == brought({CHECKPOINT: None}) == ""


class Inner:
    """A house that answers, or raises, as told."""

    def __init__(self, content: dict[str, Json]) -> None:
        self.content = content

    async def call(self, presented: Presented, request: ToolRequest) -> Reply:
        receipt = Receipt(index=0, leaf=digest(b""))
        return Reply(call=CallId("call_1"), content=self.content, receipt=receipt, denial="")

    async def tools(self, presented: Presented) -> list[Any]:
        return [presented]

    async def who(self, presented: Presented) -> Any:
        return presented


def test_an_answer_carries_the_newest_head_beside_what_it_says_already() -> None:
    taken: list[str] = []
    heads = iter(["", "note 1", "note 2"])
    asked = ToolRequest(tool="t", arguments={}, protocol="2026-07-28", agent="a", seen="kept")

    async def walk() -> None:
        house = Watched(Inner({"_meta": {"a": 1}}), newest=lambda: next(heads), offer=taken.append)
        one, two = [await house.call(Presented(token="t"), asked) for _ in range(2)]
        assert one.content["_meta"] == {"a": 1}
        assert two.content["_meta"] == {"a": 1, CHECKPOINT: "note 1"}
        bare = Watched(Inner({}), newest=lambda: next(heads), offer=taken.append)
        assert (await bare.call(Presented(token="t"), asked)).content == {}
        assert await house.tools(Presented(token="t")) == [Presented(token="t")]
        assert await house.who(Presented(token="t")) == Presented(token="t")

    asyncio.run(walk())
    assert taken == ["kept"] * 3


# --- through the front door ---


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        yield made


def called(around: Company, kept: str = "") -> str:
    """A call that brings a checkpoint back; the one that its answer carries."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        **({CHECKPOINT: kept} if kept else {}),
    }
    answer = around.post("tools/call", name="desk_read", arguments={}, _meta=meta).json()
    return str(answer["result"]["_meta"][CHECKPOINT])


def counted(around: Company, verdict: str) -> Callable[[], bool]:
    return lambda: f'onbehalf_client_checkpoints_total{{verdict="{verdict}"}} 1.0' in around.get("/metrics").text


def test_a_client_that_kept_a_checkpoint_finds_out_that_the_log_was_put_back(around: Company, tmp_path: Path) -> None:
    data, backup = around.directory / "data", tmp_path / "backup"
    with around.serving():
        first = called(around)
        second = called(around, first)
        assert int(second.split("\n")[1]) > int(first.split("\n")[1])
        wait_for(counted(around, "agrees"), what="it agrees")
    shutil.copytree(data, backup)
    with around.serving():
        for _ in range(6):
            kept = called(around)
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    with around.serving():
        called(around, kept)  # the answer does not wait
        wait_for(counted(around, "split"), what="it is noticed")
        assert "does not continue" in around.served_log()
    reader = opened(around.config)
    (alarm,) = [record.facts for record in reader.latest(100) if record.kind == "split_view"]
    reader.close()
    assert alarm["brought"] == kept


def test_answers_carry_no_checkpoint_where_that_is_turned_off(around: Company) -> None:
    around.edit("  limits: {call_seconds: 8}\n", "  limits: {call_seconds: 8}\n  checkpoint_in_answers: false\n")
    with around.serving():
        answer = around.call("desk_read")
        assert CHECKPOINT not in json.dumps(answer)
        assert "onbehalf/receipt" in answer["_meta"]
