"""The bytes of an OpenAPI document, from a file or an https URL, and only if they are the pinned ones.

Must not read what they say.

Trust: none is needed in who holds the document; its digest stands in the configuration.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from pyreqwest.exceptions import PyreqwestError

from onbehalf.doors.outbound import plain_client
from onbehalf.doors.outbound_address import AddressRefused, pinned
from onbehalf.doors.pinned_file import MAX_BYTES, file_bytes, require_pinned
from onbehalf.errors import ConfigInvalid

__all__ = ["document_bytes"]

_SECONDS = 10.0


async def document_bytes(place: str, *, base: Path, hosts: tuple[str, ...], digest: str) -> bytes:
    """The document at a path (relative to `base`) or https URL on one of `hosts`, of at most 4 MiB.

    Raises ConfigInvalid, also where its bytes do not have the `digest`.
    """
    if "://" in place:
        data = await _fetched(place, hosts)
    else:
        data = await asyncio.to_thread(file_bytes, base / place, what=f"the document `{place}`")
    require_pinned(data, digest, what="the document")
    return data


async def _fetched(url: str, hosts: tuple[str, ...]) -> bytes:
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and "@" not in parts.netloc and not parts.fragment and parts.port in (None, 443)
    except ValueError:
        plain = False
    if not plain or "\\" in url or not url.isascii() or parts.hostname not in hosts:
        raise ConfigInvalid("the document is at no https URL on one of `document_hosts`", hint="list its host there")
    try:
        host, address, port = await pinned(url, private=False, seconds=_SECONDS)
        builder = plain_client(seconds=_SECONDS, connect_seconds=_SECONDS).https_only(True)
        async with (
            builder.resolve(host, address, port).build() as client,
            client.get(url).build_streamed() as response,
        ):
            if response.status != 200 or response.get_header("content-encoding") not in (None, "identity"):
                raise ConfigInvalid(f"the document was answered with HTTP status {response.status}, or packed")
            data = b""
            while (chunk := await response.body_reader.read_chunk()) is not None:
                data += bytes(chunk)
                if len(data) > MAX_BYTES:
                    raise ConfigInvalid(f"the document is larger than {MAX_BYTES} bytes")
            return data
    except (AddressRefused, PyreqwestError, ValueError) as error:
        raise ConfigInvalid("the document cannot be fetched", hint="or keep a copy as a file") from error
