"""The bytes of an OpenAPI document, from a file or an https URL, and only if they are the pinned ones.

Must not read what they say.

Trust: none is needed in who holds the document; its digest stands in the configuration.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from pyreqwest.exceptions import PyreqwestError

from onbehalf.doors.outbound import plain_client
from onbehalf.doors.outbound_address import AddressRefused, pinned
from onbehalf.errors import ConfigInvalid

__all__ = ["document_bytes"]

_MAX_BYTES = 4 * 2**20
_SECONDS = 10.0


async def document_bytes(place: str, *, base: Path, hosts: tuple[str, ...], digest: str) -> bytes:
    """The document at a path (relative to `base`) or https URL on one of `hosts`, of at most 4 MiB.

    Raises ConfigInvalid, also where its bytes do not have the `digest`.
    """
    data = await _fetched(place, hosts) if "://" in place else await asyncio.to_thread(_read, base / place, place)
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ConfigInvalid(
            f"the document is not as pinned: its digest is `{found}`",
            hint="look at what changed; if it is right, write this under `digest`",
        )
    return data


def _read(path: Path, place: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigInvalid(f"the document `{place}` cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise ConfigInvalid(f"the document is larger than {_MAX_BYTES} bytes")
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
                if len(data) > _MAX_BYTES:
                    raise ConfigInvalid(f"the document is larger than {_MAX_BYTES} bytes")
            return data
    except (AddressRefused, PyreqwestError, ValueError) as error:
        raise ConfigInvalid("the document cannot be fetched", hint="or keep a copy as a file") from error
