"""What one leaf of the record says, and how its facts are opened.

A leaf is canonical JSON (RFC 8785) of at most 65,535 bytes: `v`, `kind`, `id`, `call`, `at`, for an outcome `of` (the
index of its intent), for an intent `ch` and `n` (the channel of its upstream and its number there, channel.py), and
under `facts` for every fact a salted commitment, never a value: leaves are for ever, payloads can be erased. The salt
of a fact is derived from the record's own salt, so that a fact can be opened alone.
Randomness is given by the door. Must not hold the tree (tree.py), signatures (checkpoint.py) or encryption (seal.py).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256

import msgspec
import orjson

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.channel import CHANNEL
from onbehalf.explain.erasure import Erasure
from onbehalf.model import AuditEntry, Canonical, Digest, Json, UnixTime, canonical
from onbehalf.model_value import Value

__all__ = [
    "MAX_LEAF_BYTES", "Leaf", "Made", "Record", "Spelled", "commitment", "fact_commitment", "make",
    "open_leaf", "open_payload", "opened_facts", "read", "spell",
]  # fmt: skip

MAX_LEAF_BYTES = 65_535
"""C2SP tlog-tiles gives a bundle entry a uint16 length."""
_SALT_BYTES = 32
_A_COMMITMENT = 64 + len('"":"",')
_MOST_AROUND = (
    len('{"at":,"call":"","ch":"","facts":{},"id":"","kind":"","n":,"of":,"v":1}') + 3 * len(str(2**64)) + 32 + 16
)
_DOMAIN = b"onbehalf/leaf/v1/"
_INNER, _INNER_REST = bytes(each ^ 0x36 for each in range(256)), b"\x36" * 32
_INNER_REST_AND_DOMAIN = _INNER_REST + _DOMAIN
_OUTER, _OUTER_REST = bytes(each ^ 0x5C for each in range(256)), b"\x5c" * 32
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Leaf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A leaf, read. `facts` maps a fact's name to its commitment, as hex; `of` is an outcome's intent index; `ch` and
    `n` are an intent's channel and number, "" and 0 in logs from before there were any."""

    at: int
    call: str
    facts: dict[str, str]
    id: str
    kind: str
    v: int
    of: int = -1
    ch: str = ""
    n: int = 0


class _Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    facts: dict[str, msgspec.Raw]
    salt: str


class Spelled(Value, frozen=True, kw_only=True):
    """An entry with its facts in their one spelling (RFC 8785), sorted by name. `size` is theirs, in bytes; `of` is an
    outcome's intent index, or -1; `audience` an intent's upstream, or ""; `about` is whose key seals it. INVARIANT:
    made by `spell` only, so that `make` cannot fail for what it holds."""

    hidden = frozenset({"facts", "about"})

    kind: str
    call: str
    at: UnixTime
    facts: tuple[tuple[str, bytes], ...]
    of: int
    size: int
    audience: str = ""
    about: str = ""


