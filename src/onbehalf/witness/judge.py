"""What a witness answers to `add-checkpoint` (C2SP tlog-witness). Pure: state and time come in, a verdict goes out.

In order: 1 the request's form; 2 the origin is one of ours (404); 3 the log's signature (403); 4 the old size is at
most the new one (400); 5 it is the size that was cosigned last (409); 6 the proof, or at one size the same root (422).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onbehalf.verifier import merkle
from onbehalf.verifier.cosign import WitnessKey, message
from onbehalf.verifier.note import Checkpoint, LogKey, checkpoint

__all__ = ["MAX_REQUEST", "Answer", "Seen", "cosignature", "judge"]

MAX_REQUEST = 65_536
_OLD = re.compile(r"old (0|[1-9][0-9]{0,17})")
_MAX_STEPS = 63
_SIZE_TYPE = "text/x.tlog.size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The head that was cosigned last for one origin."""

    size: int = 0
    root: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer. With `head`, which must be kept before it is sent, the body is still to be signed."""

    status: int
    body: str = ""
    kind: str = "text/plain; charset=utf-8"
    origin: str = ""
    head: Checkpoint | None = None


def judge(request: bytes, *, logs: Mapping[str, Sequence[LogKey]], seen: Callable[[str], Seen]) -> Answer:
    """What to answer. `logs` are the keys by which heads of an origin may be signed, at least one each; `seen` gives
    what was cosigned last of an origin, and nobody may change that until this is kept."""
    try:
        old, steps, note = _read(request)  # 1
    except ValueError as error:
        return Answer(status=400, body=f"{error}\n")
    origin = note.split(b"\n", 1)[0].decode("utf-8", "replace")
    keys = logs.get(origin)
    if not keys:  # 2
        return Answer(status=404, body="this log is not witnessed here\n")
    try:
        head = _signed(note, keys)  # 3
    except ValueError as error:
        return Answer(status=403, body=f"the checkpoint: {error}\n")
    if old > head.size:  # 4
        return Answer(status=400, body="the old size is larger than the checkpoint's\n")
    last = seen(origin)
    if old != last.size:  # 5
        return Answer(status=409, body=f"{last.size}\n", kind=_SIZE_TYPE)
    if old and not merkle.consistent(old=old, old_root=last.root, size=head.size, root=head.root, path=steps):  # 6
        return Answer(status=422, body="the proof does not show that the old head is a beginning of this one\n")
    if not old and steps:
        return Answer(status=422, body="from size 0 there is nothing to prove\n")
    if not head.size and head.root != merkle.Range(0, ()).root():
        return Answer(status=422, body="an empty log has another root\n")
    return Answer(status=200, origin=origin, head=head)


def cosignature(key: WitnessKey, sign: Callable[[bytes], bytes], head: Checkpoint, origin: str, now: int) -> str:
    """The signature line for a head that was kept. `now` is in whole seconds."""
    signature = sign(message(key, head, origin, now))
    encoded = base64.b64encode(key.id + now.to_bytes(8, "big") + signature).decode()
    return f"— {key.name} {encoded}\n"


def _signed(note: bytes, keys: Sequence[LogKey]) -> Checkpoint:
    """The head, signed by any of the keys: while a log changes its key, a witness may know both. Raises ValueError."""
    for each in keys[:-1]:
        with contextlib.suppress(ValueError):
            return checkpoint(note, each)
    return checkpoint(note, keys[-1])


def _read(request: bytes) -> tuple[int, list[bytes], bytes]:
    head, blank, note = request.partition(b"\n\n")
    first, *others = head.decode("ascii", "replace").split("\n")
    old = _OLD.fullmatch(first)
    if old is None or not blank or len(others) > _MAX_STEPS:
        raise ValueError("expected `old <size>`, at most 63 hashes, an empty line and a checkpoint")
    steps = []
    for line in others:
        try:
            step = base64.b64decode(line, validate=True)
        except (binascii.Error, ValueError):
            step = b""
        if len(step) != 32 or base64.b64encode(step).decode() != line:
            raise ValueError("a proof line is no hash in base64")
        steps.append(step)
    return int(old[1]), steps, note
