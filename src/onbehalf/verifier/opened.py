"""What was opened of the record: each fact against its commitment, and facts against each other.

A line of `opened.jsonl` is one fact: its leaf's index, its name, its JSON as text in the spelling that was committed
to, and the salt of this one fact. Or it says that a leaf's payload is erased. Must not know the tree.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from onbehalf.verifier.erasures import Erasures
from onbehalf.verifier.leaves import Intent, Leaf
from onbehalf.verifier.receipts import Receipts
from onbehalf.verifier.strict import strict
from onbehalf.verifier.witnessed import Witnessed

__all__ = ["Opened", "Reading", "opened_lines"]

_DOMAIN = b"onbehalf/leaf/v1/"
_SALT = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(
    rb'\{"index":(0|[1-9][0-9]{0,14}),"fact":"([a-z][a-z0-9_]{0,63})","json":"([ !#-\[\]-~]*+(?:\\"[ !#-\[\]-~]*+)*+)"'
    rb',"salt":"([0-9a-f]{64})"\}'
)
"""A line as the gateway writes most: printable ASCII, in which nothing is escaped but quotes."""
_DEPTH = 256
_KEYED = ("start", "key_change")
_MAX_POLICIES = 10_000
_MAX_FACTS = 1000
"""More than fit into a leaf."""


@dataclass(slots=True)
class Opened:
    """What was opened of one leaf: JSON text and salt by fact's name. An erased one may name the leaf that says so."""

    index: int
    erased: bool = False
    by: int = -1
    facts: dict[str, tuple[str, str]] = field(default_factory=dict)


