"""Room 3, act: one allowed, recorded call becomes one right, and what its token says.

Values in, values out. Must not touch a key, a clock or a socket: the signer and upstream doors do.
"""

from __future__ import annotations

from onbehalf.act.change import SHOWN_S, change_set
from onbehalf.act.claims import KIND, claims
from onbehalf.act.grant import LIFE_S, grant

__all__ = ["KIND", "LIFE_S", "SHOWN_S", "change_set", "claims", "grant"]
