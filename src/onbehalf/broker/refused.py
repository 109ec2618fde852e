"""Refusals of the broker: in OAuth's own words (RFC 6749 sections 4.1.2.1 and 5.2), or because it cannot work.

Must not hold a token, a code or a secret: what it says is shown to clients and in browsers.
"""

from __future__ import annotations

from onbehalf.errors import OnbehalfError

__all__ = ["BrokerUnavailable", "OauthRefused"]


class OauthRefused(OnbehalfError):
    """`error` is a registered OAuth error code; `message` becomes `error_description`, `status` is HTTP's."""

    code = "oauth_refused"

    def __init__(self, error: str, message: str, *, status: int = 400, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.error = error
        self.http = status


class BrokerUnavailable(OnbehalfError):
    """Grants cannot be read or kept; nobody is logged in or given a token."""

    code = "broker_unavailable"
    status = 503
