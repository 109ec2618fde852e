"""Makes docs/vectors/call-tokens.json: call tokens, good and bad, for verifiers in any language.

    python tests/backend/vectors.py > docs/vectors/call-tokens.json

The key is made for this and known to everybody. Signatures are Ed25519, and so come out the same each time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from nacl.signing import SigningKey

from backend.forging import encoded
from onbehalf.model import Json, canonical, digest

KEY, OTHER = SigningKey(b"\x07" * 32), SigningKey(b"\x08" * 32)
KID = "vector-1"
ISSUER, AUDIENCE = "https://gateway.example.com", "https://orders.example.com"
NOW = 1_800_000_000
TOOL = "closeOrders"
ARGUMENTS: dict[str, Json] = {
    "tenant": "acme",
    "ids": ["1", "2"],
    "limit": 10,
    "ratio": 0.5,
    "note": 'é "x" \n',
    "all": None,
}
HEADER: dict[str, Any] = {"typ": "txntoken+jwt", "alg": "EdDSA", "kid": KID}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER, "iat": NOW, "exp": NOW + 30, "aud": AUDIENCE, "txn": "call_1", "jti": "call_1.7",
    "sub": "acme/alice", "scope": "closeOrder", "req_wl": ISSUER,
    "tctx": {
        "tenant": "acme", "tool": TOOL, "action": "closeOrder", "arguments": digest(canonical(ARGUMENTS)),
        "resource": {"type": "Order", "id": "acme/1"},
        "record": {"index": 7, "leaf": "sha256:" + "ab" * 32, "channel": "0123456789abcdef", "n": 3},
    },
    "rctx": {"issuer": "https://login.example.com", "subject": "a-1", "client": "chat", "agent": ""},
}  # fmt: skip
_GONE = object()


def signed(header: dict[str, Any], claims: dict[str, Any], key: SigningKey = KEY) -> str:
    """A token of these, well signed."""
    text = ".".join(encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return f"{text}.{encoded(key.sign(text.encode()).signature)}"


def changed(members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Members with changes; what is `_GONE` is left out."""
    return {name: value for name, value in (members | changes).items() if value is not _GONE}


def said(**changes: Any) -> str:
    """The good token with other claims."""
    return signed(HEADER, changed(CLAIMS, **changes))


def inner(outer: str, **changes: Any) -> str:
    return said(**{outer: changed(CLAIMS[outer], **changes)})


def recorded(**changes: Any) -> str:
    """The good token with another record."""
    return inner("tctx", record=changed(CLAIMS["tctx"]["record"], **changes))


