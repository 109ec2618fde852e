"""What a presented token looks like, before any library and before anything is proven.

The compact JWS (RFC 7515 section 7.1) in its one strict spelling. Everything here is a claim of whoever sent it: good
for finding the key to check it with, and for nothing else. Must not hold keys, believe a claim, or tell who calls.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from onbehalf.errors import AlgorithmRefused, TokenMalformed, TokenMissing, TokenTooLarge
from onbehalf.model import Json, Presented
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["MAX_TOKEN_BYTES", "Parts", "Peeked", "parts_of", "peek"]

MAX_TOKEN_BYTES = 16 * 1024
_MAX_HEADER_BYTES = 2048
_MAX_DEPTH = 16
_MAX_NAME = 255
_MAX_ISSUER = 2048
_HEADERS = 64
_ALPHABET = bytes.maketrans(b"-_+/=", b"+/***")
"""Base64url to the decoder's alphabet; what belongs to that one alone becomes a character of neither."""
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_PADDING = (b"", b"", b"==", b"=")
_LAST = {2: frozenset(_BASE64[::16]), 3: frozenset(_BASE64[::4])}
"""By how many characters are over: those that end a part without stray bits."""
_REFUSED_MEMBERS = frozenset({"crit", "b64", "jwk", "jku", "x5u", "x5c"})
"""Members that change what is signed, or bring or name the key to check it with (RFC 8725 section 3.10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one compact JWS in its strict spelling, nothing in it proven."""

    header: Mapping[str, Json]
    claimed: Mapping[str, Json] = field(repr=False)
    token: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeked:
    """A well-formed token, nothing in it proven. INVARIANT: made by `peek` only, all of it from one token."""

    claimed_issuer: str
    key_id: str
    algorithm: str
    type: str
    token: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    claimed: Mapping[str, Json] = field(repr=False)


def peek(presented: Presented, *, nameless: bool = False) -> Peeked:
    """The parts of one compact JWS, and where to look for its key.

    `presented.token` is at most 16,384 ASCII characters. Checked, in this order:
    1 size; 2 ASCII and exactly three parts; 3 strict base64url without padding, with canonical trailing bits;
    4 header and payload are strict JSON objects; 5 no header member that brings its own key or meaning;
    6 `alg`, `kid`, `typ` and `iss` are short strings (`kid` is required: a key is looked up, never tried). With
    `nameless`, `iss` may be absent and is then "".

    Does not check the signature or any claim: `verify` does. Raises TokenMissing, TokenTooLarge, TokenMalformed,
    AlgorithmRefused.
    """
    text = presented.token
    if not text:
        raise TokenMissing("no token", hint="send `Authorization: Bearer <access token>`")
    token, (first, second, third) = _split(text, MAX_TOKEN_BYTES)  # 1-3
    claimed, signature = _object(_decode(second), "payload"), _decode(third)
    algorithm, key_id, type_ = _named(first)  # 4-6
    return Peeked(
        claimed_issuer="" if nameless and "iss" not in claimed else _name(claimed, "iss", _MAX_ISSUER),
        key_id=key_id,
        algorithm=algorithm,
        type=type_,
        token=token,
        signing_input=token[: token.rindex(b".")],
        signature=signature,
        claimed=claimed,
    )


@lru_cache(_HEADERS)
def _named(part: bytes) -> tuple[str, str, str]:
    """`alg`, `kid` and `typ` of a header. An issuer's tokens have the same one until it takes another key."""
    header = _header(part)
    if not _REFUSED_MEMBERS.isdisjoint(header):
        named = ", ".join(f"`{name}`" for name in sorted(_REFUSED_MEMBERS.intersection(header)))
        raise _malformed(f"the token's header has {named}, which is never followed here")
    algorithm = _name(header, "alg")
    if algorithm.lower() == "none":
        raise AlgorithmRefused("the token is not signed", hint="RFC 8725 section 3.2")
    return algorithm, _name(header, "kid"), _name(header, "typ") if "typ" in header else ""


def parts_of(text: str, *, most: int) -> Parts:
    """A compact JWS of at most `most` characters, taken apart, whatever its members are.

    Raises TokenTooLarge, TokenMalformed.
    """
    token, (first, second, third) = _split(text, most)
    return Parts(
        header=_header(first), claimed=_object(_decode(second), "payload"), token=token,
        signing_input=token[: token.rindex(b".")], signature=_decode(third),
    )  # fmt: skip


def _split(text: str, most: int) -> tuple[bytes, list[bytes]]:
    """The token, and its three parts gone through `_ALPHABET`."""
    if len(text) > most:
        raise TokenTooLarge(f"the token is longer than {most} bytes", hint="ask for fewer claims in it")
    if not text.isascii():
        raise _malformed("the token is not three parts of ASCII (RFC 7515 section 7.1)")
    token = text.encode("ascii")
    parts = token.translate(_ALPHABET).split(b".", 3)
    if len(parts) != 3:
        raise _malformed("the token is not three parts of ASCII (RFC 7515 section 7.1)")
    return token, parts


def _header(part: bytes) -> Mapping[str, Json]:
    data = _decode(part)
    if len(data) > _MAX_HEADER_BYTES:
        raise TokenTooLarge(f"the token's header is longer than {_MAX_HEADER_BYTES} bytes")
    return _object(data, "header")


def _decode(part: bytes) -> bytes:
    """Base64url in its one spelling (RFC 7515 section 2); `part` has gone through `_ALPHABET`.

    Python's decoder passes over trailing bits, which would give one token many spellings.
    """
    rest = len(part) % 4
    try:
        # An empty part, and one of a single character more than whole groups of four, decode to nothing.
        data = binascii.a2b_base64(part + _PADDING[rest], strict_mode=True) if part and rest != 1 else None
    except binascii.Error:
        data = None
    if data is None:
        raise _malformed("a part of the token is empty or not base64url without padding")
    if rest and part[-1] not in _LAST[rest]:
        raise _malformed("a part of the token is base64url with stray trailing bits")
    return data


def _object(data: bytes, what: str) -> dict[str, Json]:
    try:
        return strict_object(data, depth=_MAX_DEPTH)
    except NotStrict as error:
        raise _malformed(f"the token's {what} is refused: {error}") from error


def _name(members: Mapping[str, Json], name: str, longest: int = _MAX_NAME) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
        raise _malformed(f"the token's `{name}` is not a string of 1 to {longest} printable characters")
    return value


def _malformed(message: str) -> TokenMalformed:
    return TokenMalformed(message, hint="send an access token from a listed authorization server, unchanged")
