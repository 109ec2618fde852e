"""Signing keys as one file in one directory, private to their owner, rotated with overlap.

Three kinds: the next one is published before it signs, the current one signs, and former ones stay published until no
token of theirs can be alive. Must not know what is signed, for whom, or how long it lives: a file is for one kind of
token only (RFC 8725 section 3.9), and its user says which.

Trust: whoever reads the file can sign as the gateway until its keys are replaced; it is 0600 and refused otherwise.
Former keys are kept as public keys only.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
import orjson
from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_seed_keypair
from nacl.signing import SigningKey

from onbehalf.base64url import base64url, s256
from onbehalf.doors.folder_sync import sync_folder
from onbehalf.errors import ConfigInvalid, SignerUnavailable
from onbehalf.explain.key_set import CallKey
from onbehalf.model import Json, UnixTime

__all__ = ["CACHE_S", "KeyFile"]

CACHE_S = 300
"""How long a reader may keep a JWK Set before it asks again."""
_MAX_FILE_BYTES = 16_384
_MAX_FORMER = 16

_Base64 = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{43}$")]


class _Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key that signs or will: its Ed25519 seed, and since when it is published."""

    seed: _Base64
    made_at: Annotated[int, msgspec.Meta(ge=0)]

    def __repr__(self) -> str:
        return "_Secret()"


