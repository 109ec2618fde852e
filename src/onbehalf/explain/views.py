"""What leaves of one record, and its own form: one JSON document, canonical, from which the record is read back.

A view holds the leaf itself (its commitments, from which the leaf hash is computed anew when it is read), the facts
that may be told, and by name those that are not. An outcome's view repeats under `about` who called what: that stands
on the record of its intent, not on its own. Other forms (views_*.py) carry this document whole, and beside it names
that others know. Must not hold where a view is sent (doors/sink_*.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain import tree
from onbehalf.explain.leaf import MAX_LEAF_BYTES, Leaf
from onbehalf.model import Digest, Json, canonical

__all__ = ["MAX_VIEW_BYTES", "View", "document", "json_line", "read_document", "read_json_line", "told", "view"]

MAX_VIEW_BYTES = 64 * 2**20
"""An entry has at most 16 MiB of facts; its view, read by whoever got it, may be no more than this."""

_FREE: Mapping[str, frozenset[str]] = {
    "approval": frozenset(),
    "caller": frozenset(),
    "claimed_by": frozenset(),
    "decision": frozenset({"errors", "text"}),
    "erasure": frozenset(),
    "intent": frozenset(),
    "obligations": frozenset(),
    "outcome": frozenset({"message"}),
    "page": frozenset(),
    "person": frozenset({"name"}),
    "purpose": frozenset(),
    "read": frozenset({"filters", "purpose"}),
    "rows": frozenset(),
    "scope": frozenset(),
    "tool": frozenset(),
    "via": frozenset(),
    "vote": frozenset(),
}
"""The facts that are told without being asked for, each with the members that are not. Whatever is not listed is not
told: arguments and their bare digests (which can be guessed), the upstream's words, and every fact of a later day."""
_ABOUT = ("caller", "decision", "person", "purpose", "tool", "via")
_SAFE_INTEGER = 2**53 - 1
_DECISION = ("effect", "resource", "policies")


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document as it is written. `of` is -1 where there is none, `ch` and `n` are "" and 0."""

    about: dict[str, Any]
    at: int
    call: str
    ch: str = ""
    commitments: dict[str, str]
    erased: bool
    facts: dict[str, Any]
    id: str
    index: int
    kind: str
    leaf: str
    log: str
    n: int = 0
    of: int
    v: int
    withheld: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One record as it leaves. `log` is the log's origin, `hash` the hash of `leaf`.

    `facts` are what is told of it; `withheld` names what stands on record and is not told, as `fact` or `fact.member`.
    `erased` is true where the payload is gone, or was sealed for others. `about` is what the intent's record says of
    an outcome's call.
    """

    log: str
    index: int
    hash: Digest
    leaf: Leaf
    facts: Mapping[str, Json] = field(repr=False)
    withheld: tuple[str, ...] = ()
    erased: bool = False
    about: Mapping[str, Json] = field(default_factory=dict, repr=False)


def view(
    leaf: Leaf, facts: Mapping[str, Json] | None, *, log: str, index: int, payload: bool,
    intent: Mapping[str, Json] | None = None,
) -> View:  # fmt: skip
    """A record as it leaves. `facts` is None where its payload is gone; `intent` are the facts of an outcome's intent.

    With `payload` every fact is told, arguments among them; without, only what is listed as free of it.
    """
    open_, withheld = told(_respelled(facts or {}), payload=payload)
    about: dict[str, Json] = {}
    if intent:
        free, _ = told(_respelled({name: intent[name] for name in _ABOUT if name in intent}), payload=payload)
        about = free
        if isinstance(decision := free.get("decision"), dict):
            about["decision"] = {name: decision[name] for name in _DECISION if name in decision}
    hash_ = Digest("sha256:" + tree.leaf_hash(_entry(leaf)).hex())
    return View(
        log=log, index=index, hash=hash_, leaf=leaf, facts=open_, withheld=withheld, erased=facts is None, about=about
    )


