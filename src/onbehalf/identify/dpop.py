"""One DPoP proof (RFC 9449 section 4): that whoever sent this request holds a key.

The proof brings its key along, so by itself it proves nothing of who that is: whoever asks compares `thumbprint` with
what the token is bound to. Signature before claims. Must not know nonces, or which proofs were seen before.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from onbehalf.base64url import s256
from onbehalf.errors import DpopRefused, IdentifyError
from onbehalf.identify.compact import Parts, parts_of
from onbehalf.identify.keys import brought_key
from onbehalf.identify.verify import check_signature, text_of, time_of
from onbehalf.model import UnixTime

__all__ = ["DPOP_ALGORITHMS", "MAX_PROOF_BYTES", "DpopProof", "Target", "same_target", "verify_dpop"]

DPOP_ALGORITHMS = ("ES256", "EdDSA", "Ed25519", "PS256", "RS256")
MAX_PROOF_BYTES = 4096
_TYPE = "dpop+jwt"
_REFUSED_MEMBERS = ("crit", "b64", "jku", "x5u", "x5c")
_MAX_URL = 2048
_URL = re.compile(r"[!#-;=?-\[\]_a-z~]+")  # printable ASCII without what no URI holds (RFC 3986 appendix A)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|%")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a proof must be for: the method, and the address as `same_target` gives it."""

    method: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DpopProof:
    """A proof that holds. `thumbprint` is its key's (RFC 7638), `nonce` is "" where it has none, unchecked."""

    thumbprint: str
    id: str
    issued_at: UnixTime
    nonce: str


def verify_dpop(text: str, *, target: Target, token: str | None, window_s: int, now: UnixTime) -> DpopProof:
    """Check one proof. `token` is the access token it comes with, None at the token endpoint.

    In the order of section 4.3: 2 a compact JWS of at most 4,096 characters, strictly spelled; 4 `typ` is `dpop+jwt`;
    5 an asymmetric algorithm of DPOP_ALGORITHMS; 7 `jwk` is a public key; 6 the signature is that key's; 3 `jti`,
    `htm`, `htu` and `iat` are there and 8 `htm` and 9 `htu` are this request's; 11 `iat` is at most `window_s` from
    now, before or after; 12 `ath` is the token's. The number of headers (1), nonces (10), repetition, and whose key it
    is are not checked here. Raises DpopRefused.
    """
    try:
        parts = parts_of(text, most=MAX_PROOF_BYTES)
        thumbprint = _signed(parts)
        claims = parts.claimed
        proof = DpopProof(
            thumbprint=thumbprint, id=text_of(claims, "jti"), issued_at=time_of(claims, "iat"),
            nonce=text_of(claims, "nonce") if "nonce" in claims else "",
        )  # fmt: skip
    except DpopRefused:
        raise
    except IdentifyError as error:
        raise refused(error.message) from error
    if claims.get("htm") != target.method:
        raise refused("`htm` is not this request's method")
    address = claims.get("htu")
    if not isinstance(address, str) or same_target(address) != target.address:
        raise refused("`htu` is not this gateway's own address", hint="it is the URL that the client calls, as it is")
    if abs(now - proof.issued_at) > window_s:
        raise refused(f"`iat` is more than {window_s} s from now", hint="make a proof for each request; set the clock")
    if token is not None:
        _check_token(claims.get("ath"), token)
    return proof


def same_target(url: str) -> str:
    """One spelling for all URLs that name the same, without query and fragment; "" for what is no http URL.

    Syntax- and scheme-based normalisation (RFC 3986 sections 6.2.2 and 6.2.3, as RFC 9449 section 4.3 asks): case of
    scheme, host and escapes, escapes that need not be, dot segments, the default port, an empty path.
    """
    if len(url) > _MAX_URL or not _URL.fullmatch(url):
        return ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or parts.netloc.endswith(":"):
        return ""
    path = _path(parts)
    if path is None:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    at = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{host}{at}{path}"


def refused(message: str, *, hint: str = "") -> DpopRefused:
    """What is said of a proof that does not hold."""
    return DpopRefused(
        f"the DPoP proof is refused: {message}", hint=hint or "RFC 9449 section 4.3 says what is checked"
    )


def _signed(parts: Parts) -> str:
    header = parts.header
    for name in _REFUSED_MEMBERS:
        if name in header:
            raise refused(f"its header has `{name}`, which is never followed here")
    if header.get("typ") != _TYPE:
        raise refused(f"its `typ` is not `{_TYPE}`")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in DPOP_ALGORITHMS:
        raise refused("its algorithm is not one of " + ", ".join(DPOP_ALGORITHMS))
    key = brought_key(header.get("jwk"))
    if key is None:
        raise refused("its `jwk` is no public key for signatures that is taken here")
    check_signature(parts.signing_input, parts.signature, key, algorithm=algorithm)
    return key.thumbprint


def _check_token(said: object, token: str) -> None:
    digest = s256(token.encode())
    if not isinstance(said, str) or not hmac.compare_digest(said.encode("utf-8", "replace"), digest.encode()):
        raise refused("`ath` is not the hash of this access token")


def _path(parts: SplitResult) -> str | None:
    """The path with its needless escapes and dot segments taken out, or None where an escape is none."""
    broken = False

    def spelled(escape: re.Match[str]) -> str:
        nonlocal broken
        if escape[1] is None:
            broken = True
            return ""
        char = chr(int(escape[1], 16))
        return char if char in _UNRESERVED else f"%{escape[1].upper()}"

    path = _ESCAPE.sub(spelled, parts.path)
    return None if broken else _without_dots(path) or "/"


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4, for a path that begins with `/` or is empty."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for number, segment in enumerate(segments, start=1):
        if segment in (".", ".."):
            if segment == ".." and kept:
                kept.pop()
            if number == len(segments):
                kept.append("")
        else:
            kept.append(segment)
    return "".join(f"/{segment}" for segment in kept)
