"""What of an access token that was had for an upstream can be compared without trusting it, before it is sent there.

The gateway is no audience of such a token: it can neither check who signed it nor find by it who anybody is, and none
of this is a proof of identity. It finds a mix-up only: a token for the gateway itself, for another API, or over. Must
not send, keep or log.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping

from onbehalf.model import Json, UnixTime
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["UNFIT", "BearerUnfit", "check_bearer", "names_audience", "wanted_of"]

UNFIT = "upstream_token_unfit"
_DEPTH = 16
_TOLERANCE_S = 30


class BearerUnfit(Exception):
    """The token must not be sent. The message is a clause for a person, in our own words, and holds nothing of it."""


def check_bearer(token: str, *, gateway: str, wanted: Collection[str], now: UnixTime) -> UnixTime | None:
    """When a token says that it ends; None where it does not say, or cannot be read (an opaque one, or encrypted).

    `gateway` is this gateway's resource, `wanted` who the token may name to be for the upstream; empty where that is
    not known. `now` is in whole seconds. Of a readable JWT is checked, in this order:
    1 `aud` does not name this gateway: whoever gets it could come back with it as the person (MCP, token passthrough);
    2 where there is an `aud`, it names one of `wanted` (RFC 8707 section 2): another API's token is not handed on;
    3 `exp` is not past, with 30 s for clocks that disagree.

    Does not check a signature, or who the token is about: that is the upstream's. Raises BearerUnfit.
    """
    claimed = _claimed(token)
    named = _named(claimed)
    if gateway.rstrip("/") in named:  # 1
        raise BearerUnfit("the token that was given for it is for this gateway, too")
    if wanted and "aud" in claimed and named.isdisjoint(name.rstrip("/") for name in wanted):  # 2
        raise BearerUnfit("the token that was given for it is for another API")
    ends = claimed.get("exp")
    if not isinstance(ends, int | float) or isinstance(ends, bool):
        return None
    if now >= ends + _TOLERANCE_S:  # 3
        raise BearerUnfit("the token that was given for it is over")
    return UnixTime(int(min(ends, 2**53)))


def wanted_of(token_audience: str, *asked: str) -> frozenset[str]:
    """Who a token may name: what is configured of it, else what it was `asked` for; "" stands for nothing."""
    return frozenset(name for name in ((token_audience,) if token_audience else asked) if name)


def names_audience(token: str, resource: str) -> bool:
    """Whether a token says that it is for this resource, as far as it can be read. Says nothing of who made it."""
    return resource.rstrip("/") in _named(_claimed(token))


def _claimed(token: str) -> Mapping[str, Json]:
    """What a JWT says. Nothing of what is none in its one strict form, which this gateway would not take either."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        data = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return strict_object(data, depth=_DEPTH)
    except (binascii.Error, ValueError, NotStrict):
        return {}


def _named(claimed: Mapping[str, Json]) -> frozenset[str]:
    """The audiences, without a slash at the end, which makes no other one."""
    found = claimed.get("aud")
    named = found if isinstance(found, list) else [found]
    return frozenset(each.rstrip("/") for each in named if isinstance(each, str))
