"""How far this machine's clock is from another machine's, by the Date header of an HTTP answer.

Trust: a liar at the other end can only make `onbehalf check` complain.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime

__all__ = ["clock_offset"]


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def clock_offset(url: str, *, timeout: float = 5.0) -> float | None:
    """Seconds by which our clock is ahead of the server's at an http(s) URL; None where it does not say."""
    if not url.startswith(("http://", "https://")):
        return None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310  # the scheme is checked above
        with opener.open(request, timeout=timeout) as answer:
            said = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        with error:
            said = error.headers.get("Date")
    except (OSError, ValueError, http.client.HTTPException):
        return None
    try:
        return time.time() - parsedate_to_datetime(said).timestamp() if said else None
    except (ValueError, OverflowError):
        return None
