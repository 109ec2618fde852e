"""How a refused event is told to its transmitter: the error codes of RFC 8935 section 2.4, and SSF 1.0's own.

Must not decide.

Trust: a transmitter learns which kind of check failed; the message is shown to nobody who has not its bearer.
"""

from __future__ import annotations

from onbehalf.errors import (
    AlgorithmRefused,
    OnbehalfError,
    SignatureMismatch,
    StateRefused,
    TenantRefused,
    UnknownIssuer,
    UnknownKey,
    WrongAudience,
)

__all__ = ["err_of"]

_CODES: tuple[tuple[type[OnbehalfError], str], ...] = (
    (UnknownIssuer, "invalid_issuer"),
    (WrongAudience, "invalid_audience"),
    (UnknownKey, "invalid_key"),
    (SignatureMismatch, "invalid_key"),
    (AlgorithmRefused, "invalid_key"),
    (TenantRefused, "access_denied"),
    (StateRefused, "invalid_state"),
)


def err_of(error: OnbehalfError) -> str:
    """The code for it."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), "invalid_request")