class _Former(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key that signed: its public half, and until when it is published."""

    public: _Base64
    until: Annotated[int, msgspec.Meta(ge=0)]


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    next: _Secret
    current: _Secret
    former: Annotated[tuple[_Former, ...], msgspec.Meta(max_length=_MAX_FORMER)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ring:
    """One state of the file, ready to use. INVARIANT: replaced whole, so that a header never has another's key."""

    stored: _Stored = field(repr=False)
    key: bytes = field(repr=False)
    """What libsodium signs with: the seed and the public key."""
    header: str
    """The encoded header and its dot: the same for all tokens of a key."""
    kids: tuple[str, ...]


class KeyFile:
    """The keys of one file. `kind` is the `typ` of what they sign, `lifetime_s` how long at most such a token lives."""

    def __init__(self, path: Path, *, kind: str, lifetime_s: int) -> None:
        """Raises SignerUnavailable for a file that cannot be read, or that others can read."""
        self._path = path
        self._kind = kind
        self.overlap_s = 2 * CACHE_S + lifetime_s
        """How long a former key stays published: a token's life and a reader's cache, and that once more for clocks."""
        self._ring = _ring(_read(path), kind)

    @classmethod
    def open(cls, path: Path, *, kind: str, lifetime_s: int, now: UnixTime) -> KeyFile:
        """The keys of `path`, made if there are none. Raises SignerUnavailable."""
        directory = path.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.path.lexists(path):
                fresh = _Stored(next=_fresh(now), current=_fresh(now))
                _write(path, fresh, replace=False)
        except OSError as error:
            raise SignerUnavailable(f"keys cannot be made in `{directory}`: {error.strerror}") from error
        return cls(path, kind=kind, lifetime_s=lifetime_s)

    @property
    def kids(self) -> tuple[str, ...]:
        """The ids of all published keys: the next, the current, then former ones, latest first."""
        return self._ring.kids

    def sign(self, payload: bytes) -> str:
        """The compact JWS of a payload, signed with the current key (RFC 7515 section 7.1)."""
        ring = self._ring
        signed = ring.header + base64url(payload)
        signature = crypto_sign(signed.encode("ascii"), ring.key)[:crypto_sign_BYTES]
        return f"{signed}.{base64url(signature)}"

    def states(self) -> tuple[CallKey, ...]:
        """Each published key with its state and times, in the order of `kids`."""
        stored = self._ring.stored
        return (
            CallKey(kid=self.kids[0], state="next", since=stored.next.made_at),
            CallKey(kid=self.kids[1], state="current", since=stored.current.made_at),
            *(
                CallKey(kid=kid, state="former", until=each.until)
                for kid, each in zip(self.kids[2:], stored.former, strict=True)
            ),
        )

    def jwks(self) -> dict[str, Json]:
        """The JWK Set to publish (RFC 7517 section 5): public halves only. May be cached for `CACHE_S`."""
        return {"keys": [_jwk(public) for public in _publics(self._ring.stored)]}

    def reload(self) -> bool:
        """Take the file as it is now, since another process may have rotated; whether it was another.

        Raises SignerUnavailable, and goes on with the keys it has.
        """
        stored = _read(self._path)
        if stored == self._ring.stored:
            return False
        self._ring = _ring(stored, self._kind)
        return True

    def rotate(self, now: UnixTime, *, lost: bool = False) -> None:
        """Sign with the next key from now on, and publish a new next one.

        With `lost` all keys are new and no former one stays published, since who read one has read the file; tokens
        meet a key that readers have yet to fetch. Without it, raises ConfigInvalid while the next key is younger than
        a reader's cache, as some would not know it. Raises SignerUnavailable where the file cannot be changed.
        """
        try:
            with _alone(self._path.parent):
                stored = _read(self._path)
                made = _Stored(next=_fresh(now), current=_fresh(now))
                after = made if lost else _rotated(stored, now, overlap_s=self.overlap_s)
                _write(self._path, after, replace=True)
        except OSError as error:
            raise SignerUnavailable(f"keys cannot be changed in `{self._path.parent}`: {error.strerror}") from error
        self._ring = _ring(after, self._kind)


def _rotated(stored: _Stored, now: UnixTime, *, overlap_s: int) -> _Stored:
    published = now - stored.next.made_at
    if published < CACHE_S:
        raise ConfigInvalid(
            f"the next key has been published for {max(published, 0)} s, readers may keep keys for {CACHE_S} s",
            hint=f"rotate in {CACHE_S - published} s, or say that the key is lost",
        )
    retired = _Former(public=_public(stored.current), until=now + overlap_s)
    former = (retired, *(key for key in stored.former if key.until > now))
    return _Stored(next=_fresh(now), current=stored.next, former=former[:_MAX_FORMER])


def _fresh(now: UnixTime) -> _Secret:
    return _Secret(seed=base64url(secrets.token_bytes(32)), made_at=now)


def _ring(stored: _Stored, kind: str) -> _Ring:
    kids = tuple(map(_kid, _publics(stored)))
    if len(set(kids)) != len(kids):
        raise SignerUnavailable("the key file holds one key twice", hint="restore it, or delete it for new keys")
    header = orjson.dumps({"typ": kind, "alg": "EdDSA", "kid": kids[1]})
    _, key = crypto_sign_seed_keypair(_decode(stored.current.seed))
    return _Ring(stored=stored, key=key, header=base64url(header) + ".", kids=kids)


def _publics(stored: _Stored) -> tuple[str, ...]:
    return (_public(stored.next), _public(stored.current), *(key.public for key in stored.former))


def _public(key: _Secret) -> str:
    return base64url(bytes(SigningKey(_decode(key.seed)).verify_key))


def _kid(public: str) -> str:
    """The key's RFC 7638 thumbprint: another key can never have the same id."""
    return s256(f'{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}'.encode())


def _jwk(public: str) -> dict[str, Json]:
    return {"kty": "OKP", "crv": "Ed25519", "x": public, "kid": _kid(public), "use": "sig", "alg": "EdDSA"}


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _read(path: Path) -> _Stored:
    """The key file, refused unless only its owner can read it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = "`onbehalf serve` makes one at its first start" if isinstance(error, FileNotFoundError) else ""
        raise SignerUnavailable(f"key file `{path}` cannot be read: {error.strerror}", hint=hint) from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
            raise SignerUnavailable(
                f"key file `{path}` must be a regular file of mode 0600 and your own, "
                f"found {stat.filemode(status.st_mode)}",
                hint=f"chmod 600 {path}, and rotate as lost if others could read it",
            )
        try:
            data = file.read(_MAX_FILE_BYTES + 1)
            return msgspec.json.decode(data, type=_Stored, strict=True)
        except (OSError, ValueError):
            # The cause is left out: a parser's message may quote the file.
            raise SignerUnavailable(
                f"key file `{path}` does not hold keys", hint="restore it, or delete it for new keys"
            ) from None


def _write(path: Path, stored: _Stored, *, replace: bool) -> None:
    """Put the file there whole or not at all. Without `replace` a file that is there stands: another was first."""
    directory = path.parent
    temporary = directory / f".{path.name}.{secrets.token_hex(8)}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(stored) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(directory)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No other process rotates meanwhile. The lock ends with the process, whatever ends it."""
    entry = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(entry, fcntl.LOCK_EX)
        yield
    finally:
        os.close(entry)
