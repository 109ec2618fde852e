"""The whole gateway killed with SIGKILL at any moment: nothing was done that is not on record, and nothing is guessed.

What the backend saw, what clients were told and what the record says are three witnesses that must agree.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2

from company import Company, company, said, wait_for
from onbehalf.cli.explain import opened
from onbehalf.explain.leaf import Record

SECONDS = 30
"""Rounds are begun for this long; each is two starts and a kill."""
TOOLS = ("desk_write", "desk_read", "notes_list", "desk_write")


def test_killed_at_random_moments_nothing_is_off_the_record(tmp_path: Path) -> None:
    chance = random.Random()
    answered: list[str] = []
    broken_off: set[str] = set()
    with company(tmp_path / "it") as around:
        around.desk.pause = 0.03
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            with around.serving() as process:
                stop = threading.Event()
                clients = [_calling(around, tool, stop, answered) for tool in TOOLS]
                if chance.random() < 0.5:  # at any moment, from the start on
                    time.sleep(chance.uniform(0.02, 2.5))
                else:  # while calls are surely under way
                    begun = len(around.desk.seen)
                    wait_for(lambda begun=begun: len(around.desk.seen) > begun, what="a call at the backend")
                    time.sleep(chance.uniform(0, around.desk.pause))
                process.kill()
                process.wait(10)
                stop.set()
                for client in clients:
                    client.join(20)
            seen = len(around.desk.seen)
            left = _open(around)
            broken_off |= left
            with around.serving():
                pass
            assert f"{len(left)} calls had no outcome" in around.served_log() or not left
            _check(around, answered, left, seen)
        assert around.desk.seen, "the backend was never asked, so nothing was tested"
        assert answered
        assert broken_off, "no call was ever under way when it was killed"


def _calling(around: Company, tool: str, stop: threading.Event, answered: list[str]) -> threading.Thread:
    """A client that calls in a loop, with a token of its own, until the gateway is gone."""
    token = around.token()

    def loop() -> None:
        while not stop.is_set():
            try:
                result = around.call(tool, token=token, timeout=5)
            except (httpx2.HTTPError, ValueError):
                return
            answered.append(result["_meta"]["onbehalf/call"])

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    return thread


def _open(around: Company) -> set[str]:
    """Calls without outcome in what the killed gateway left, by a reader that changes nothing."""
    told = said("audit", "open", "-c", around.config, "--json")
    assert told.code == 0, told
    return {each["call"] for each in json.loads(told.out)["open"] if each["state"] == "open"}


def _check(around: Company, answered: list[str], left: set[str], seen: int) -> None:
    verified = said("audit", "verify", "-c", around.config, "--json")
    assert verified.code == 0, verified.out
    assert json.loads(verified.out)["open"] == []
    assert len(around.desk.seen) == seen, "a call was sent again after the restart"
    reader = opened(around.config)
    try:
        records = {record.index: record for record in reader.latest(10_000)}
    finally:
        reader.close()
    intents = {index: record for index, record in records.items() if record.kind == "intent"}
    _require_recorded(around.desk.seen, intents)
    assert {*answered} <= {intent.call for intent in intents.values()}
    ends = Counter(_about(record) for record in records.values() if record.kind in ("outcome", "unknown"))
    assert ends == Counter(dict.fromkeys(intents, 1)), "every intent has exactly one end"
    unknown = {record.call for record in records.values() if record.kind == "unknown"}
    assert left <= unknown
    listed = json.loads(said("audit", "open", "-c", around.config, "--json").out)["open"]
    assert {(each["call"], each["state"]) for each in listed} == {(call, "unknown") for call in unknown}


def _require_recorded(seen: list[tuple[str, Any]], intents: dict[int, Record]) -> None:
    """Everything that was done was on record before, as the very call, tool and leaf that its token names."""
    for tool, claims in seen:
        named = claims["tctx"]["record"]
        intent = intents[named["index"]]
        assert (intent.call, intent.leaf) == (claims["txn"], named["leaf"])
        assert intent.facts["tool"]["name"] == tool  # type: ignore[index,call-overload]
    calls = Counter(claims["jti"] for _, claims in seen)
    assert not calls or max(calls.values()) == 1, "no call was done twice"


def _about(record: Record) -> int:
    return int(record.facts["intent"]["index"])  # type: ignore[index,call-overload,arg-type]
