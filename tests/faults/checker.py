"""Three logs that must agree: what clients were told, what a backend did, and the record.

Written apart from the gateway, on Python's standard library: it opens the ledger's file by its own SQL, has its own
tree of RFC 6962 and its own Ed25519 (RFC 8032), and believes only the line in `log.pub`. It reads a copy, so that the
evidence stays as a crash left it.

What must hold:
1 what was acknowledged is on record, as that very leaf;
2 every effect names an intent that is on record, as that very leaf;
3 indices are dense, each leaf has its hash, and the signed head is over all of them;
4 every head that anyone saw is a beginning of this log;
5 an outcome is about one intent before it, of the same call, and an intent has at most one end;
6 after a restart the new `unknown` are exactly the intents that had no end, the old leaves stand as they stood, and no
  intent is left open;
7 no call was done twice.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

__all__ = ["Log", "Seen", "judge", "judge_recovery", "lines", "read_log"]


@dataclass(frozen=True, slots=True)
class Log:
    """The record as it lies there: (index, hash, entry) of each leaf, and the signed head."""

    leaves: tuple[tuple[int, bytes, bytes], ...]
    note: str

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(entry) for _, _, entry in self.leaves]

    def open(self) -> dict[int, str]:
        """Intents without an end: index and call."""
        left: dict[int, str] = {}
        for index, leaf in enumerate(self.said()):
            if leaf["kind"] == "intent":
                left[index] = leaf["call"]
            elif leaf["kind"] in ("outcome", "unknown"):
                left.pop(leaf["of"], None)
        return left


@dataclass(slots=True)
class Seen:
    """What others wrote down: `acked` and `effects` as (call, index, leaf), heads as signed notes.

    An index of -1 is an effect or answer that named no place: then the call must have an intent.
    """

    acked: list[tuple[str, int, str]] = field(default_factory=list)
    effects: list[tuple[str, int, str]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, *files: Path) -> Seen:
        """From the files of clients, backend and onlookers, each a line of JSON per thing seen."""
        seen = cls()
        for each in lines(*files):
            if each["did"] == "head":
                seen.heads.append(each["note"])
            else:
                place = (each["call"], each.get("index", -1), each.get("leaf", ""))
                (seen.acked if each["did"] == "ack" else seen.effects).append(place)
        return seen


def lines(*files: Path) -> list[dict[str, Any]]:
    """Each whole line; the last one may have been cut by a kill, and then nobody was told."""
    return [
        json.loads(line)
        for file in files
        if file.exists()
        for line in file.read_bytes().split(b"\n")[:-1]
    ]  # fmt: skip


def read_log(database: Path) -> Log:
    """The record in a copy of the file and of its write-ahead log. Raises sqlite3.Error where it cannot be read."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="checker-", dir=memory) as place:
        for suffix in ("", "-wal", "-journal"):
            if (source := Path(f"{database}{suffix}")).exists():
                shutil.copyfile(source, Path(place) / f"log{suffix}")
        with closing(sqlite3.connect(Path(place) / "log")) as connection:
            leaves = connection.execute("SELECT idx, hash, entry FROM leaf ORDER BY idx").fetchall()
            heads = connection.execute("SELECT note FROM head").fetchall()
    return Log(leaves=tuple(leaves), note=heads[0][0] if heads else "")


def judge(log: Log, seen: Seen, vkey: str) -> list[str]:
    """What does not hold of 1 to 5 and 7."""
    faults: list[str] = []
    hashes = [sha256(b"\0" + entry).digest() for _, _, entry in log.leaves]
    faults += [f"leaf {place} is number {index}" for place, (index, _, _) in enumerate(log.leaves) if place != index]
    faults += [
        f"leaf {index} has another hash" for index, (_, kept, _) in enumerate(log.leaves) if kept != hashes[index]
    ]
    try:
        said = log.said()
    except ValueError:
        return [*faults, "a leaf is no JSON"]
    faults += _heads(hashes, log.note, seen.heads, vkey)
    faults += _pairs(said)
    intents = {leaf["call"] for leaf in said if leaf["kind"] == "intent"}
    for what, places in (("acknowledged", seen.acked), ("done", seen.effects)):
        for call, index, leaf in places:
            if index < 0:
                found = call in intents
            else:
                found = index < len(said) and said[index]["call"] == call and hashes[index].hex() == leaf[-64:]
                found = found and (what == "acknowledged" or said[index]["kind"] == "intent")
            if not found:
                faults.append(f"{call} was {what} and is not on record at {index}")
    faults += [f"{call} was done {times} times" for call, times in Counter(c for c, _, _ in seen.effects).items()
               if times > 1]  # fmt: skip
    return faults


