"""Heads of the past in a bundle, and what the quorum of a policy says by them: so many leaves existed at that time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onbehalf.verifier import merkle
from onbehalf.verifier.archive import Archive
from onbehalf.verifier.cosign import WitnessKey, cosigned_at
from onbehalf.verifier.handovers import Succession
from onbehalf.verifier.manifest import HEX
from onbehalf.verifier.note import Checkpoint
from onbehalf.verifier.policy import Policy
from onbehalf.verifier.report import Past, Report
from onbehalf.verifier.strict import strict
from onbehalf.verifier.witnessed import LISTED, Witnessed

__all__ = ["PastHead", "look_back", "read_past"]

_FILE = "heads.jsonl"
_MAX_HEAD = 1 << 19
_MOST = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class PastHead:
    """A head that the log signed. `proof` is to show that it is a beginning of the newest; empty within the range."""

    head: Checkpoint
    proof: list[bytes]


def read_past(archive: Archive, log: Succession, report: Report) -> list[PastHead]:
    """The heads, signed by the key of their time. What does not hold is found, and left out."""
    found: list[PastHead] = []
    lines = archive.lines(_FILE, limit=_MAX_HEAD) if _FILE in archive.names else ()
    for number, line in enumerate(lines, start=1):
        try:
            if number > _MOST:
                raise ValueError("there are more than any bundle has")
            said = strict(line, depth=2)
            if not isinstance(said, dict) or said.keys() != {"note", "proof"} or not isinstance(said["note"], str):
                raise ValueError("it is no head with its proof")
            proof = said["proof"]
            if not isinstance(proof, list) or len(proof) > 128 or not all(_hash(each) for each in proof):
                raise ValueError("its proof is no list of hashes")
            head, ended = log.head(said["note"].encode())
            if ended >= 0:
                raise ValueError(f"a key signed it that has signed no head since that of {ended} leaves")
            if found and head.size <= found[-1].head.size:
                raise ValueError("it is not larger than the one before it")
            found.append(PastHead(head=head, proof=[bytes.fromhex(each) for each in proof]))
        except ValueError as error:
            report.found("past_head_invalid", _FILE, f"line {number}: {error}")
            if number > _MOST:
                break
    return found


def look_back(
    past: list[PastHead], end: Checkpoint, roots: Mapping[int, bytes], *, policy: Policy | None, claims: Witnessed,
    report: Report,
) -> None:  # fmt: skip
    """Whether each head is a beginning of the newest, `end`, and what the policy's quorum says by it.

    `roots` are what the leaves themselves have, by size.
    """
    shown: set[int] = set()
    for each in past:
        head, place = each.head, f"{_FILE}, the head of {each.head.size} leaves"
        same = roots.get(head.size)
        if same is not None and same != head.root:
            report.diverged = True
            report.found("head_diverged", place, "its root is another than this log's")
        elif same is None and not merkle.consistent(
            old=head.size, old_root=head.root, size=end.size, root=end.root, path=each.proof
        ):
            report.found("head_unproven", place, "it is not shown to be a beginning of the newest")
        else:
            at = _quorum_at(head, report.origin, policy, place, report) if policy is not None else None
            report.past.append(Past(head.size, at))
            shown |= {head.size} if at is not None else set()
    if policy is not None and report.quorum is not None and report.quorum.met:
        shown.add(end.size)
    report.witnessed = claims.count
    report.unshown = sorted(
        intent for size, intents in claims.intents.items() if size not in shown for intent in intents
    )[:LISTED]


def _quorum_at(head: Checkpoint, origin: str, policy: Policy, place: str, report: Report) -> int | None:
    """The first time at which enough had cosigned this head; None where they are not enough."""
    times: dict[bytes, int] = {}
    for name, key in policy.witnesses.items():
        when = _cosigned(head, key, origin, place, report)
        if when is not None:
            times[name] = when
    for until in sorted(times.values()):
        if policy.enough({name for name, when in times.items() if when <= until}):
            return until
    return None


def _cosigned(head: Checkpoint, key: WitnessKey, origin: str, place: str, report: Report) -> int | None:
    try:
        return cosigned_at(head, key, origin)
    except ValueError as error:
        report.found("cosignature_invalid", place, str(error))
        return None


def _hash(each: object) -> bool:
    return isinstance(each, str) and HEX.fullmatch(each) is not None