def cases() -> list[dict[str, Any]]:
    """Every case: a token, what it comes with where that is not the usual, and whether it is to be taken."""
    good = signed(HEADER, CLAIMS)
    head, body, signature = good.split(".")
    made: list[dict[str, Any]] = []

    def add(name: str, token: str, code: str = "", **with_: Any) -> None:
        result = {"accept": False, "code": code} if code else {"accept": True, "person": "alice", "tenant": "acme"}
        made.append({"name": name, "token": token, **with_, **result})

    add("a good token", good)
    add("the same arguments in another order", good, arguments=dict(reversed(ARGUMENTS.items())))
    add("four seconds after its end", good, now=NOW + 34)
    add("issued five seconds ahead of this clock", good, now=NOW - 5)
    add("a member that nobody knows", said(more={"x": [1]}))
    add("the longest life", said(exp=NOW + 300))
    add("of a gateway that does not number what it sends", recorded(channel=_GONE, n=_GONE))

    refused = "call_token_refused"
    add("no token", "", "call_token_missing")
    add("two parts", f"{head}.{body}", refused)
    add("four parts", f"{good}.{signature}", refused)
    add("padding", f"{good}==", refused)
    add("blank before it", f" {good}", refused)
    add("another spelling of the signature's last character", good[:-1] + chr(ord(good[-1]) + 1), refused)
    add("a payload that is no object", _raw(b"[]"), refused)
    add("a payload that is no JSON", _raw(b"{"), refused)
    for algorithm in ("none", "EdDSA ", "ES256", "Ed448"):
        add(f"alg {algorithm}", signed(HEADER | {"alg": algorithm}, CLAIMS), refused)
    add("alg none and no signature", f"{encoded(json.dumps(HEADER | {'alg': 'none'}).encode())}.{body}.", refused)
    add("HS256 with the public key as its secret", _hs256(), refused)
    for kind in ("JWT", "at+jwt", _GONE):
        add(f"typ {'missing' if kind is _GONE else kind}", signed(changed(HEADER, typ=kind), CLAIMS), refused)
    add("an unknown key id", signed(HEADER | {"kid": "vector-2"}, CLAIMS), refused)
    add("no key id", signed(changed(HEADER, kid=_GONE), CLAIMS), refused)
    own = {"kty": "OKP", "crv": "Ed25519", "x": encoded(bytes(OTHER.verify_key))}
    add("a key of its own", signed(HEADER | {"jwk": own}, CLAIMS, OTHER), refused)
    add("critical extensions", signed(HEADER | {"crit": ["exp"]}, CLAIMS), refused)
    add("signed with another key", signed(HEADER, CLAIMS, OTHER), refused)
    add("a payload of another token", f"{head}.{said(sub='acme/bob').split('.')[1]}.{signature}", refused)
    add("of another gateway", said(iss="https://gateway.example.org"), refused)
    add("for another backend", said(aud="https://hr.example.com"), refused)
    add("for several backends", said(aud=[AUDIENCE, "https://hr.example.com"]), refused)
    add("for nobody", said(aud=_GONE), refused)
    add("five seconds after its end", good, "call_token_expired", now=NOW + 35)
    add("issued six seconds ahead of this clock", good, "call_token_expired", now=NOW - 6)
    add("a life of more than five minutes", said(exp=NOW + 301), "call_token_expired")
    add("an end before its beginning", said(exp=NOW), "call_token_expired")
    add("no end", said(exp=_GONE), refused)
    add("an end in words", said(exp=str(NOW + 30)), refused)
    add("a beginning that is true", said(iat=True), refused)
    add("for another tool", good, "call_token_mismatch", tool="listOrders")
    add("for other arguments", good, "call_token_mismatch", arguments=ARGUMENTS | {"ids": ["1", "3"]})
    add("for one argument more", good, "call_token_mismatch", arguments=ARGUMENTS | {"force": True})
    add("for one argument less", good, "call_token_mismatch", arguments=changed(ARGUMENTS, all=_GONE))
    add("for a number in words", good, "call_token_mismatch", arguments=ARGUMENTS | {"limit": "10"})
    add("a person of another tenant", said(sub="globex/alice"), refused)
    add("a person of no tenant", said(sub="alice"), refused)
    add("nobody of the tenant", said(sub="acme/"), refused)
    add(
        "a service of the tenant, where people alone are taken",
        said(sub="service:acme/alice", sub_profile="service"),
        refused,
    )
    add("a scope that is not its action", said(scope="everything"), refused)
    add("no name to be used up", said(jti=_GONE), refused)
    add("no context", said(tctx=_GONE), refused)
    add("no record", inner("tctx", record=_GONE), refused)
    add("a channel and no number", recorded(n=_GONE), refused)
    add("a number and no channel", recorded(channel=_GONE), refused)
    for number in (0, -1, "3", True, None):
        add(f"the number {json.dumps(number)}", recorded(n=number), refused)
    for channel in ("", "0123456789ABCDEF", "0123456789abcdef0", ["0123456789abcdef"]):
        add(f"the channel {json.dumps(channel)}", recorded(channel=channel), refused)
    add("no client", inner("rctx", client=_GONE), refused)
    add("the good token once more", good, "call_token_replayed", after="a good token")
    return made


def _raw(payload: bytes) -> str:
    text = f"{encoded(json.dumps(HEADER).encode())}.{encoded(payload)}"
    return f"{text}.{encoded(KEY.sign(text.encode()).signature)}"


def _hs256() -> str:
    text = ".".join(encoded(json.dumps(part).encode()) for part in (HEADER | {"alg": "HS256"}, CLAIMS))
    return f"{text}.{encoded(hmac.digest(bytes(KEY.verify_key), text.encode(), hashlib.sha256))}"


def document() -> str:
    """The file's text. What a case does not say is as at the top; each case is tried with nothing used up before it,
    but for the one that it names under `after`."""
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": "EdDSA",
        "kid": KID,
        "x": encoded(bytes(KEY.verify_key)),
    }
    top = {
        "what": "Call tokens of the gateway for one backend; docs/other-languages.md says how to read this.",
        "issuer": ISSUER, "audience": AUDIENCE, "now": NOW, "tool": TOOL, "arguments": ARGUMENTS,
        "jwks": {"keys": [jwk]}, "cases": cases(),
    }  # fmt: skip
    return json.dumps(top, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
