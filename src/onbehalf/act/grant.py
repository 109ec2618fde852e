"""The one place where a `Grant` is made.

A grant needs a decision and the receipt of its record, so nothing that was refused or not recorded can be done.
Must not decide, record, or say what a token looks like (claims.py).
"""

from __future__ import annotations

from onbehalf.errors import ActError
from onbehalf.model import Allow, Grant, Receipt, UnixTime

__all__ = ["LIFE_S", "grant"]

LIFE_S = 30
"""How long a grant may be used. Long enough to connect and send once; what is done may take longer."""


def grant(allow: Allow, receipt: Receipt, *, audience: str, now: UnixTime) -> Grant:
    """The right to do one allowed call once, at `audience`, within 30 s of `now` (whole seconds).

    `receipt` is the one of the intent to do this very call: that is not checked here, only the ledger could know.
    Raises ActError for an empty audience, since a token for nobody is a token for anybody who does not look, and for
    a call that must be witnessed first and was not.
    """
    if allow.call.tool.durability == "witnessed" and receipt.witnessed is None:
        raise ActError("the record of this call was not witnessed", hint="set up `gateway.witnesses`")
    if not audience.strip():
        raise ActError("a grant needs an audience", hint="give the upstream of this tool its URL or name")
    return Grant(allow=allow, receipt=receipt, audience=audience, issued_at=now, expires_at=UnixTime(now + LIFE_S))
