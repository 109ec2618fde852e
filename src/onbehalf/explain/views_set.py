"""A record as the claims of a Security Event Token (RFC 8417). Must not sign: whoever has a key does (a door)."""

from __future__ import annotations

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.views import View, document, read_document
from onbehalf.explain.views_said import one_line, said
from onbehalf.model import Json

__all__ = ["EVENT", "claims", "read_claims"]

EVENT = "urn:onbehalf:event:record:v1"
"""The one event that these tokens tell of: something was put on record. Its payload says what."""


def claims(view: View, *, issuer: str, audience: str = "") -> dict[str, Json]:
    """The claims set. `iat` is when the record was made, as is `toe`: the same record has the same claims always.

    `txn` is the call, so that all tokens of one call are found together (RFC 8417 section 2.2); `sub_id` is the
    caller as their issuer names them (RFC 9493 section 3.2.1).
    """
    flat = said(view)
    made: dict[str, Json] = {
        "iss": issuer, "jti": view.leaf.id, "iat": view.leaf.at, "toe": view.leaf.at, "events": {EVENT: document(view)},
    }  # fmt: skip
    if audience:
        made["aud"] = audience
    if flat.call:
        made["txn"] = one_line(flat.call)
    if flat.issuer and flat.subject:
        made["sub_id"] = {"format": "iss_sub", "iss": flat.issuer, "sub": flat.subject}
    return made


def read_claims(found: Json) -> View:
    """The view in a claims set. Raises LedgerCorrupt, also where a claim says otherwise than the record in it.

    Does not check who issued it: that is the signature's.
    """
    events = found.get("events") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(events, dict) or events.keys() != {EVENT}:
        raise LedgerCorrupt("not the claims of one record")
    view = read_document(events[EVENT])
    issuer, audience = found.get("iss"), found.get("aud", "")
    if not isinstance(issuer, str) or not isinstance(audience, str):
        raise LedgerCorrupt("the issuer or audience is no text")
    if claims(view, issuer=issuer, audience=audience) != found:
        raise LedgerCorrupt("the claims are not those of their record")
    return view
