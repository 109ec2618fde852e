"""What a backend installs: proof that one call comes through the gateway, for one person, tool and set of arguments.

`verify` proves one call token, `replay` lets each be used once, `calls` keeps a row of each, `keys` gets the gateway's
public keys, and `asgi` joins these to an MCP server. Must not import the gateway or its doors.
"""

from __future__ import annotations

from onbehalf.backend.calls import Calls, SqliteCalls
from onbehalf.backend.keys import Keys, RemoteKeys, StaticKeys, read_keys
from onbehalf.backend.replay import MemoryReplay, Replay
from onbehalf.backend.verify import VerifiedCall, verify_call

__all__ = [
    "Calls", "Keys", "MemoryReplay", "RemoteKeys", "Replay", "SqliteCalls", "StaticKeys", "VerifiedCall",
    "read_keys", "verify_call",
]  # fmt: skip
