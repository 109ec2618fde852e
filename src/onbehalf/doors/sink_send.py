"""Sends one record to one sink: a batch after another, tried again until it is there, and only then the next.

At least once and in order: the cursor moves after the sink has the batch. A sink that is slow, dead or refuses keeps
nobody waiting but itself: this runs in a process that no call knows of. Must not know what kind of sink it is.

Trust: as the sink's and the source's.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from onbehalf.doors.sink import Sink
from onbehalf.doors.sink_source import Source
from onbehalf.errors import LedgerUnavailable, OnbehalfError, SinkRefused, SinkUnavailable

__all__ = ["Sending", "send"]

_log = logging.getLogger(__name__)
_FIRST_WAIT, _LAST_WAIT = 0.5, 60.0
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How one sink is sent to. With `once`, until all that is on record is there, and giving up after a few tries of
    one batch."""

    name: str
    batch: int
    every_seconds: float
    once: bool


def send(
    sending: Sending, source: Source, sink: Sink, *, stop: threading.Event,
    failpoint: Callable[[str], None] = lambda _: None,
) -> int:  # fmt: skip
    """Send until told to `stop`; how many records were. Raises LedgerCorrupt at once: what does not hold is not sent.

    With `once` raises SinkUnavailable, SinkRefused or LedgerUnavailable after some tries.
    """
    sent, tries, wait = 0, 0, _FIRST_WAIT
    while not stop.is_set():
        try:
            batch = source.batch(sending.batch)
            if batch is None:
                if sending.once:
                    break
                stop.wait(sending.every_seconds)
                continue
            sink.deliver(batch)
            failpoint("delivered")
            source.delivered(batch)
        except (SinkUnavailable, SinkRefused, LedgerUnavailable) as error:
            tries += 1
            if sending.once and (tries >= _TRIES or isinstance(error, SinkRefused)):
                raise
            _said(sending.name, error, tries)
            # so that many senders do not come back at once
            stop.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
            wait = min(_LAST_WAIT, wait * 2)
            continue
        sent += len(batch.views)
        if tries:
            _log.info("the sink `%s` takes records again", sending.name)
        tries, wait = 0, _FIRST_WAIT
        failpoint("moved")
    return sent


def _said(name: str, error: OnbehalfError, tries: int) -> None:
    if tries == 1 or tries % 20 == 0:
        _log.warning("the sink `%s` has failed %d times: %s (%s)", name, tries, error.message, error.code)
