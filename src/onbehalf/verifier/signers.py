"""Who signed the newest head, beside the log's Ed25519 key: witnesses, a policy's quorum, the log's ML-DSA-44 key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onbehalf.verifier.cosign import WitnessKey, cosigned_at, witness_key
from onbehalf.verifier.note import Checkpoint, LogKey, log_key
from onbehalf.verifier.policy import Policy
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Quorum, Report

__all__ = ["Demanded", "LogKeys", "chosen", "demanded", "log_keys", "look", "require", "without_own"]

_SHORT = 200
"""An Ed25519 signature with its key's id is 92 letters, one with ML-DSA-44 3,244."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKeys:
    """A log's keys: Ed25519, and ML-DSA-44 where it is known."""

    key: LogKey
    also: WitnessKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demanded:
    """What the caller demands of the newest head: the log's keys, witnesses one by one, a policy."""

    log: LogKeys | None = None
    witnesses: tuple[WitnessKey, ...] = ()
    policy: Policy | None = None


def log_keys(text: str) -> LogKeys:
    """The keys of log.pub: a line with an Ed25519 vkey, and perhaps one with an ML-DSA-44 vkey. Raises Unusable."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 2:
        raise Unusable("expected the one or two lines of log.pub")
    key = log_key(lines[0] if lines else "")
    also = witness_key(lines[1]) if len(lines) == 2 else None
    if also is not None and (also.kind != 6 or also.name != key.name):
        raise Unusable("the second line of the log's keys is no ML-DSA-44 vkey of the same name")
    return LogKeys(key=key, also=also)


def demanded(key: str, witnesses: Sequence[str], policy: Policy | None) -> Demanded:
    """What is demanded, parsed. Raises Unusable."""
    return Demanded(
        log=log_keys(key) if key else None, witnesses=tuple(witness_key(each) for each in witnesses), policy=policy
    )


def chosen(asked: Demanded, brought: LogKeys, report: Report) -> LogKeys:
    """By which keys the log is checked: those given, else those that the policy lists for it, else the bundle's own."""
    policy, log, name = asked.policy, asked.log, brought.key.name
    if log is None and policy is not None:
        keys = [each for each in policy.logs if each.name == name]
        also = next((each for each in policy.also if each.name == name), None)
        if keys or also is not None:
            key = brought.key if not keys or brought.key.text in [each.text for each in keys] else keys[0]
            log = LogKeys(key=key, also=also)
    given = log is not None
    log = log or brought
    report.key, report.pinned = log.key.text, given
    return log


def require(asked: Demanded, brought: LogKeys, keys: Sequence[LogKeys], report: Report) -> None:
    """See that the bundle's key is the newest of the log's `keys`, and that the policy lists one of those."""
    policy = asked.policy
    if keys[-1].key.text != brought.key.text:
        text = f"it brings the key {brought.key.text}, not the one you gave"
        report.found("key_other", "keys.json", text)
    if policy is not None and (policy.logs or policy.also) and not any(_listed(policy, each) for each in keys):
        report.found("log_unlisted", "keys.json", "your policy lists logs, and this one is none of them")


def _listed(policy: Policy, log: LogKeys) -> bool:
    return any((each.name, each.public) == (log.key.name, log.key.public) for each in policy.logs) or (
        log.also is not None and any(each.public == log.also.public for each in policy.also)
    )


def look(report: Report, end: Checkpoint, log: LogKeys, asked: Demanded) -> None:
    """Note who signed the newest head, whether that is enough, and who else says that they did."""
    known = set()

    def at(key: WitnessKey) -> int | None:
        known.add((key.name, key.id))
        try:
            return cosigned_at(end, key, log.key.name)
        except ValueError as error:
            report.found("cosignature_invalid", "checkpoint", str(error))
            return None

    if log.also is not None:
        report.own_signature = at(log.also) is not None
    for witness in asked.witnesses:
        report.witnesses[witness.name] = at(witness)
    if asked.policy is not None:
        times = {name: at(key) for name, key in asked.policy.witnesses.items()}
        signed = {name for name, when in times.items() if when is not None}
        told = {name.decode("utf-8", "replace"): when for name, when in times.items() if when is not None}
        quorum = asked.policy.quorum.decode("utf-8", "replace")
        report.quorum = Quorum(name=quorum, met=asked.policy.enough(signed), cosigned=told)
    report.others = tuple(name for name, each in end.signatures if (name, each[:4]) not in known)


def without_own(note: bytes, origin: str) -> bytes:
    """The file `checkpoint` without the log's ML-DSA-44 line, which whoever has that key could make anew at will."""
    own = f"— {origin} ".encode()
    lines = note.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(own) or len(line) - len(own) < _SHORT)
