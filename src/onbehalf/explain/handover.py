"""A change of the log's own key, told so that anybody can follow it who knows either key.

The old key and the new one sign one head. The last leaf under it is a `key_change` whose fact `log_key` names both, so
the old key says who comes after it, and nobody can put a signature of theirs beside one that the log gave. Heads of
fewer leaves are the old key's, later ones the new one's. Must not hold where keys come from, or write a ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import msgspec
import orjson

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.checkpoint import Checkpoint, NoteVerifier
from onbehalf.explain.leaf import fact_commitment, read
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, Json, UnixTime

__all__ = ["FACT", "KIND", "Handover", "entry", "follow", "keys_named", "parse", "signed_by_both"]

KIND, FACT = "key_change", "log_key"
_Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Handover(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One change. `leaf` is that at `index`, the last under the head of `note`; `json` its fact `log_key`, as text, and
    `salt` that fact's own; `path` the hashes, as hex, that put the leaf under the head (RFC 6962 section 2.1.1)."""

    index: Annotated[int, msgspec.Meta(ge=0)]
    json: str
    leaf: str
    note: str
    path: tuple[_Hex, ...]
    salt: _Hex

    @property
    def size(self) -> int:
        """How many leaves the head has that both keys signed."""
        return self.index + 1

    def told(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "index": self.index, "json": self.json, "leaf": self.leaf, "note": self.note, "path": list(self.path),
            "salt": self.salt,
        }  # fmt: skip

    def line(self) -> str:
        """As one line of JSON."""
        return orjson.dumps(self.told()).decode() + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    before: NoteVerifier
    after: NoteVerifier


def parse(text: str) -> Handover:
    """A change as it is kept. Raises LedgerCorrupt."""
    try:
        return msgspec.json.decode(text, type=Handover, strict=True)
    except (msgspec.DecodeError, TypeError, UnicodeError) as error:
        raise LedgerCorrupt(f"a change of the log's key cannot be read: {error}") from error


def entry(before: LedgerKeys, after: LedgerKeys, *, by: str, at: UnixTime) -> AuditEntry:
    """The record of a change. `by` is a user of the gateway's machine."""
    keys: dict[str, Json] = {"after": [*after.vkeys], "before": [*before.vkeys]}
    return AuditEntry(kind=KIND, call="", at=at, facts={FACT: keys, "by": by})


def signed_by_both(head: Checkpoint, before: LedgerKeys, after: LedgerKeys, *, at: UnixTime) -> str:
    """The note of a head, signed by all keys of both."""
    note = before.signer.sign(head.text())
    note += after.signer.sign(head.text()).rpartition("\n\n")[2]
    return note + "".join(each.heads.line(head, at=at) for each in (before, after) if each.heads is not None)


def keys_named(handover: Handover) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The vkeys before and after, as the fact has them, and nothing checked. Raises LedgerCorrupt."""
    try:
        said = orjson.loads(handover.json)
        before, after = tuple(said["before"]), tuple(said["after"])
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerCorrupt(f"the key change at leaf {handover.index} names no keys") from error
    if not all(isinstance(each, str) for each in (*before, *after)) or not before or not after:
        raise LedgerCorrupt(f"the key change at leaf {handover.index} names no keys")
    return before, after


def follow(key: NoteVerifier, handovers: Sequence[Handover]) -> NoteVerifier:
    """The key in force after all changes, with those before it for their heads, given any key of the log.

    Raises LedgerCorrupt where a change is not signed by both, or where they are no chain that `key` is part of.
    """
    if not handovers:
        return key
    checked = [_checked(each, key.name) for each in handovers]
    chain = [checked[0].before, *(each.after for each in checked)]
    joined = all(one.after.vkey == two.before.vkey for one, two in pairwise(checked))
    rising = all(one.index < two.index for one, two in pairwise(handovers))
    if not joined or not rising or key.vkey not in {each.vkey for each in chain}:
        raise LedgerCorrupt("the changes of the log's key do not lead from key to key, or not to this one")
    former = tuple((each.index, before) for each, before in zip(handovers, chain, strict=False))
    return chain[-1].after(former)


def _checked(handover: Handover, origin: str) -> _Checked:
    where = f"the key change at leaf {handover.index}"
    before, after = keys_named(handover)
    try:
        keys = _Checked(before=NoteVerifier(before[0]), after=NoteVerifier(after[0]))
    except ValueError as error:
        raise LedgerCorrupt(f"{where} names no keys of a log") from error
    heads = [checkpoint.read(handover.note, each, origin=origin) for each in (keys.before, keys.after)]
    leaf, hash_ = read(handover.leaf.encode()), tree.leaf_hash(handover.leaf.encode())
    if leaf.kind != KIND or leaf.facts.get(FACT) != fact_commitment(FACT, handover.json, bytes.fromhex(handover.salt)):
        raise LedgerCorrupt(f"{where} is not what its leaf commits to")
    path = [bytes.fromhex(each) for each in handover.path]
    inside = tree.verify_inclusion(
        leaf=hash_, index=handover.index, size=handover.size, path=path, root=heads[0].root
    )  # fmt: skip
    if heads[0].size != handover.size or not inside:
        raise LedgerCorrupt(f"{where} is not the last leaf under the head that both keys signed")
    return keys
