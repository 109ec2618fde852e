"""Changes of the log's key, followed from any key of the log to all others.

Each names the keys before and after in a leaf, which is the last one under a head that both signed. So the old key
itself says which one comes after it. A head of fewer leaves is checked by the old key, others by the new one.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from onbehalf.verifier import merkle
from onbehalf.verifier.archive import Archive
from onbehalf.verifier.cosign import cosigned_at, witness_key
from onbehalf.verifier.leaves import read_leaf
from onbehalf.verifier.note import Checkpoint, LogKey, checkpoint, log_key
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import KeySpan, Report
from onbehalf.verifier.signers import LogKeys
from onbehalf.verifier.strict import strict

__all__ = ["Handover", "Succession", "followed", "handed_over"]

_FILE = "handovers.jsonl"
_MAX_HANDOVER = 1 << 18
_MOST = 1000
_HEX = re.compile(r"[0-9a-f]{64}")
_SIZE = re.compile(rb"[^\n]*\n(0|[1-9][0-9]{0,17})\n")
_MEMBERS = {"index": int, "json": str, "leaf": str, "note": str, "path": list, "proof": list, "salt": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """One change, whose signatures and leaf hold. `head` is the one that both keys signed; `proof` is to show that it
    is a beginning of the bundle's newest head, which is not checked here."""

    index: int
    before: LogKeys
    after: LogKeys
    head: Checkpoint
    proof: list[bytes]


@dataclass(frozen=True, slots=True)
class Succession:
    """The keys of a log, oldest first, and the changes between them."""

    keys: tuple[LogKeys, ...]
    changes: tuple[Handover, ...] = ()

    @property
    def newest(self) -> LogKeys:
        return self.keys[-1]

    def head(self, note: bytes) -> tuple[Checkpoint, int]:
        """The head in a note, signed by the key that was in force for its size, and -1.

        One that a former key signed after its time, with the number of leaves at which that had ended. Raises
        ValueError.
        """
        said = _SIZE.match(note)
        size = int(said[1]) if said else 0
        later = [each for each in self.changes if size <= each.index]
        key = later[0].before if later else self.newest
        try:
            return checkpoint(note, key.key), -1
        except ValueError:
            for each in self.changes:
                if each.index < size and _signs(note, each.before.key):
                    ended = -1 if size == each.index + 1 else each.index + 1  # that head is both keys'
                    return checkpoint(note, each.before.key), ended
            raise


def followed(archive: Archive, given: LogKeys, report: Report) -> Succession:
    """The keys of the log, given one of them, by the changes in a bundle. Where those do not hold, that key alone."""
    try:
        lines = archive.lines(_FILE, limit=_MAX_HANDOVER) if _FILE in archive.names else ()
        return _succession(given, _changes(lines, given.key.name))
    except ValueError as error:
        report.found("handover_invalid", _FILE, str(error))
        return Succession((given,))


def _changes(lines: Iterable[bytes], origin: str) -> list[Handover]:
    """The changes in a bundle, in order. Raises ValueError saying which one does not hold."""
    found: list[Handover] = []
    for number, line in enumerate(lines, start=1):
        try:
            each = _handover(line, origin)
            if found and (each.index <= found[-1].index or each.before.key.text != found[-1].after.key.text):
                raise ValueError("it does not follow the one before it")
            if number > _MOST:
                raise ValueError("there are more than any log has")
        except (ValueError, Unusable) as error:
            raise ValueError(f"line {number}: {error}") from error
        found.append(each)
    return found


