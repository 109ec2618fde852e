"""Call tokens that a backend kept, each held against the record: compact JWS in Ed25519 (RFC 7515, RFC 8037).

A call token names its intent by number and leaf hash, so it was made after that intent was on record, or it is none of
this record. What is compared: the call, this one sending, and, where they were opened, who, through which client, which
tool, action, arguments and resource. Not compared: the audience, which is on no record; members that this release does
not know. Must not know how a bundle is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature

from onbehalf.verifier import ed25519
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.receipts import decoded, key_set, parts_of
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.strict import strict

__all__ = ["CallTokens"]

_MAX_LINE = 8192
_MAX_TOKENS = 200_000
_TOLERANCE_S = 5
_DEPTH = 8
_SENT = ("intent", "further")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    """One token whose signature holds: its line, and what it says."""

    line: int
    signature: str
    said: dict[str, Any] = field(repr=False)
    leaf: str


@dataclass(slots=True)
class CallTokens:
    """Tokens of one file, by the leaf that they name. What is found are pairs of a code and a text."""

    path: Path
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("given", "matched", "off_record", "invalid", "repeated", "outside"), 0)
    )
    _waiting: dict[int, list[_Token]] = field(default_factory=dict)

    def read(self, jwks: object, start: int, end: int) -> Iterator[tuple[str, str]]:
        """Read the file and check each token by itself; those about leaves `start` to `end` are kept for `take`.

        Raises Unusable for a file that cannot be read, is none of lines of tokens, or has more than 200,000.
        """
        try:
            keys = key_set(jwks) if jwks is not None else {}
        except ValueError:  # said by the check of keys.json
            keys = {}
        for number, line in self._lines():
            self.counts["given"] += 1
            try:
                index, token = _read(line, number, keys)
            except (ValueError, KeyError, TypeError) as error:
                self.counts["invalid"] += 1
                yield "token_invalid", f"line {number}: {error if type(error) is ValueError else 'it lacks a claim'}"
                continue
            if not start <= index < end:
                self.counts["outside"] += 1
                continue
            same = self._waiting.setdefault(index, [])
            if all(token.signature != each.signature for each in same):
                same.append(token)
            else:  # once more says nothing more
                self.counts["repeated"] += 1

    def take(self, index: int, leaf: Leaf, hash_: bytes, said: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """The next leaf, held against the tokens that name it."""
        tokens = self._waiting.pop(index, [])
        if len(tokens) > 1:
            lines = ", ".join(str(each.line) for each in tokens[:5])
            yield "token_twice", f"lines {lines} are different tokens of one sending"
        for token in tokens:
            problem = _off_record(token, index, leaf, hash_)
            if problem:
                self.counts["off_record"] += 1
                yield "token_off_record", f"line {token.line}: {problem}"
                continue
            self.counts["matched"] += 1
            try:
                other = _other(token.said, leaf, said)
            except (KeyError, TypeError, AttributeError):
                other = "it lacks what a call token says"
            if other:
                yield "token_differs", f"line {token.line}: {other}"

    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            with self.path.open("rb") as file:
                for number in range(1, _MAX_TOKENS + 2):
                    line = file.readline(_MAX_LINE + 1)
                    if not line:
                        return
                    if len(line) > _MAX_LINE or number > _MAX_TOKENS:
                        raise Unusable(f"`{self.path}` has a line too long, or more than {_MAX_TOKENS} lines")
                    if text := line.strip().decode("ascii", "replace"):
                        yield number, text
        except OSError as error:
            raise Unusable(f"`{self.path}` cannot be read: {error.strerror}") from error


def _read(compact: str, line: int, keys: dict[str, bytes]) -> tuple[int, _Token]:
    """The leaf that a token names, and the token, its signature checked first. Raises ValueError and such."""
    parts = parts_of(compact)
    head = strict(decoded(parts[0]), depth=_DEPTH)
    if not isinstance(head, dict) or head.get("typ") != "txntoken+jwt" or head.get("alg") != "EdDSA" or "crit" in head:
        raise ValueError("its header is not that of a call token")
    kid = head.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise ValueError("its key is not in keys.json")
    try:
        ed25519.verify(key, decoded(parts[2]), f"{parts[0]}.{parts[1]}".encode())
    except InvalidSignature as error:
        raise ValueError("its signature does not verify") from error
    said = strict(decoded(parts[1]), depth=_DEPTH)
    index, leaf = said["tctx"]["record"]["index"], said["tctx"]["record"]["leaf"]
    if type(index) is not int or not isinstance(leaf, str):
        raise ValueError("it names no leaf")
    return index, _Token(line=line, signature=parts[2], said=said, leaf=leaf)


def _off_record(token: _Token, index: int, leaf: Leaf, hash_: bytes) -> str:
    """Why a token is not of what the record says was sent; "" where it is."""
    said = token.said
    if leaf.kind not in _SENT:
        return f"it names leaf {index}, which is no intent"
    if token.leaf != f"sha256:{hash_.hex()}":
        return f"it names another leaf {index} than this record has"
    if said.get("txn") != leaf.call or said.get("jti") != f"{leaf.call}.{index}":
        return "it is of another call or sending than its intent"
    at = said.get("iat")
    if type(at) is not int or at < leaf.at - _TOLERANCE_S:
        return "it was made before its intent"
    return ""


def _other(token: dict[str, Any], leaf: Leaf, said: dict[str, Any]) -> str:
    """What the token says otherwise than the intent's opened facts; "" for nothing."""
    context, origin = token["tctx"], token["rctx"]
    pairs: list[tuple[str, object, object]] = []
    if leaf.kind == "further":
        named = {"audience": token["aud"], "tool": context["tool"], "arguments": context["arguments"]}
        named |= {"subject": token["sub"], "scope": token["scope"]}
        pairs = [(name, value, said[name]) for name, value in named.items() if name in said]
    if "tool" in said and leaf.kind == "intent":
        tool = said["tool"]
        pairs += [("tool", context["tool"], tool["remote"]), ("action", context["action"], tool["action"])]
        pairs += [("scope", token["scope"], tool["action"])]
    if "arguments_digest" in said:
        pairs.append(("arguments", context["arguments"], said["arguments_digest"]))
    if "person" in said:
        pairs.append(("person", token["sub"], said["person"]["id"]))
    if "service" in said:
        pairs.append(("service", token["sub"], f"service:{said['service']['id']}"))
    if "caller" in said:
        caller = said["caller"]
        pairs += [("tenant", context["tenant"], caller["tenant"])]
        pairs += [(name, origin[name], caller[name]) for name in ("client", "subject", "issuer")]
    if "decision" in said:
        pairs.append(("resource", context["resource"], said["decision"]["resource"]))
    wrong = [name for name, one, other in pairs if one != other]
    return f"it says another {', another '.join(wrong)} than its intent" if wrong else ""