def judge_recovery(before: Log, after: Log) -> list[str]:
    """What does not hold of 6, between the file that a crash left and the file after the next start."""
    faults = []
    size = len(before.leaves)
    if after.leaves[:size] != before.leaves:
        faults.append("leaves from before the restart changed or are gone")
    new = after.said()[size:]
    unknown = Counter((leaf["of"], leaf["call"]) for leaf in new if leaf["kind"] == "unknown")
    if unknown != Counter(before.open().items()):
        faults.append(f"unknown are {sorted(unknown)}, without an end were {sorted(before.open().items())}")
    left = {index: call for index, call in after.open().items() if index < size}
    if left:
        faults.append(f"still open: {left}")
    return faults


def _heads(hashes: Sequence[bytes], own: str, others: Iterable[str], vkey: str) -> list[str]:
    faults = []
    roots = _Roots(hashes)
    for place, note in (("the signed head", own), *(("a head that was seen", note) for note in dict.fromkeys(others))):
        size, root, wrong = _checkpoint(note, vkey)
        if wrong:
            faults.append(f"{place} {wrong}")
        elif size > len(hashes) or roots.at(size) != root:
            faults.append(f"{place}, of {size} leaves, is not of this log")
        elif place == "the signed head" and size != len(hashes):
            faults.append(f"{place} is of {size} leaves, {len(hashes)} are here")
    return faults


def _pairs(said: Sequence[dict[str, Any]]) -> list[str]:
    faults, ended = [], set()
    for index, leaf in enumerate(said):
        if leaf["kind"] not in ("outcome", "unknown"):
            continue
        of = leaf.get("of", -1)
        intent = said[of] if 0 <= of < index else {}
        if intent.get("kind") != "intent" or intent.get("call") != leaf["call"]:
            faults.append(f"{leaf['kind']} {index} is about {of}, which is no earlier intent of its call")
        elif of in ended:
            faults.append(f"intent {of} has a second end at {index}")
        ended.add(of)
    return faults


class _Roots:
    """The root over the first so many leaves (RFC 6962 section 2.1), by its recursive definition, subtrees kept."""

    def __init__(self, hashes: Sequence[bytes]) -> None:
        self._hashes = hashes
        self._whole: dict[tuple[int, int], bytes] = {}

    def at(self, size: int) -> bytes:
        return self._over(0, size) if size else sha256(b"").digest()

    def _over(self, start: int, end: int) -> bytes:
        if end - start == 1:
            return self._hashes[start]
        if (start, end) not in self._whole:
            half = 1
            while half * 2 < end - start:
                half *= 2
            inner = self._over(start, start + half) + self._over(start + half, end)
            self._whole[start, end] = sha256(b"\1" + inner).digest()
        return self._whole[start, end]


@cache
def _checkpoint(note: str, vkey: str) -> tuple[int, bytes, str]:
    """Size and root of a checkpoint, and what is wrong with it."""
    name, _, encoded = vkey.split()[0].split("+", 2)
    text, blank, tail = note.rpartition("\n\n")
    said = [line.split(" ") for line in tail.splitlines() if line.startswith(f"— {name} ")]
    if not blank or len(said) != 1:
        return 0, b"", "is not signed once by this log"
    signed = (text + "\n").encode()
    if not _verified(base64.b64decode(encoded)[1:], signed, base64.b64decode(said[0][2])[4:]):
        return 0, b"", "has a wrong signature"
    origin, size, root = text.split("\n")
    return (int(size), base64.b64decode(root), "") if origin == name else (0, b"", "is of another log")


_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_Point = tuple[int, int, int, int]


def _add(one: _Point, two: _Point) -> _Point:
    a, b = (one[1] - one[0]) * (two[1] - two[0]) % _P, (one[1] + one[0]) * (two[1] + two[0]) % _P
    c, d = 2 * one[3] * two[3] * _D % _P, 2 * one[2] * two[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(number: int, point: _Point) -> _Point:
    found: _Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            found = _add(found, point)
        point = _add(point, point)
        number >>= 1
    return found


def _point(data: bytes) -> _Point | None:
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if y >= _P or (x * x - square) % _P or (x == 0 and sign):
        return None
    x = _P - x if x & 1 != sign else x
    return x, y, 1, x * y % _P


_BASE = _point((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))


def _verified(key: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032 section 5.1.7, without cofactor."""
    public, begun = _point(key), _point(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if public is None or begun is None or _BASE is None or len(signature) != 64 or scalar >= _L:
        return False
    challenge = int.from_bytes(sha512(signature[:32] + key + message).digest(), "little") % _L
    left, right = _times(scalar, _BASE), _add(begun, _times(challenge, public))
    return (left[0] * right[2] - right[0] * left[2]) % _P == 0 and (left[1] * right[2] - right[1] * left[2]) % _P == 0
