"""Whose cosignatures a head needs: the policy file of C2SP tlog-policy, parsed once and strictly.

A file is octets; names are opaque. Keys of logs may be Ed25519 (type 1) or ML-DSA-44 (6), of witnesses Ed25519 (4) or
ML-DSA-44 (6). Must not ask a witness (a door) or check a cosignature (cosignature.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from onbehalf.errors import ConfigInvalid
from onbehalf.explain.cosignature import ED25519, ML_DSA_44, Cosigner, cosigner

__all__ = ["Policy", "WitnessAt", "parse"]

_MAX_BYTES = 262_144
_MAX_OF_A_KIND = 64
"""Logs, witnesses, groups: the specification wants 32 at least."""
_FOREIGN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_COUNT = re.compile(r"[1-9][0-9]?")
_LOG_TYPES = (1, ML_DSA_44)
_NONE = "none"
_Rule = Callable[[Collection[str]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessAt:
    """A witness of the file: its name there, its key, and where it is asked; "" where it cannot be."""

    name: str
    key: Cosigner
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy file. `logs` are the vkeys of its logs, `quorum` the name that its last word is about."""

    logs: tuple[str, ...]
    witnesses: tuple[WitnessAt, ...]
    quorum: str
    rule: _Rule

    def met(self, names: Collection[str]) -> bool:
        """Whether a head that these witnesses cosigned, by their names in the file, is valid."""
        return self.rule(names)


def parse(data: bytes) -> Policy:
    """The policy of a file. Raises ConfigInvalid naming the line."""
    if len(data) > _MAX_BYTES or _FOREIGN.search(data):
        raise ConfigInvalid(
            f"a witness policy is at most {_MAX_BYTES} bytes of text, without control characters",
            hint="C2SP tlog-policy says what stands in it",
        )
    if data and not data.endswith(b"\n"):
        raise ConfigInvalid("the witness policy's last line does not end in a newline", hint="it may be cut off")
    reading = _Reading()
    for number, line in enumerate(data.split(b"\n"), start=1):
        # octets above 0x7f are opaque, and each is one letter of its own here
        words = line.replace(b"\t", b" ").decode("latin-1").split(" ")
        words = [word for word in words if word]
        if words and not words[0].startswith("#"):
            try:
                reading.take(words)
            except ValueError as error:
                raise ConfigInvalid(f"line {number} of the witness policy: {error}") from error
    if reading.quorum is None:
        raise ConfigInvalid("the witness policy has no `quorum` line", hint="`quorum NAME` says who is enough")
    name, rule = reading.quorum
    return Policy(logs=tuple(reading.logs), witnesses=tuple(reading.witnesses), quorum=name, rule=rule)


class _Reading:
    """What the lines so far say."""

    def __init__(self) -> None:
        self.logs: list[str] = []
        self.witnesses: list[WitnessAt] = []
        self.quorum: tuple[str, _Rule] | None = None
        self._keys: dict[str, set[bytes]] = {"log": set(), "witness": set()}
        self._rules: dict[str, _Rule] = {}
        self._grouped: set[str] = set()
        self._groups = 0

    def take(self, words: list[str]) -> None:
        kind, rest = words[0], words[1:]
        if kind == "log" and len(rest) in (1, 2):
            self.logs.append(self._key("log", rest[0], _LOG_TYPES).vkey)
        elif kind == "witness" and len(rest) in (2, 3):
            self._witness(*rest)
        elif kind == "group" and len(rest) >= 3:
            self._group(rest[0], rest[1], rest[2:])
        elif kind == "quorum" and len(rest) == 1:
            self._quorum(rest[0])
        else:
            raise ValueError("it is no `log`, `witness`, `group` or `quorum` line with what belongs to it")

    def _key(self, kind: str, vkey: str, types: tuple[int, ...]) -> Cosigner:
        key, known = cosigner(vkey, types), self._keys[kind]
        if key.public in known:
            raise ValueError(f"the key of this {kind} stands twice")
        if len(known) >= _MAX_OF_A_KIND:
            raise ValueError(f"there are more than {_MAX_OF_A_KIND}")
        known.add(key.public)
        return key

    def _define(self, name: str, rule: _Rule) -> None:
        if name == _NONE or name in self._rules:
            raise ValueError(f"`{name}` is defined already")
        self._rules[name] = rule

    def _witness(self, name: str, vkey: str, url: str = "") -> None:
        key = self._key("witness", vkey, (ED25519, ML_DSA_44))
        self._define(name, lambda names: name in names)
        self.witnesses.append(WitnessAt(name=name, key=key, url=url))

    def _group(self, name: str, count: str, members: list[str]) -> None:
        rules = []
        for member in members:
            if member not in self._rules:
                raise ValueError(f"`{member}` is defined on no line before")
            if member in self._grouped:
                raise ValueError(f"`{member}` is a member already")
            self._grouped.add(member)
            rules.append(self._rules[member])
        self._groups += 1
        if self._groups > _MAX_OF_A_KIND:
            raise ValueError(f"there are more than {_MAX_OF_A_KIND}")
        needed = {"all": len(rules), "any": 1}.get(count) or (int(count) if _COUNT.fullmatch(count) else 0)
        if not 1 <= needed <= len(rules):
            raise ValueError(f"a group needs `all`, `any`, or a number from 1 to {len(rules)}")
        self._define(name, lambda names: sum(rule(names) for rule in rules) >= needed)

    def _quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise ValueError("there is a second `quorum` line")
        if name != _NONE and name not in self._rules:
            raise ValueError(f"`{name}` is defined on no line before")
        self.quorum = (name, self._rules.get(name, lambda _: True))
