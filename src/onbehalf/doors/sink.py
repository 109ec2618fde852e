"""What every sink is: it takes a batch and returns once the batch is safe there, or says why not.

Must not read the record (sink_source.py) or decide when to try again (sink_send.py).
"""

from __future__ import annotations

from typing import Protocol

from onbehalf.explain.views_batch import Batch

__all__ = ["Sink"]


class Sink(Protocol):
    """One place that views are sent to."""

    def deliver(self, batch: Batch) -> None:
        """Return only when the batch is where it was sent. Raises SinkUnavailable where another try may do, and
        SinkRefused where only a person can help."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
