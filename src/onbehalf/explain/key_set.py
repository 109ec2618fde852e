"""The public keys that are in force, as a fact for the record: the log's own, call tokens', backends' for receipts.

Public halves and times only. Must not hold where keys come from, or when a change is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onbehalf.model import AuditEntry, Json, UnixTime, digest

__all__ = ["CallKey", "changed", "key_set"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallKey:
    """A key of call tokens: whether it will sign, signs or signed, since when it is published, or until when at most.

    A time that is not known is 0.
    """

    kid: str
    state: Literal["next", "current", "former"]
    since: int = 0
    until: int = 0

    def told(self) -> dict[str, Json]:
        """As plain JSON, without what is not known."""
        times: dict[str, Json] = {"since": self.since} if self.since else {}
        if self.until:
            times["until"] = self.until
        return {"kid": self.kid, "state": self.state, **times}


def key_set(
    *, log: Sequence[str], calls: Sequence[CallKey], receipts: Mapping[str, Mapping[str, str]]
) -> dict[str, Json]:
    """The keys as one fact. `log` are vkeys; `receipts` are, by upstream, key ids with their public key (JWK `x`)."""
    named: list[Json] = [digest(each.encode()) for each in log]
    told: list[Json] = [each.told() for each in calls]
    backends: dict[str, Json] = {name: dict[str, Json](sorted(keys.items())) for name, keys in sorted(receipts.items())}
    return {"log": named, "calls": told, "receipts": backends}


def changed(before: Json, after: Mapping[str, Json], *, at: UnixTime) -> AuditEntry | None:
    """That the keys are others than those last recorded; None where they are the same."""
    if before == dict(after):
        return None
    return AuditEntry(kind="key_change", call="", at=at, facts={"before": before, "key_set": dict(after)})
