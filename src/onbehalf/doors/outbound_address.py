"""Where a server may be: its host's addresses, resolved once, judged, and one of them kept for all connections.

A name that leads into the house is how a server outside reaches one inside (SSRF); one that is looked up again can lead
elsewhere the second time (rebinding). Must not send anything.

Trust: whoever answers for the name chooses among the addresses of the kind that the configuration permits.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TypeAlias
from urllib.parse import urlsplit

__all__ = ["AddressRefused", "is_loopback_name", "judged", "pinned"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))
"""IPv6 ranges that stand for IPv4 addresses, which could be any."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AddressRefused(Exception):
    """The host cannot be resolved, or leads where it may not. The message holds no address."""


async def pinned(url: str, *, private: bool, seconds: float) -> tuple[str, str, int]:
    """Host, the address to use for it, and port. Raises AddressRefused where any of its addresses may not be used."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(seconds):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise AddressRefused("the server's name cannot be resolved") from error
    addresses = [str(each[4][0]).partition("%")[0] for each in found]
    if not addresses or not all(judged(each, host=host, private=private) for each in addresses):
        raise AddressRefused("the server's name leads to an address that is not permitted")
    return host, addresses[0], port


def is_loopback_name(host: str) -> bool:
    """Whether a host is this machine by its name or spelling alone."""
    return host in _LOOPBACK or host.endswith(".localhost")


def judged(text: str, *, host: str, private: bool) -> bool:
    """Whether an address may be used for `host`: a loopback one for a loopback host only, link-local ones never."""
    try:
        address: _Address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if host in _LOOPBACK:
        return address.is_loopback
    if isinstance(address, ipaddress.IPv6Address) and any(address in each for each in _TRANSLATED):
        return False
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    return address.is_global or (private and address.is_private and not address.is_reserved)
