"""Heartbeats: that the gateway lives and how much it has sent is on record at a fixed pace, and so is its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, wait_for
from house import Doors
from onbehalf.cli.explain import opened
from onbehalf.doors.ledger_heartbeat import Heart
from onbehalf.explain.channel import channel_of
from onbehalf.model import UnixTime


def heart(doors: Doors, every: int = 1) -> Heart:
    return Heart(
        every=every, audiences={"https://b.example", "https://a.example"}, sendings={"https://a.example": 7}.get,  # type: ignore[arg-type]  # None for the other
        origin="gateway.example/log", ledger=doors, clock=lambda: UnixTime(1000),
    )  # fmt: skip


async def beaten(one: Heart, seconds: float) -> None:
    task = asyncio.create_task(one.beat())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_heartbeat_says_the_pace_and_how_much_was_sent_to_each_upstream() -> None:
    doors = Doors()
    asyncio.run(beaten(heart(doors), 1.5))
    assert [entry.kind for entry in doors.entries] == ["heartbeat"]
    facts: Any = doors.entries[0].facts
    assert facts["every"] == 1
    assert [*facts["sent"]] == ["https://a.example", "https://b.example"]
    channel = channel_of("gateway.example/log", "https://a.example")
    assert facts["sent"]["https://a.example"] == {"channel": channel, "n": 7}


def test_a_ledger_that_takes_none_for_a_while_loses_that_heartbeat_and_no_later_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    doors = Doors(broken={"ledger_full_later"})

    async def walk() -> None:
        task = asyncio.create_task(heart(doors).beat())
        while "a heartbeat is not on record" not in caplog.text:
            await asyncio.sleep(0.05)
        doors.broken.clear()
        while not doors.entries:
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(walk(), 30))
    assert doors.entries[0].kind == "heartbeat"


def test_an_end_that_cannot_be_recorded_is_said_and_does_not_keep_the_house_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asyncio.run(heart(Doors(broken={"ledger_full"})).stop())
    assert "the end is not on record" in caplog.text


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        yield made


def quick(around: Company) -> None:
    text = around.config.read_text(encoding="utf-8")
    around.config.write_text(text.replace("\ngateway:\n", "\ngateway:\n  heartbeat_seconds: 1\n"), encoding="utf-8")


def kinds(around: Company) -> list[str]:
    reader = opened(around.config)
    try:
        return [record.kind for record in reader.latest(1000)]
    finally:
        reader.close()


def test_a_gateway_that_ends_says_so_with_its_counts_and_one_that_is_killed_does_not(around: Company) -> None:
    quick(around)
    around.notes_listed(*3 * ["alice-at-login"])
    reader = opened(around.config)
    last: Any = reader.latest(1)[0]
    reader.close()
    assert last.kind == "stop"
    assert last.facts["sent"]["sql:notes"]["n"] == 3
    assert last.facts["sent"][f"{around.desk.url}/mcp"]["n"] == 0
    with around.serving() as process:
        wait_for(lambda: kinds(around).count("heartbeat") >= 2, what="two heartbeats")
        process.kill()
        process.wait(10)
    assert kinds(around)[-1] == "heartbeat"