class Made(Value, frozen=True, kw_only=True, gc=False):
    """An entry ready for the log: the leaf bytes, and the payload that opens them, to be sealed apart."""

    hidden = frozenset({"payload"})

    leaf: bytes
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as a person may read it. `of` is an outcome's intent index, or -1. `facts` is empty and `erased` true
    where the payload cannot be opened; `erasure` says why, where that is on record."""

    index: int
    leaf: Digest
    kind: str
    call: str
    at: UnixTime
    facts: Mapping[str, Json] = field(repr=False)
    erased: bool = False
    of: int = -1
    erasure: Erasure | None = None


_read_leaf = msgspec.json.Decoder(Leaf).decode
_read_payload = msgspec.json.Decoder(_Payload).decode


def spell(entry: AuditEntry) -> Spelled:
    """An entry whose facts have their one spelling, so that nothing about it can fail or change later.

    Raises ValueError for facts without a canonical form, for names that are none, and for so many facts that their leaf
    would have more than 65,535 bytes.
    """
    facts: list[tuple[str, bytes]] = []
    size, around = 0, _MOST_AROUND + len(entry.kind) + len(entry.call)
    for name in sorted(entry.facts):
        _require_name(name)
        value = entry.facts[name]
        spelled = value.spelled if isinstance(value, Canonical) else canonical(value)
        facts.append((name, spelled))
        size += len(spelled)
        around += len(name) + _A_COMMITMENT
    if not (entry.kind.isascii() and entry.call.isascii()):
        raise ValueError("kind, id and call are ASCII")
    if around > MAX_LEAF_BYTES:
        raise ValueError(f"a leaf is at most {MAX_LEAF_BYTES} bytes, this one may have {around}")
    of = _intent_index(entry.facts)
    return Spelled(
        kind=entry.kind,
        call=entry.call,
        at=entry.at,
        facts=tuple(facts),
        of=of,
        size=size,
        audience=entry.audience,
        about=entry.about,
    )


def make(spelled: Spelled, *, id_: str, salt: bytes, place: tuple[str, int] = ("", 0)) -> Made:
    """The leaf of an entry, and the payload that opens it.

    `id_` names the record, in 32 ASCII characters; `salt` is 32 fresh random bytes; `place` is channel and number.
    """
    _require_salt(salt)
    pads = _pads(salt)
    commitments: dict[str, str] = {}
    opened: list[bytes] = []
    for name, value in spelled.facts:
        encoded = name.encode()
        commitments[name] = _commit(pads, encoded, value)
        opened.append(b'"%b":%b' % (encoded, value))
    said: dict[str, Json] = {"at": spelled.at, "call": spelled.call}
    if place[0]:
        said["ch"] = place[0]
    said["facts"] = commitments  # type: ignore[assignment]  # invariance
    said |= {"id": id_, "kind": spelled.kind}
    if place[0]:
        said["n"] = place[1]
    if spelled.of >= 0:
        said["of"] = spelled.of
    said["v"] = 1
    leaf = orjson.dumps(said)  # the keys stand sorted and all is ASCII and whole numbers, so this is RFC 8785
    return Made(leaf=leaf, payload=b'{"facts":{%b},"salt":"%b"}' % (b",".join(opened), salt.hex().encode()))


def read(entry: bytes) -> Leaf:
    """A leaf from its bytes. Raises LedgerCorrupt for what is no leaf of version 1."""
    try:
        leaf = _read_leaf(entry)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise LedgerCorrupt(f"not a leaf: {error}") from error
    if leaf.v != 1:
        raise LedgerCorrupt(f"expected leaf version 1, found {leaf.v}", hint="read it with a newer release")
    if (leaf.ch or leaf.n) and not (leaf.kind == "intent" and leaf.n > 0 and CHANNEL.fullmatch(leaf.ch)):
        raise LedgerCorrupt("not a leaf: a number and its channel belong together, to an intent")
    return leaf


def open_leaf(leaf: Leaf, facts: Mapping[str, Json], salt: bytes) -> None:
    """Check that `facts` are exactly what the leaf commits to: none missing, none added, none changed.

    Raises LedgerCorrupt naming the fact.
    """
    try:
        spelled = {name: canonical(value) for name, value in facts.items()}
    except ValueError as error:
        raise LedgerCorrupt(f"a fact cannot be what was committed to: {error}") from error
    _check(leaf, spelled, salt)


def open_payload(leaf: Leaf, payload: bytes) -> dict[str, Json]:
    """The facts of a payload, checked against the leaf as `open_leaf` does. Raises LedgerCorrupt."""
    try:
        opened = _read_payload(payload)
        salt = bytes.fromhex(opened.salt)
    except (msgspec.DecodeError, ValueError) as error:
        raise LedgerCorrupt(f"not a payload: {error}") from error
    _check(leaf, {name: bytes(raw) for name, raw in opened.facts.items()}, salt)
    facts: dict[str, Json] = {name: orjson.loads(bytes(raw)) for name, raw in opened.facts.items()}
    if _intent_index(facts) != leaf.of:
        raise LedgerCorrupt(f"the leaf is about intent {leaf.of}, its payload about {_intent_index(facts)}")
    return facts


def opened_facts(leaf: Leaf, payload: bytes) -> dict[str, tuple[str, str]]:
    """For each fact its JSON in the spelling that is committed to, and the salt of that fact alone, as hex.

    Whoever has both can open this fact and no other. Checked as `open_payload` does. Raises LedgerCorrupt.
    """
    open_payload(leaf, payload)
    opened = _read_payload(payload)
    salt = _pads(bytes.fromhex(opened.salt))
    return {
        name: (bytes(raw).decode("utf-8"), _hmac(salt, name.encode()).hex())
        for name, raw in sorted(opened.facts.items())
    }


def commitment(name: str, value: Json, salt: bytes) -> str:
    """The commitment to one fact, as hex. `salt` is the record's."""
    _require_salt(salt)
    return _commit(_pads(salt), name.encode(), canonical(value))


