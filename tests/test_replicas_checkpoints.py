"""Checkpoints in the answers of two gateways on one record: what one of them gave, the other one knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from company import Company, said, wait_for
from onbehalf.cli.explain import opened
from onbehalf.doors.inbound_seen import CHECKPOINT
from onbehalf.explain import checkpoint
from onbehalf.explain.checkpoint import Checkpoint
from replica_house import put_back, sharing


@pytest.fixture
def pair(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Company, Company]]:
    with sharing(tmp_path, database, monkeypatch.setenv) as made:
        yield made


def called(through: Company, token: str, kept: str = "") -> str:
    """A call that brings a checkpoint back; the one that its answer carries."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        **({CHECKPOINT: kept} if kept else {}),
    }
    answer = through.post("tools/call", token=token, name="desk_read", arguments={}, _meta=meta).json()
    return str(answer["result"]["_meta"][CHECKPOINT])


def read(of: Company, note: str) -> Checkpoint:
    reader = opened(of.config)
    reader.close()
    return checkpoint.read(note, reader.verifier, origin=reader.verifier.name)


def counted(through: Company, verdict: str, times: int = 1) -> Callable[[], bool]:
    line = f'onbehalf_client_checkpoints_total{{verdict="{verdict}"}} {times}.0'
    return lambda: line in through.get("/metrics").text


def test_a_checkpoint_of_one_replica_covers_the_calls_before_it_and_agrees_at_the_other(
    pair: tuple[Company, Company],
) -> None:
    one, two = pair
    with one.serving(), two.serving():
        kept, before = "", 0
        for through in (one, two, one, two):
            kept = called(through, one.token(), kept)
            size = read(one, kept).size
            assert size > before, "each answer's own intent is a leaf more"
            before = size
        wait_for(counted(one, "agrees", 1), what="one agrees")
        wait_for(counted(two, "agrees", 2), what="two agrees")
    assert said("audit", "verify", "-c", two.config).code == 0


def test_a_client_finds_out_that_the_database_was_put_back_though_no_replica_was_there_to_see_it(
    pair: tuple[Company, Company], database: str
) -> None:
    one, two = pair
    with one.serving():
        first = called(one, one.token())
    with one.serving():
        for _ in range(6):
            kept = called(one, one.token())
    put_back(database, first)
    with two.serving():
        called(two, one.token(), kept)  # the answer does not wait
        wait_for(counted(two, "split"), what="it is noticed")
        assert "does not continue" in two.served_log()
    reader = opened(two.config)
    (alarm,) = [record.facts for record in reader.latest(100) if record.kind == "split_view"]
    reader.close()
    assert alarm["brought"] == kept