def told(facts: Mapping[str, Json], *, payload: bool) -> tuple[dict[str, Json], tuple[str, ...]]:
    """The facts that may be told, and the names of those that may not."""
    if payload:
        return dict(facts), ()
    free: dict[str, Json] = {}
    withheld: list[str] = []
    for name in sorted(facts):
        value, sealed = facts[name], _FREE.get(name)
        if sealed is None:
            withheld.append(name)
        elif isinstance(value, dict):
            free[name] = {member: each for member, each in value.items() if member not in sealed}
            withheld += [f"{name}.{member}" for member in sorted(value.keys() & sealed)]
        else:
            free[name] = value
    return free, tuple(withheld)


def document(view: View) -> dict[str, Json]:
    """The view as plain JSON: all of it, in one place."""
    leaf = view.leaf
    return {
        "about": dict(view.about),
        "at": leaf.at,
        "call": leaf.call,
        "ch": leaf.ch,
        "commitments": dict(leaf.facts),
        "erased": view.erased,
        "facts": dict(view.facts),
        "id": leaf.id,
        "index": view.index,
        "kind": leaf.kind,
        "leaf": view.hash,
        "log": view.log,
        "n": leaf.n,
        "of": leaf.of,
        "v": 1,
        "withheld": list(view.withheld),
    }


def json_line(view: View) -> bytes:
    """The document in its one spelling (RFC 8785), without a line's end, and so without any."""
    return canonical(document(view))


def read_json_line(line: bytes) -> View:
    """A view from its JSON line. Raises LedgerCorrupt for what is none, and where it is spelled otherwise."""
    if len(line) > MAX_VIEW_BYTES:
        raise LedgerCorrupt(f"a view is at most {MAX_VIEW_BYTES} bytes")
    try:
        value: Json = orjson.loads(line)
        found = read_document(value)
        if json_line(found) != line:
            raise LedgerCorrupt("the view is not in its one spelling")
    except ValueError as error:
        raise LedgerCorrupt(f"not a view: {error}") from error
    return found


def read_document(value: Json) -> View:
    """A view from its document, its leaf hash computed anew.

    Does not check that the leaf is in the log, nor that the facts are what the leaf commits to: for that the record
    itself is needed. Raises LedgerCorrupt.
    """
    try:
        read = msgspec.convert(value, _Document)
    except msgspec.ValidationError as error:
        raise LedgerCorrupt(f"not a view: {error}") from error
    leaf = Leaf(
        at=read.at, call=read.call, facts=read.commitments, id=read.id, kind=read.kind, v=read.v, of=read.of,
        ch=read.ch, n=read.n,
    )  # fmt: skip
    entry = _entry(leaf)
    if read.v != 1 or read.index < 0 or len(entry) > MAX_LEAF_BYTES:
        raise LedgerCorrupt("not a view of version 1")
    if f"sha256:{tree.leaf_hash(entry).hex()}" != read.leaf:
        raise LedgerCorrupt(f"the view of record {read.index} does not have the leaf hash that it names")
    named = read.facts.keys() | {name.partition(".")[0] for name in read.withheld}
    expected = set() if read.erased else leaf.facts.keys()
    if named != expected:
        wrong = sorted(named ^ expected)
        raise LedgerCorrupt(f"the facts `{'`, `'.join(wrong)}` stand on one side only")
    return View(
        log=read.log, index=read.index, hash=Digest(read.leaf), leaf=leaf, facts=_respelled(read.facts),
        withheld=read.withheld, erased=read.erased, about=_respelled(read.about),
    )  # fmt: skip


def _respelled(facts: Mapping[str, Json]) -> dict[str, Json]:
    """The same facts, fit to be spelled again: a float such as 1e17 is spelled without a dot, and read as a whole
    number that RFC 8785 has no spelling for."""
    return {name: _floating(value) for name, value in facts.items()}


def _floating(value: Json) -> Json:
    if isinstance(value, int):
        return value if -_SAFE_INTEGER <= value <= _SAFE_INTEGER else float(value)
    if isinstance(value, dict):
        return {name: _floating(each) for name, each in value.items()}
    return [_floating(each) for each in value] if isinstance(value, list) else value


def _entry(leaf: Leaf) -> bytes:
    """The bytes of a leaf as explain/leaf.py spells them."""
    said: dict[str, Any] = msgspec.to_builtins(leaf)
    if leaf.of < 0:
        del said["of"]
    for name in ("ch", "n"):
        if not said[name]:
            del said[name]
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