def fact_commitment(name: str, json: str, salt: bytes) -> str:
    """The commitment to one fact, as hex, given its JSON in its one spelling and the fact's own salt."""
    _require_salt(salt)
    return _hmac(_pads(salt), b"%b%b\0%b" % (_DOMAIN, name.encode(), json.encode())).hex()


def _check(leaf: Leaf, spelled: Mapping[str, bytes], salt: bytes) -> None:
    if len(salt) != _SALT_BYTES:
        raise LedgerCorrupt(f"expected a salt of {_SALT_BYTES} bytes, found {len(salt)}")
    if leaf.facts.keys() != spelled.keys():
        wrong = sorted(leaf.facts.keys() ^ spelled.keys())
        raise LedgerCorrupt(f"the facts `{'`, `'.join(wrong)}` stand on one side only")
    pads = _pads(salt)
    for name, value in spelled.items():
        if not hmac.compare_digest(leaf.facts[name].encode(), _commit(pads, name.encode(), value).encode()):
            raise LedgerCorrupt(f"the fact `{name}` is not what the leaf commits to")


def _pads(key: bytes) -> tuple[bytes, bytes]:
    """What HMAC-SHA-256 (RFC 2104) puts before its two messages, for a key of 32 bytes."""
    return key.translate(_INNER) + _INNER_REST, key.translate(_OUTER) + _OUTER_REST


def _commit(salt: tuple[bytes, bytes], name: bytes, spelled: bytes) -> str:
    """HMAC under a key of the fact's own, which is HMAC of its name under the record's salt, given by its pads.

    As `_hmac` twice, without a call for each step: a call's two records need this eleven times.
    """
    key = sha256(salt[1] + sha256(salt[0] + name).digest()).digest()
    inner = sha256(b"".join((key.translate(_INNER), _INNER_REST_AND_DOMAIN, name, b"\0", spelled))).digest()
    return sha256(b"".join((key.translate(_OUTER), _OUTER_REST, inner))).hexdigest()


def _hmac(pads: tuple[bytes, bytes], message: bytes) -> bytes:
    """HMAC-SHA-256, spelled out: half the time of `hmac.digest`."""
    return sha256(pads[1] + sha256(pads[0] + message).digest()).digest()


def _intent_index(facts: Mapping[str, Json | Canonical]) -> int:
    """The index an `intent` fact names, -1 where there is none."""
    intent = facts.get("intent")
    index = intent.get("index") if isinstance(intent, dict) else None
    return index if isinstance(index, int) and not isinstance(index, bool) and index >= 0 else -1


@cache
def _require_name(name: str) -> None:
    """Facts are named by our own code, by few names."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"`{name[:64]}` cannot name a fact")


def _require_salt(salt: bytes) -> None:
    if len(salt) != _SALT_BYTES:
        raise ValueError(f"expected a salt of {_SALT_BYTES} bytes, found {len(salt)}")
