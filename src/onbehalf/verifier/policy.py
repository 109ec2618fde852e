"""A policy file (C2SP tlog-policy), to check by: which logs count, and whose cosignatures are enough.

Written apart from the gateway's reading of the same file, from the specification. Octets in; names are opaque.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from onbehalf.verifier.cosign import WitnessKey, witness_key
from onbehalf.verifier.note import LogKey, log_key
from onbehalf.verifier.refused import Unusable

__all__ = ["MAX_POLICY", "Policy", "read_policy"]

MAX_POLICY = 262_144
_MOST = 64
_LINE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\n")
_NUMBER = re.compile(rb"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class _Group:
    """So many of the members, which are names of witnesses or groups defined before."""

    needed: int
    members: tuple[bytes, ...]


@dataclass(slots=True)
class Policy:
    """`logs` are Ed25519 keys, `also` the ML-DSA-44 keys of logs, `witnesses` those that count, by name in the file."""

    logs: list[LogKey] = field(default_factory=list)
    also: list[WitnessKey] = field(default_factory=list)
    witnesses: dict[bytes, WitnessKey] = field(default_factory=dict)
    groups: dict[bytes, _Group] = field(default_factory=dict)
    quorum: bytes = b""

    def enough(self, names: Set[bytes]) -> bool:
        """Whether cosignatures of these witnesses make a checkpoint valid."""
        return self.quorum == b"none" or self._seen_by(self.quorum, names)

    def _seen_by(self, name: bytes, names: Set[bytes]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in names
        return sum(1 for each in group.members if self._seen_by(each, names)) >= group.needed


def read_policy(data: bytes) -> Policy:
    """The policy in a file. Raises Unusable saying in which line it is none."""
    policy, members, publics = Policy(), set[bytes](), set[tuple[bytes, bytes]]()
    for number, items in _items(data):
        try:
            match items:
                case [b"log", vkey] | [b"log", vkey, _]:
                    _log(policy, vkey, publics)
                case [b"witness", name, vkey] | [b"witness", name, vkey, _]:
                    _fresh(policy, name)
                    key = witness_key(vkey.decode("latin-1"))
                    _once(publics, b"witness", key.public)
                    policy.witnesses[name] = key
                case [b"group", name, count, _, *_]:
                    _group(policy, name, count, items[3:], members)
                case [b"quorum", name] if not policy.quorum:
                    if name != b"none" and name not in policy.witnesses and name not in policy.groups:
                        raise Unusable("its name is not defined above it")
                    policy.quorum = name
                case _:
                    raise Unusable("it is not what a policy may say, or `quorum` stands twice")
        except Unusable as error:
            raise Unusable(f"the policy, line {number}: {error}") from error
    if not policy.quorum:
        raise Unusable("the policy has no `quorum` line")
    return policy


def _items(data: bytes) -> Iterator[tuple[int, list[bytes]]]:
    if len(data) > MAX_POLICY:
        raise Unusable("the policy is too long")
    place = number = 0
    while place < len(data):
        line, number = _LINE.match(data, place), number + 1
        if line is None:
            raise Unusable(f"the policy, line {number}: it is cut off, or holds a control character")
        place = line.end()
        items = [each for each in re.split(rb"[\t ]+", line[0][:-1]) if each]
        if items and items[0][:1] != b"#":
            yield number, items


def _log(policy: Policy, vkey: bytes, publics: set[tuple[bytes, bytes]]) -> None:
    text = vkey.decode("latin-1")
    try:
        key = log_key(text)
    except Unusable:
        other = witness_key(text)
        if other.kind != 6:
            raise Unusable("a log's key is no vkey of type 1 (Ed25519) or 6 (ML-DSA-44)") from None
        _once(publics, b"log", other.public)
        policy.also.append(other)
        return
    _once(publics, b"log", key.public)
    policy.logs.append(key)


def _group(policy: Policy, name: bytes, count: bytes, names: list[bytes], members: set[bytes]) -> None:
    _fresh(policy, name)
    for each in names:
        if each not in policy.witnesses and each not in policy.groups:
            raise Unusable("a member is not defined above it")
        if each in members:
            raise Unusable("a member is one of a group already")
        members.add(each)
    needed = len(names) if count == b"all" else 1 if count == b"any" else 0
    if not needed and _NUMBER.fullmatch(count):
        needed = int(count)
    if not 0 < needed <= len(names):
        raise Unusable("a group needs all, any, or a number of its members")
    if len(policy.groups) >= _MOST:
        raise Unusable(f"there are more than {_MOST}")
    policy.groups[name] = _Group(needed, tuple(names))


def _fresh(policy: Policy, name: bytes) -> None:
    if name == b"none" or name in policy.witnesses or name in policy.groups:
        raise Unusable("its name is taken")


def _once(publics: set[tuple[bytes, bytes]], kind: bytes, public: bytes) -> None:
    if (kind, public) in publics:
        raise Unusable("its key stands twice")
    publics.add((kind, public))
    if sum(1 for each, _ in publics if each == kind) > _MOST:
        raise Unusable(f"there are more than {_MOST}")
