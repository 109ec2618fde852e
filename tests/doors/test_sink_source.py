"""The record as followers read it: in order, from a durable place, and never what does not hold."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from doors.sink_house import Book, book
from onbehalf.doors.sink_send import Sending, send
from onbehalf.doors.sink_source import Cursor
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable, SinkRefused, SinkUnavailable
from onbehalf.explain.views_batch import Batch

ONCE = Sending(name="one", batch=2, every_seconds=0.05, once=True)


class Kept:
    """A sink that keeps batches, and fails as `failures` say before it does."""

    def __init__(self, *failures: Exception) -> None:
        self.batches: list[Batch] = []
        self.failures = list(failures)

    def deliver(self, batch: Batch) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(batch)

    def close(self) -> None:
        pass

    @property
    def indices(self) -> list[int]:
        return [view.index for batch in self.batches for view in batch.views]


def sent(made: Book, sink: Kept, sending: Sending = ONCE) -> int:
    with made.source() as source:
        return send(sending, source, sink, stop=threading.Event())


def test_every_record_comes_once_and_in_order_in_batches_that_say_their_range_and_head(tmp_path: Path) -> None:
    made, sink = book(tmp_path, calls=3), Kept()
    assert sent(made, sink) == 6
    assert sink.indices == [*range(6)]
    assert [(batch.first, batch.end) for batch in sink.batches] == [(0, 2), (2, 4), (4, 6)]
    assert all(made.keys.signer.verifier.text(batch.checkpoint) for batch in sink.batches)


def test_what_comes_later_is_sent_later_and_nothing_twice(tmp_path: Path) -> None:
    made, sink = book(tmp_path, calls=1), Kept()
    assert sent(made, sink) == 2
    assert sent(made, sink) == 0
    made.write(2)
    assert sent(made, sink) == 4
    assert sink.indices == [*range(6)]


def test_an_outcome_says_who_called_from_its_intent(tmp_path: Path) -> None:
    sink = Kept()
    sent(book(tmp_path, calls=1), sink)
    assert sink.batches[0].views[1].about["person"] == {"id": "acme/alice", "revision": 3}


def test_a_batch_whose_delivery_was_not_noted_comes_again(tmp_path: Path) -> None:
    made, sink = book(tmp_path, calls=2), Kept()

    def stops(point: str) -> None:
        if point == "delivered" and len(sink.batches) == 2:
            raise KeyboardInterrupt

    with made.source() as source, pytest.raises(KeyboardInterrupt):
        send(ONCE, source, sink, stop=threading.Event(), failpoint=stops)
    sent(made, sink)
    assert sink.indices == [0, 1, 2, 3, 2, 3]


def test_a_sink_that_fails_is_tried_again_with_the_same_batch_and_nothing_is_left_out(tmp_path: Path) -> None:
    made = book(tmp_path, calls=2)
    sink = Kept(SinkUnavailable("busy"), SinkUnavailable("busy"))
    assert sent(made, sink) == 4
    assert sink.indices == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [SinkRefused("no"), SinkUnavailable("down")])
def test_a_sink_that_does_not_take_it_ends_a_single_run_with_its_cursor_where_it_was(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onbehalf.doors.sink_send._FIRST_WAIT", 0.001)
    made = book(tmp_path, calls=1)
    with pytest.raises(type(error)):
        sent(made, Kept(*[error] * 10))
    assert Cursor.look(tmp_path / "sinks" / "one.json") == 0


def test_nothing_is_held_open_in_the_ledger_while_a_sink_takes_its_time(tmp_path: Path) -> None:
    made = book(tmp_path, calls=2)
    seen: list[tuple[int, int, int]] = []

    class Slow(Kept):
        def deliver(self, batch: Batch) -> None:
            made.write(1)
            with closing(sqlite3.connect(made.path, timeout=0.2)) as base:
                seen.append(base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
            super().deliver(batch)

    with made.source() as source:
        batch = source.batch(100)
        assert batch is not None
        Slow().deliver(batch)
    assert seen[0][0] == 0, "the log could not be folded in: somebody was reading"


def test_two_processes_do_not_send_to_one_sink(tmp_path: Path) -> None:
    made = book(tmp_path, calls=1)
    with made.source(), pytest.raises(SinkUnavailable, match="another process"), made.source():
        pass


# --- what does not hold is not sent ---


def test_an_older_copy_put_back_is_noticed_and_nothing_more_is_sent(tmp_path: Path) -> None:
    made, sink = book(tmp_path, calls=1), Kept()
    shutil.copy(made.path, tmp_path / "older.db")
    made.write(2)
    sent(made, sink)
    for beside in tmp_path.glob("ledger.db-*"):
        beside.unlink()
    shutil.copy(tmp_path / "older.db", made.path)
    with pytest.raises(LedgerCorrupt, match="records that were sent"):
        sent(made, sink)
    made.write(5)  # and it is as long as before again, with another history
    with pytest.raises(LedgerCorrupt, match="records that were sent"):
        sent(made, sink)
    assert sink.indices == [*range(6)]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE leaf SET entry = CAST(replace(CAST(entry AS TEXT), '\"at\":1', '\"at\":2') AS BLOB) WHERE idx = 3",
        "DELETE FROM leaf WHERE idx = 3",
        "UPDATE payload SET sealed = zeroblob(length(sealed)) WHERE idx = 0",
        "UPDATE head SET note = replace(note, '/ledger', '/other')",
        "DELETE FROM head",
    ],
)
def test_a_damaged_record_is_not_sent_on(tmp_path: Path, damage: str) -> None:
    made, sink = book(tmp_path, calls=3), Kept()
    with closing(sqlite3.connect(made.path)) as base:
        base.execute(damage)
        base.commit()
    with pytest.raises(LedgerCorrupt):
        sent(made, sink)
    assert sink.indices == []


def test_an_erased_payload_is_sent_as_erased_and_its_leaf_whole(tmp_path: Path) -> None:
    made, sink = book(tmp_path, calls=1), Kept()
    with closing(sqlite3.connect(made.path)) as base:
        base.execute("DELETE FROM payload WHERE idx = 0")
        base.commit()
    sent(made, sink)
    first, second = sink.batches[0].views
    assert (first.erased, first.facts) == (True, {})
    assert "arguments" in first.leaf.facts
    assert (second.erased, second.about) == (False, {})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"log":"x","next":0,"root":""}', '{"log":"x","next":-1,"root":"zz"}'])
def test_noise_for_a_cursor_is_no_cursor(tmp_path: Path, text: str) -> None:
    made = book(tmp_path, calls=1)
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks" / "one.json").write_text(text)
    with pytest.raises(ConfigInvalid), made.source():
        pass


def test_without_a_ledger_there_is_nothing_to_follow(tmp_path: Path) -> None:
    made = book(tmp_path, calls=1)
    made.path.unlink()
    with pytest.raises(LedgerUnavailable), made.source():
        pass
