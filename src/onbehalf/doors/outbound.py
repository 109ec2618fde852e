"""What every client of pyreqwest has in common, wherever it calls: nothing that could lead it elsewhere.

No redirects (SSRF), no proxy of the environment, no cookies or referers that carry one call's state into another, no
packed answers whose size is known only when unpacked. Other doors import this one; it imports none. MCP servers,
issuers, streams of events and witnesses are asked by outbound_http.py instead, which every gateway has.

Trust: the address itself is the caller's to check.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from pyreqwest.client import ClientBuilder, SyncClientBuilder

__all__ = ["plain", "plain_client"]

_Builder = TypeVar("_Builder", ClientBuilder, SyncClientBuilder)


def plain_client(*, seconds: float, connect_seconds: float) -> ClientBuilder:
    """A client that does one exchange within `seconds`, of which connecting takes at most `connect_seconds`."""
    return plain(ClientBuilder(), seconds=seconds, connect_seconds=connect_seconds)


def plain(builder: _Builder, *, seconds: float, connect_seconds: float) -> _Builder:
    """The same of a client's beginning, also of one that waits."""
    return (
        builder.http1_only()
        .follow_redirects(False)
        .referer(False)
        .no_proxy()
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .user_agent("onbehalf")
        .default_cookie_store(False)
        .connect_timeout(timedelta(seconds=connect_seconds))
        .timeout(timedelta(seconds=seconds))
    )
