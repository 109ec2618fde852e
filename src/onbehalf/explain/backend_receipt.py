"""Reads a backend's receipt: that this backend says it handled this sending of this call, and answered this.

Pure, for the gateway when the answer comes and for an auditor years later. Must not hold how a receipt travels, or what
follows from one that is missing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from onbehalf.base64url import base64url
from onbehalf.errors import ReceiptRefused
from onbehalf.model import Digest, Json, UnixTime, canonical
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["MAX_RECEIPT", "META", "BackendReceipt", "Expected", "mcp_answer", "read_receipt"]

META = "onbehalf/receipt"
"""Where in the `_meta` of an MCP result its receipt stands."""
MAX_RECEIPT = 4096
TOLERANCE_S = 5
"""For clocks that disagree."""
_TYPE = "onbehalf-receipt+jwt"
_HEADER = frozenset({"typ", "alg", "kid"})
_PART = re.compile(r"[A-Za-z0-9_-]+")
_LAST = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The sending that a receipt must be of. `call_token` is its token's `jti`; `answer` the digest of its answer."""

    backend: str
    gateway: str
    call: str
    call_token: str
    tool: str
    arguments: Digest
    answer: Digest
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendReceipt:
    """A receipt, proven. `rows` is what the backend says it was about, None where it does not say."""

    key_id: str
    at: UnixTime
    rows: int | None


def mcp_answer(result: Mapping[str, Json]) -> bytes:
    """What a receipt of an MCP result vouches for: its content, canonical, whatever else it says.

    Raises ValueError for what has no canonical form (RFC 8785).
    """
    members: dict[str, Json] = {"content": result.get("content", []), "isError": result.get("isError", False)}
    if "structuredContent" in result:
        members["structuredContent"] = result["structuredContent"]
    return canonical(members)


def read_receipt(
    compact: str, *, keys: Mapping[str, bytes], expected: Expected, since: UnixTime, until: UnixTime
) -> BackendReceipt:
    """Prove one receipt. `keys` are the backend's Ed25519 keys by id; it was made from `since` to `until`.

    Checked, in this order: 1 at most 4,096 characters in the one strict compact form; 2 `typ`, `alg` and no header
    beside these and `kid`; 3 the key is known; 4 the signature; 5 `iss` and `aud`; 6 call, token, tool and arguments;
    7 the answer; 8 `iat`, with 5 s of tolerance.

    Does not prove that the backend did what it says. Raises ReceiptRefused.
    """
    if not 0 < len(compact) <= MAX_RECEIPT:  # 1
        raise _refused(f"it is missing or longer than {MAX_RECEIPT} characters")
    parts = compact.split(".", 3)
    if len(parts) != 3:
        raise _refused("it is not three parts")
    first, second, signature = map(_decoded, parts)
    header = _object(first)
    if header.get("typ") != _TYPE or header.get("alg") != "EdDSA" or header.keys() != _HEADER:  # 2
        raise _refused("its header is not that of a receipt")
    key_id = header["kid"]
    key = keys.get(key_id) if isinstance(key_id, str) else None
    if key is None or not isinstance(key_id, str):  # 3
        raise _refused("its key is not one of the backend's")
    try:
        VerifyKey(key).verify(f"{parts[0]}.{parts[1]}".encode("ascii"), signature)  # 4
    except (CryptoError, ValueError, TypeError) as error:
        raise _refused("its signature does not fit") from error
    return _checked(_object(second), key_id, expected=expected, since=since, until=until)


def _checked(
    said: Mapping[str, Json], key_id: str, *, expected: Expected, since: UnixTime, until: UnixTime
) -> BackendReceipt:
    """Steps 5 to 8 of `read_receipt`."""
    outcome = said.get("outcome")
    if said.get("iss") != expected.backend or said.get("aud") != expected.gateway:  # 5
        raise _refused("it is of another backend or for another gateway")
    about = (said.get("txn"), said.get("call_token"), said.get("tool"), said.get("arguments"))
    if about != (expected.call, expected.call_token, expected.tool, expected.arguments):  # 6
        raise _refused("it is of another call")
    if not isinstance(outcome, dict) or (outcome.get("digest"), _whole(outcome.get("status"))) != (
        expected.answer, expected.status,
    ):  # fmt: skip  # 7
        raise _refused("it is of another answer")
    at = _whole(said.get("iat"))
    if at is None or not since - TOLERANCE_S <= at <= until + TOLERANCE_S:  # 8
        raise _refused("it was not made while the call was under way")
    rows = _whole(outcome.get("rows"))
    if rows is None and "rows" in outcome:
        raise _refused("its `rows` is not a whole number")
    return BackendReceipt(key_id=key_id, at=UnixTime(at), rows=rows)


def _decoded(part: str) -> bytes:
    """Base64url in its one spelling (RFC 7515 section 2)."""
    if not _PART.fullmatch(part) or len(part) % 4 == 1:
        raise _refused("a part of it is not base64url without padding")
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64url(data) != part:
        raise _refused("a part of it has stray trailing bits")
    return data


def _object(data: bytes) -> dict[str, Json]:
    try:
        return strict_object(data, depth=4)
    except NotStrict as error:
        raise _refused("a part of it is not one strict JSON object") from error


def _whole(value: Json) -> int | None:
    """A whole number, not a truth value, which Python takes for one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LAST else None


def _refused(why: str) -> ReceiptRefused:
    return ReceiptRefused(
        f"the backend's receipt is refused: {why}", hint="look at the backend's receipt key and clock"
    )
