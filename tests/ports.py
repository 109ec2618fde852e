"""Ports for what a test starts, and starts again."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
from collections.abc import Iterator


def _lot() -> Iterator[int]:
    """The ports of this worker of pytest, each once before one comes again, in no order that another run has."""
    lot = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    ports = range(12_000 + 2_500 * lot, 14_500 + 2_500 * lot)
    return itertools.cycle(random.sample(ports, len(ports)))


_PORTS = _lot()


def free_port() -> int:
    """A port that was free just now, given to nobody here lately, and by the system to nobody who asks for any.

    Each of pytest's workers has ports of its own: that of a gateway which starts again is free for a moment.
    """
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("a cycle has no end")
