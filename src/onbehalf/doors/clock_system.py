"""The system's clock and fresh call ids.

Trust: whoever sets this machine's clock decides when tokens expire; `onbehalf check` compares it with the issuers'.
"""

from __future__ import annotations

import os
import time

from onbehalf.model import CallId, UnixTime

__all__ = ["fresh_call_id", "now"]


def now() -> UnixTime:
    """Whole seconds since 1970."""
    return UnixTime(int(time.time()))


def fresh_call_id() -> CallId:
    """`call_` and a UUIDv7 (RFC 9562 section 5.7) in hex: 48 bits of milliseconds, then 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (time.time_ns() // 1_000_000) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return CallId(f"call_{value:032x}")