def opened_lines(lines: Iterator[bytes]) -> Iterator[Opened]:
    """What was opened, leaf by leaf. Raises ValueError, naming the line, for what is out of order or malformed."""
    found: Opened | None = None
    for number, line in enumerate(lines, start=1):
        try:
            index, one, by = _line(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if found is not None and index != found.index:
            if index < found.index:
                raise ValueError(f"line {number}: leaf {index} comes after leaf {found.index}")
            yield found
            found = None
        found = found or Opened(index=index)
        if found.erased or (one is None and found.facts) or (one is not None and one[0] in found.facts):
            raise ValueError(f"line {number}: leaf {index} says two things about one fact")
        if len(found.facts) >= _MAX_FACTS:
            raise ValueError(f"line {number}: leaf {index} has more facts than any leaf")
        if one is None:
            found.erased, found.by = True, by
        else:
            found.facts[one[0]] = (one[1], one[2])
    if found is not None:
        yield found


def _line(line: bytes) -> tuple[int, tuple[str, str, str] | None, int]:
    if (plain := _PLAIN.fullmatch(line)) is not None:  # the same as below, for what can have no other meaning
        number, name, text, salt = plain.groups()
        return int(number), (name.decode(), text.replace(b'\\"', b'"').decode(), salt.decode()), -1
    return _any_line(line)


def _any_line(line: bytes) -> tuple[int, tuple[str, str, str] | None, int]:
    said = strict(line, depth=2)
    index = said.get("index") if isinstance(said, dict) else None
    if type(index) is not int or index < 0:
        raise ValueError("it names no leaf")
    if said.keys() - {"by"} == {"index", "erased"} and said["erased"] is True:
        by = said.get("by", -1)
        if type(by) is not int or ("by" in said and by <= index):
            raise ValueError("it names no later leaf that says what was erased")
        return index, None, by
    values = (said.get("fact"), said.get("json"), said.get("salt"))
    if said.keys() != {"index", "fact", "json", "salt"} or not all(isinstance(each, str) for each in values):
        raise ValueError("it is no opened fact")
    return index, values, -1


@dataclass(slots=True)
class Reading:
    """Checks what was opened, leaf by leaf, and counts. `policies` are the digests that decisions name."""

    receipts: Receipts
    facts: int = 0
    erased: int = 0
    signed: int = 0
    policies: set[str] = field(default_factory=set)
    erasures: Erasures = field(default_factory=Erasures)
    witnessed: Witnessed = field(default_factory=Witnessed)
    said: dict[str, Any] = field(default_factory=dict)
    """The facts of the last leaf that were opened and hold."""

    def take(self, leaf: Leaf, opened: Opened, intent: Intent | None) -> Iterator[str]:
        """What does not hold of one leaf's opened facts, as sentences. `intent` is what the leaf answers."""
        said = self.said = {}
        for name, (text, salt) in opened.facts.items():
            problem = _commitment(leaf, name, text, salt)
            if problem:
                yield f"fact `{name}`: {problem}"
                continue
            self.facts += 1
            try:
                said[name] = strict(text, depth=_DEPTH)
            except ValueError as error:
                yield f"fact `{name}` is committed to, and is no JSON of one meaning ({error})"
        texts = {name: text for name, (text, _) in opened.facts.items() if name in said}
        if opened.erased:
            self.erasures.erased(opened.index, opened.by)
        if leaf.kind == "erased" and "erasure" in said:
            self.erasures.told(opened.index, said["erasure"])
        yield from self._together(leaf, said, texts, intent)

    def begin(self, leaf: Leaf) -> None:
        """A leaf that says which keys are in force ends what an earlier one said, opened or not."""
        if leaf.kind in _KEYED and "key_set" in leaf.names:
            self.receipts.in_force(None)

    def _together(
        self, leaf: Leaf, said: dict[str, Any], texts: dict[str, str], intent: Intent | None
    ) -> Iterator[str]:
        digest = _digest(texts["arguments"].encode()) if "arguments" in said else None
        if digest is not None and said.get("arguments_digest", digest) != digest:
            yield "`arguments` do not have the digest that stands beside them"
        decision = said.get("decision")
        if (
            isinstance(decision, dict)
            and isinstance(decision.get("policy"), str)
            and len(self.policies) < _MAX_POLICIES
        ):
            self.policies.add(decision["policy"])
        if leaf.kind in _KEYED and "key_set" in said:
            self.receipts.in_force(said["key_set"])
        about = said.get("intent")
        if leaf.kind in ("outcome", "unknown") and about is not None:
            index, digest = (about.get("index"), about.get("leaf")) if isinstance(about, dict) else (None, None)
            if index != leaf.of or (intent is not None and digest != f"sha256:{intent.hash.hex()}"):
                yield "its fact `intent` names another intent than its leaf"
        if leaf.of >= 0 and "witnessed" in said and (problem := self.witnessed.take(leaf.of, said["witnessed"])):
            yield problem
        if isinstance(said.get("backend_receipt"), str):
            problem = self.receipts.problem(said["backend_receipt"], leaf, intent)
            if problem:
                yield f"the backend's receipt: {problem}"
            else:
                self.signed += 1


def wanted(said: dict[str, str], known: dict[str, Any]) -> dict[str, str]:
    """What a receipt of this intent is held against, as far as it is opened: its tool, its arguments' digest. `known`
    are the values of those that were read."""
    found = {}
    if "tool" in said:
        tool = known["tool"] if "tool" in known else strict(said["tool"], depth=_DEPTH)
        if isinstance(tool, dict) and isinstance(tool.get("remote"), str):
            found["tool"] = tool["remote"][:1000]
    if "arguments_digest" in said:
        name = "arguments_digest"
        digest = known[name] if name in known else strict(said[name], depth=_DEPTH)
        if isinstance(digest, str):
            found["arguments"] = digest[:100]
    return found


def _commitment(leaf: Leaf, name: str, text: str, salt: str) -> str:
    expected = leaf.commitment(name)
    if expected is None:
        return "its leaf commits to no such fact"
    if not _SALT.fullmatch(salt):
        return "its salt is malformed"
    try:
        message = _DOMAIN + name.encode() + b"\0" + text.encode()
    except UnicodeEncodeError:
        return "it holds half a character"
    made = hmac.digest(bytes.fromhex(salt), message, "sha256").hex().encode()
    return "" if hmac.compare_digest(made, expected) else "value or salt is not what its leaf commits to"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