def _succession(given: LogKeys, changes: Sequence[Handover]) -> Succession:
    """All keys of the log, given one. Where the changes lead neither from it nor to it, it stands alone.

    With a second key (ML-DSA-44) in `given`, each change must be signed by the second keys too. Raises ValueError.
    """
    chain = [changes[0].before, *(each.after for each in changes)] if changes else []
    place = next((at for at, each in enumerate(chain) if each.key.text == given.key.text), -1)
    if place < 0:
        return Succession((given,))
    if given.also is None:
        return Succession(tuple(LogKeys(key=each.key) for each in chain), tuple(changes))
    if chain[place].also != given.also:
        raise ValueError("a change of the log's key names another second key than the one given")
    for each in changes:
        for keys in (each.before, each.after):
            if keys.also is not None and cosigned_at(each.head, keys.also, keys.key.name) is None:
                raise ValueError(f"the change at leaf {each.index} is not signed by both second keys")
    return Succession(tuple(chain), tuple(changes))


def handed_over(log: Succession, end: Checkpoint, report: Report) -> None:
    """Note which key signed which heads, and each head of two keys that is not shown to be a beginning of the newest,
    `end`."""
    start = 0
    for each in log.changes:
        report.keys.append(KeySpan(each.before.key.text, start, each.index))
        start, head = each.index + 1, each.head
        if not merkle.consistent(old=head.size, old_root=head.root, size=end.size, root=end.root, path=each.proof):
            text = "it is not shown that the head which both keys signed is a beginning of the newest"
            report.found("handover_unproven", _FILE, text, each.index)
    report.keys.append(KeySpan(log.newest.key.text, start, None))


def _handover(line: bytes, origin: str) -> Handover:
    said = strict(line, depth=2)
    if not isinstance(said, dict) or said.keys() != _MEMBERS.keys():
        raise ValueError("it has not the members of a key change")
    if any(type(said[name]) is not kind for name, kind in _MEMBERS.items()) or not 0 <= said["index"] < 1 << 53:
        raise ValueError("a member of it is of another type")
    leaf_bytes, json = said["leaf"].encode(), said["json"]
    leaf = read_leaf(leaf_bytes)
    message = b"onbehalf/leaf/v1/log_key\0" + json.encode()
    salt = said["salt"]
    made = hmac.digest(bytes.fromhex(salt), message, "sha256").hex() if _HEX.fullmatch(salt) else ""
    if leaf.kind != "key_change" or not hmac.compare_digest(made.encode(), leaf.commitment("log_key") or b"-"):
        raise ValueError("its leaf does not commit to this change of keys")
    before, after = _keys(json, origin)
    note = said["note"].encode()
    head = checkpoint(note, before.key)
    checkpoint(note, after.key)
    path = _hashes(said["path"])
    hash_, size = sha256(b"\0" + leaf_bytes).digest(), said["index"] + 1
    if head.size != size or not merkle.included(hash_, index=size - 1, size=size, path=path, root=head.root):
        raise ValueError("its leaf is not the last one under the head that both keys signed")
    return Handover(index=said["index"], before=before, after=after, head=head, proof=_hashes(said["proof"]))


def _keys(json: str, origin: str) -> tuple[LogKeys, LogKeys]:
    said = strict(json, depth=2)
    if not isinstance(said, dict) or said.keys() != {"before", "after"}:
        raise ValueError("it does not name keys before and after")
    return _named(said["before"], origin), _named(said["after"], origin)


def _named(lines: object, origin: str) -> LogKeys:
    if not isinstance(lines, list) or not 1 <= len(lines) <= 2 or not all(isinstance(each, str) for each in lines):
        raise ValueError("it does not name one key or two")
    key = log_key(lines[0])
    also = witness_key(lines[1]) if len(lines) == 2 else None
    if key.name != origin or (also is not None and (also.kind, also.name) != (6, origin)):
        raise ValueError("a key that it names is not this log's")
    return LogKeys(key=key, also=also)


def _hashes(said: list[object]) -> list[bytes]:
    if len(said) > 128 or not all(isinstance(each, str) and _HEX.fullmatch(each) for each in said):
        raise ValueError("a proof in it is no list of hashes")
    return [bytes.fromhex(str(each)) for each in said]


def _signs(note: bytes, key: LogKey) -> bool:
    try:
        checkpoint(note, key)
    except ValueError:
        return False
    return True
