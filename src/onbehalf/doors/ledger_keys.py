"""The gateway's secrets as files in one directory: `log.key` signs checkpoints, `log-ml-dsa.key` some of them a second
time, `payload.key` seals payloads and wraps the keys of people, by `mask.key` fields are hashed and change sets are
named.

The keys of people lie in a store of their own: beside the directory, `ledger-keys.db`, made when the first of them is,
or with a record that several machines write.

`log.pub` beside them are the vkeys an auditor needs, the Ed25519 one first. Must not hold what the keys do
(explain/checkpoint.py, cosignature.py, seal.py).

Trust: whoever reads `log.key` can sign another history, whoever reads `payload.key` can read every payload; both files
are 0600 and refused otherwise. Losing `payload.key` erases all payloads; losing `log.key` ends the log; with a
new `mask.key` all pseudonyms are new.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.doors.ledger_erasable import KeyStore
from onbehalf.doors.ledger_sealing import SubjectSealing
from onbehalf.doors.ledger_subjects import SubjectStore
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.checkpoint import NoteSigner
from onbehalf.explain.cosignature import HeadSigner, ml_dsa_44
from onbehalf.explain.seal import LedgerKeys, Sealer, Wrapping

__all__ = [
    "SUBJECTS", "make_next_keys", "next_keys", "open_ledger_keys", "open_mask_key", "read_ledger_keys",
    "read_shared_keys", "take_next_keys",
]  # fmt: skip

SUBJECTS = "ledger-keys.db"
"""The store of people's keys, beside the directory of the ledger's."""

_ML_DSA = "log-ml-dsa.key"
_NEXT = ".next"
"""Behind the name of a key that is to come after the one in force (ledger_handover.py)."""
_KEY_BYTES = 32
_MAX_FILE_BYTES = 1024


def open_ledger_keys(directory: Path, *, origin: str) -> LedgerKeys:
    """The keys in `directory`, made where they are missing. `origin` names the log. Raises ConfigInvalid."""
    with _making(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(directory, "log.key", "payload.key", *_second())
        keys = read_ledger_keys(directory, origin=origin)
        _publish(directory / "log.pub", keys.vkeys)
    return keys


def open_mask_key(directory: Path) -> bytes:
    """The 32 bytes of `mask.key`, made where it is missing. Raises ConfigInvalid."""
    with _making(directory):
        _make(directory, "mask.key")
    return _secret(directory / "mask.key")


def read_ledger_keys(directory: Path, *, origin: str) -> LedgerKeys:
    """The keys in `directory`, none made. Raises ConfigInvalid."""
    return _log_keys(directory, origin=origin)


def _log_keys(directory: Path, *, origin: str, suffix: str = "") -> LedgerKeys:
    return _log_keys_of(directory, SubjectStore(directory.parent / SUBJECTS), origin=origin, suffix=suffix)


def _log_keys_of(directory: Path, people: KeyStore, *, origin: str, suffix: str = "") -> LedgerKeys:
    signer, second = _signer(directory, origin, suffix), directory / f"{_ML_DSA}{suffix}"
    heads = HeadSigner(origin, _secret(second)) if second.exists() and ml_dsa_44() else None
    return LedgerKeys(signer=signer, sealer=_sealing(directory, people), heads=heads)


def _signer(directory: Path, origin: str, suffix: str = "") -> NoteSigner:
    try:
        return NoteSigner(origin, _secret(directory / f"log.key{suffix}"))
    except ValueError as error:
        raise ConfigInvalid(str(error)) from error


def _sealing(directory: Path, people: KeyStore) -> SubjectSealing:
    payload = _secret(directory / "payload.key")
    return SubjectSealing(Sealer(payload), Wrapping(payload), people)


def make_next_keys(directory: Path, *, origin: str) -> LedgerKeys:
    """The log's keys that are to come after those in force, made where they are missing. Raises ConfigInvalid."""
    with _making(directory):  # where the last one is, all of them are
        _make(directory, *(name + _NEXT for name in (*_second(), "log.key")))
    return _log_keys(directory, origin=origin, suffix=_NEXT)


def next_keys(directory: Path, *, origin: str) -> LedgerKeys | None:
    """The log's keys that are to come after those in force, where there are any. Raises ConfigInvalid."""
    there = (directory / f"log.key{_NEXT}").exists()
    return _log_keys(directory, origin=origin, suffix=_NEXT) if there else None


def take_next_keys(
    directory: Path,
    *,
    before: tuple[str, ...],
    after: tuple[str, ...],
    failpoint: Callable[[str], None] = lambda _: None,
) -> None:
    """Put the next keys in the place of those in force; `log.key` last, so that this can be done again from its start.

    `log.pub` changes too, unless somebody wrote something else than the keys `before` there. Raises ConfigInvalid.
    """
    public = directory / "log.pub"
    try:
        if not public.exists() or public.read_text(encoding="utf-8", errors="replace").split() == [*before]:
            _replace(public, "".join(f"{vkey}\n" for vkey in after).encode(), mode=0o644)
        failpoint("published")
        for name in (_ML_DSA, "log.key"):
            if (directory / (name + _NEXT)).exists():
                (directory / (name + _NEXT)).replace(directory / name)
                sync_folder(directory)
            failpoint(f"took {name}")
    except OSError as error:
        raise ConfigInvalid(
            f"the record is signed by new keys, which cannot be put in place in `{directory}`: {error.strerror}",
            hint=f"they are there, as `log.key{_NEXT}` and its like: see that the folder can be written, and try again",
        ) from error


def read_shared_keys(directory: Path, *, origin: str, people: KeyStore) -> LedgerKeys:
    """The keys in `directory` for a record that several machines write, none made, with the keys of `people` that they
    share. Raises ConfigInvalid."""
    return _log_keys_of(directory, people, origin=origin)


def _second() -> tuple[str, ...]:
    return (_ML_DSA,) if ml_dsa_44() else ()


@contextlib.contextmanager
def _making(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigInvalid(f"keys cannot be made in `{directory}`: {error.strerror}") from error


def _make(directory: Path, *names: str) -> None:
    """Files of fresh keys, where they are missing, in this order. Raises OSError."""
    for name in names:
        if not (directory / name).exists():
            _create(directory / name, base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n", mode=0o600)


def _secret(path: Path) -> bytes:
    """The 32 bytes of a key file, refused unless only its owner can read it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigInvalid(f"key file `{path}` cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(handle)
        mode = stat.filemode(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
            raise ConfigInvalid(
                f"key file `{path}` must be a regular file of mode 0600 and your own, found {mode}",
                hint=f"chmod 600 {path}, and think about who may have read it",
            )
        data = os.read(handle, _MAX_FILE_BYTES)
    finally:
        os.close(handle)
    try:
        key = base64.b64decode(data.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigInvalid(f"key file `{path}` does not hold {_KEY_BYTES} bytes of base64", hint="restore a backup")
    return key


def _publish(path: Path, vkeys: tuple[str, ...]) -> None:
    """The public keys, made where they are missing; a second key that came later is written behind the first."""
    lines = "".join(f"{vkey}\n" for vkey in vkeys).encode()
    try:
        there = path.read_bytes()
    except FileNotFoundError:
        _create(path, lines, mode=0o644)
        return
    if there != lines and lines.startswith(there):
        _replace(path, lines, mode=0o644)


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    _create(aside, content, mode=mode)
    aside.replace(path)
    sync_folder(path.parent)


def _create(path: Path, content: bytes, *, mode: int) -> None:
    """Make a file whole or not at all, and never over another: a key that was lost by a race would end the log."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its key stands
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
