"""The zip file as a bundle: a few files of known names, each read once, bounded, its hash taken on the way.

Nothing is ever unpacked to a disk. Whatever a zip file can do beyond this (links, encryption, names twice, hidden data
before it, a directory that says it is huge) is refused.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import IO, BinaryIO

from onbehalf.verifier.refused import Unusable

__all__ = ["Archive"]

_NAME = re.compile(
    r"manifest\.json|HOW-TO-VERIFY\.txt|CONTROL\.txt|checkpoint|start/checkpoint|proof\.json|keys\.json|leaves\.jsonl|opened\.jsonl"
    r"|handovers\.jsonl|heads\.jsonl|policies/[0-9a-f]{64}\.json"
)
_MAX_FILES = 1000
_MAX_DIRECTORY = 1 << 18
_END, _LOCATOR, _END64 = b"PK\5\6", b"PK\6\7", b"PK\6\6"
_CHUNK, _BLOCK = 1 << 18, 1 << 20


class Archive:
    """An open bundle. `hashes` fills with the SHA-256 and length of each file that was read to its end."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """Raises Unusable."""
        self.hashes: dict[str, tuple[str, int]] = {}
        self._left = max_bytes
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise Unusable(f"`{path}` cannot be opened: {error.strerror}") from error
        try:
            _bound_directory(self._file)
            self._zip = zipfile.ZipFile(self._file)
            self._infos = self._checked(self._zip.infolist())
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error) as error:
            self._file.close()
            raise Unusable(f"`{path}` is no zip file that could be read: {_said(error)}") from error
        except Unusable:
            self._file.close()
            raise

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    @property
    def names(self) -> list[str]:
        return [*self._infos]

    def whole(self, name: str, *, limit: int) -> bytes:
        """A small file. Raises Unusable where it is missing, damaged or longer than `limit`."""
        return b"".join(self.chunks(name, limit=limit))

    def lines(self, name: str, *, limit: int) -> Iterator[bytes]:
        """The lines of a large file, without their ends. Raises Unusable for one of more than `limit` bytes."""
        begun: list[bytes] = []
        length = 0
        for chunk in self.chunks(name, limit=self._left):
            first, *others = chunk.split(b"\n")
            begun.append(first)
            length += len(first)
            if length > limit or any(len(each) > limit for each in others):
                raise Unusable(f"`{name}` has a line of more than {limit} bytes")
            if others:
                yield b"".join(begun)
                yield from others[:-1]
                begun, length = [others[-1]], len(others[-1])
        if length:
            raise Unusable(f"`{name}` does not end in a newline")

    def blocks(self, name: str, *, limit: int) -> Iterator[bytes]:
        """The lines of a large file, many at a time, with their ends: about a mebibyte. Whoever takes them looks
        whether one has more than `limit` bytes; only what has no end yet is held to it here.

        Raises Unusable, as `lines`.
        """
        begun, length = list[bytes](), 0
        for chunk in self.chunks(name, limit=self._left):
            begun.append(chunk)
            length += len(chunk)
            if length < _BLOCK:
                continue
            data = b"".join(begun)
            end = data.rfind(b"\n") + 1
            if len(data) - end > limit:
                raise Unusable(f"`{name}` has a line of more than {limit} bytes")
            begun, length = [data[end:]], len(data) - end
            if end:
                yield data[:end]
        data = b"".join(begun)
        end = data.rfind(b"\n") + 1
        if end:
            yield data[:end]
        if end < len(data):
            raise Unusable(f"`{name}` does not end in a newline")

    def says(self, name: str) -> int:
        """How many bytes a file has, as the zip file claims; 0 for one that is not here."""
        info = self._infos.get(name)
        return info.file_size if info is not None else 0

    def chunks(self, name: str, *, limit: int) -> Iterator[bytes]:
        """The bytes of a file. Raises Unusable."""
        info = self._infos.get(name)
        if info is None:
            raise Unusable(f"`{name}` is missing")
        hash_, length = sha256(), 0
        try:
            with self._zip.open(info) as file:
                for chunk in _ahead(file, hash_.update) if info.file_size > _CHUNK else _each(file, hash_.update):
                    length += len(chunk)
                    self._left -= len(chunk)
                    if length > limit or self._left < 0:
                        raise Unusable(f"`{name}` is larger than it may be; --max-bytes allows more in all")
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise Unusable(f"`{name}` cannot be read from the zip file: {_said(error)}") from error
        self.hashes[name] = (hash_.hexdigest(), length)

    def _checked(self, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = info.filename
            if not _NAME.fullmatch(name) or info.orig_filename != name:
                raise Unusable(f"a file in it has a name that no bundle has: {name[:80]!r}")
            if name in found:
                raise Unusable(f"`{name}` stands twice in it")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Unusable(f"`{name}` is encrypted or packed in a way that bundles are not")
            found[name] = info
        return found


def _each(file: IO[bytes], take: Callable[[bytes], object]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        take(chunk)
        yield chunk


def _ahead(file: IO[bytes], take: Callable[[bytes], object]) -> Iterator[bytes]:
    """As `_each`, unpacking one chunk ahead while the one before it is looked at: unpacking is a third of all work."""
    each = _each(file, take)
    with ThreadPoolExecutor(1) as ahead:
        following = ahead.submit(next, each, b"")
        while chunk := following.result():
            following = ahead.submit(next, each, b"")
            yield chunk


def _bound_directory(file: BinaryIO) -> None:
    """Look at the zip file's end before a library believes it: how many files, how large a directory."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 98))
    tail = file.read(98)
    if len(tail) < 22 or tail[-22:-18] != _END or tail[-2:] != b"\0\0":
        raise Unusable("it is no zip file, is cut off, or has something behind its end")
    count, length = struct.unpack("<HI", tail[-12:-10] + tail[-10:-6])
    if tail[-42:-38] == _LOCATOR:
        if tail[:4] != _END64 or len(tail) != 98:
            raise Unusable("its 64 bit directory is malformed")
        count, length = struct.unpack("<QQ", tail[32:48])
    if count > _MAX_FILES or length > _MAX_DIRECTORY:
        raise Unusable(f"it says that it has {count} files and a directory of {length} bytes, which no bundle has")
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        raise Unusable("it does not begin as a zip file does")
    file.seek(0)


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return "".join(each if each.isprintable() else "?" for each in text)[:200]
