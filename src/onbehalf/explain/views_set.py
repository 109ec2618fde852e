"""A record as the claims of a Security Event Token (RFC 8417). Must not sign: whoever has a key does (a door)."""

from __future__ import annotations

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.views import View, document, read_document
from onbehalf.explain.views_said import one_line, said
from onbehalf.model import Json

__all__ = ["EVENT", "claims", "read_claims"]

EVENT = "urn:onbehalf:event:record:v1"
"""The one event that these tokens tell of: something was put on record. Its payload says what."""


def claims(view: View, *, issuer: str, audience: str = "", issued_at: int | None = None) -> dict[str, Json]:
    """The claims set. `toe` is when the record was made, and `iat` when the token is `issued_at`, in seconds since
    1970; without that the same: nobody issued it yet, and the same record has the same claims always.

    `txn` is the call, so that all tokens of one call are found together (RFC 8417 section 2.2); `sub_id` is the
    caller as their issuer names them (RFC 9493 section 3.2.3), or, of no proven caller, the log itself (section 3.2.4).
    """
    flat = said(view)
    issued = view.leaf.at if issued_at is None else issued_at
    made: dict[str, Json] = {
        "iss": issuer, "jti": view.leaf.id, "iat": issued, "toe": view.leaf.at, "events": {EVENT: document(view)},
    }  # fmt: skip
    if audience:
        made["aud"] = audience
    if flat.call:
        made["txn"] = one_line(flat.call)
    if flat.issuer and flat.subject:
        made["sub_id"] = {"format": "iss_sub", "iss": flat.issuer, "sub": flat.subject}
    else:
        made["sub_id"] = {"format": "opaque", "id": view.log}
    return made


def read_claims(found: Json) -> View:
    """The view in a claims set. Raises LedgerCorrupt, also where a claim says otherwise than the record in it.

    Does not check who issued it: that is the signature's.
    """
    events = found.get("events") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(events, dict) or events.keys() != {EVENT}:
        raise LedgerCorrupt("not the claims of one record")
    view = read_document(events[EVENT])
    issuer, audience, issued = found.get("iss"), found.get("aud", ""), found.get("iat")
    if not isinstance(issuer, str) or not isinstance(audience, str) or type(issued) is not int:
        raise LedgerCorrupt("the issuer or audience is no text, or the time no whole number")
    if claims(view, issuer=issuer, audience=audience, issued_at=issued) != found:
        raise LedgerCorrupt("the claims are not those of their record")
    return view
