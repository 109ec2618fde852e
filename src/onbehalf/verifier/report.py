"""What a check found, for people and as JSON, and the exit code that says it in a number."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from onbehalf.verifier.complete import Statement

__all__ = ["Finding", "KeySpan", "Past", "Quorum", "Report", "Verdict"]

_MAX_FINDINGS = 1000
_SHOWN = 20


class Verdict(enum.IntEnum):
    """The exit code: the worst that is so, in this order: diverged, invalid, unpinned, incomplete, erased, unknown,
    verified."""

    verified = 0
    invalid = 1
    unusable = 2
    diverged = 3
    unpinned = 4
    erased = 5
    unknown = 6
    incomplete = 7


_SAID = {
    Verdict.verified: "Everything in this bundle holds, under a key that you gave.",
    Verdict.invalid: "DO NOT RELY ON THIS BUNDLE: something in it does not hold.",
    Verdict.unusable: "This is no bundle that could be judged.",
    Verdict.diverged: "THE LOG WAS FORKED OR CUT BACK: of two heads that it signed, one is no beginning of the other.",
    Verdict.unpinned: "All holds, but under the bundle's own key, or without a signature that you demand.",
    Verdict.erased: "Everything that is here holds; some of what was to be opened is erased.",
    Verdict.incomplete: "Everything here holds; a backend's own record, which you gave, does not agree with it.",
    Verdict.unknown: "Everything here holds; of some calls the record does not say how they ended.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that does not hold. `index` is the leaf's, -1 where it is about a file as a whole."""

    code: str
    place: str
    text: str
    index: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Quorum:
    """What a policy says of the newest head: whether enough of its witnesses cosigned it, and who did when."""

    name: str
    met: bool
    cosigned: dict[str, int]


@dataclass(frozen=True, slots=True)
class KeySpan:
    """Which heads a key of the log signs: those of `first` to `last` leaves; no last one is known of the newest key."""

    vkey: str
    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier head of this log. `at` is when enough of the policy's witnesses had cosigned it, in seconds since
    1970; None where they are not enough, or no policy was given."""

    size: int
    at: int | None


@dataclass(slots=True, kw_only=True)
class Report:
    """All that was seen. Texts from the bundle are in here as they are; `text` makes them fit for a terminal."""

    origin: str = ""
    key: str = ""
    keys: list[KeySpan] = field(default_factory=list)
    pinned: bool = False
    size: int = 0
    start: int = 0
    end: int = 0
    asked: dict[str, str] = field(default_factory=dict)
    summary: dict[str, object] = field(default_factory=dict)
    answered_before: int = 0
    opened: int = 0
    erased: int = 0
    erasures: list[dict[str, object]] = field(default_factory=list)
    receipts: int = 0
    sampled: tuple[int, int] | None = None
    """How many calls a seed chose, and of how many."""
    replay: dict[str, object] | None = None
    call_tokens: dict[str, int] | None = None
    policies: dict[str, bool] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    witnesses: dict[str, int | None] = field(default_factory=dict)
    quorum: Quorum | None = None
    past: list[Past] = field(default_factory=list)
    witnessed: int = 0
    """How many opened outcomes say that their call was witnessed before it was sent."""
    unshown: list[int] = field(default_factory=list)
    """Intents of those whose head is not here with the policy's quorum; all of them where no policy was given."""
    own_signature: bool | None = None
    """Whether the log signed the newest head by its ML-DSA-44 key too; None where that key was not given."""
    others: tuple[str, ...] = ()
    statements: list[Statement] = field(default_factory=list)
    diverged: bool = False
    findings: list[Finding] = field(default_factory=list)
    more: int = 0

    def found(self, code: str, place: str, text: str, index: int = -1) -> None:
        """Take note of what does not hold."""
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(code=code, place=place, text=text, index=index))
        else:
            self.more += 1

    @property
    def verdict(self) -> Verdict:
        if self.diverged:
            return Verdict.diverged
        if self.findings:
            return Verdict.invalid
        if not self.pinned or None in self.witnesses.values() or self.own_signature is False:
            return Verdict.unpinned
        if self.quorum is not None and not self.quorum.met:
            return Verdict.unpinned
        if any(each.by == "records" and not each.complete for each in self.statements):
            return Verdict.incomplete
        if self.erased:
            return Verdict.erased
        return Verdict.unknown if self.summary["open"] or self.summary["unknown"] else Verdict.verified

    def as_json(self) -> dict[str, object]:
        """The report as plain JSON."""
        return {
            "verdict": self.verdict.name, "exit": int(self.verdict), "origin": self.origin,
            "key": {"vkey": self.key, "pinned": self.pinned},
            "keys": [{"vkey": each.vkey, "heads_from": each.first, "heads_to": each.last} for each in self.keys],
            "size": self.size,
            "range": {"from": self.start, "to": self.end}, "asked": self.asked, "summary": self.summary,
            "answered_before_range": self.answered_before, "opened_facts": self.opened, "erased": self.erased,
            "erasures": self.erasures, "receipts": self.receipts,
            "sample": None if self.sampled is None else {"calls": self.sampled[0], "of": self.sampled[1]},
            "replay": self.replay, "call_tokens": self.call_tokens,
            "policies": self.policies, "heads": self.heads,
            "complete": [each.as_json() for each in self.statements],
            "witnesses": self.witnesses, "quorum": self._quorum(), "log_ml_dsa_44": self.own_signature,
            "past_heads": [{"size": each.size, "quorum_at": each.at} for each in self.past],
            "witnessed": {"calls": self.witnessed, "not_shown": self.unshown},
            "signers_not_checked": list(self.others),
            "findings": [
                {"code": each.code, "place": each.place, "index": each.index, "text": each.text}
                for each in self.findings
            ],
            "findings_not_listed": self.more,
        }  # fmt: skip

    def _quorum(self) -> dict[str, object] | None:
        of = self.quorum
        return None if of is None else {"name": of.name, "met": of.met, "cosigned": of.cosigned}

    def as_text(self) -> str:
        """The report for people, without a character that a terminal would obey."""
        said = [f"{self.verdict.name.upper()} ({int(self.verdict)}): {_SAID[self.verdict]}", ""]
        said += [f"  {each.place}{f' leaf {each.index}' if each.index >= 0 else ''}: {each.text} ({each.code})"
                 for each in self.findings[:_SHOWN]]  # fmt: skip
        hidden = len(self.findings) - _SHOWN + self.more
        said += [f"  … and {hidden} more (--json lists up to {_MAX_FINDINGS})"] if hidden > 0 else []
        whose = "which you gave" if self.pinned else "TAKEN FROM THE BUNDLE: compare it with one you got elsewhere"
        said += [f"log        {self.origin}, {self.size} leaves under the head", f"key        {self.key}, {whose}"]
        said += [_spanned(each) for each in self.keys if len(self.keys) > 1]
        said += [f"leaves     {self.start} to {self.end - 1}" if self.end > self.start else "leaves     none"]
        said += (
            [f"asked for  {', '.join(f'{name} {value}' for name, value in self.asked.items())}"] if self.asked else []
        )
        said += self._told()
        said += [line for each in self.statements for line in self._stated(each)]
        said += [f"head       {each}" for each in self.heads]
        for name, at in self.witnesses.items():
            said.append(
                f"witness    {name}: {'DID NOT COSIGN' if at is None else f'cosigned the newest head {_time(at)}'}"
            )
        if self.own_signature is not None:
            said.append(f"ML-DSA-44  {'signed by the log too' if self.own_signature else 'NOT SIGNED BY THE LOG'}")
        if self.quorum is not None:
            enough = "is enough" if self.quorum.met else "IS NOT ENOUGH"
            by = ", ".join(f"{name} {_time(at)}" for name, at in self.quorum.cosigned.items()) or "nobody"
            said.append(f"policy     cosigned by {by}: {enough} for the quorum `{self.quorum.name}`")
        said += self._looked_back()
        said += [f"not checked: signatures by {', '.join(self.others)}"] if self.others else []
        return "\n".join(_plain(line) for line in said)

    def _looked_back(self) -> list[str]:
        """What existed when, by the quorum's clocks, and whether witnessed calls are shown to be so."""
        existed = [each for each in self.past if each.at is not None]
        said = [f"           {len(self.past)} earlier heads, each a beginning of the newest"] if self.past else []
        said += [
            f"existed    leaves before {each.size} at {_time(each.at)}, by the quorum" for each in existed[:_SHOWN]
        ]
        said += [f"           … and {len(existed) - _SHOWN} more (--json)"] if len(existed) > _SHOWN else []
        if self.witnessed:
            what = f"witnessed  {self.witnessed} calls before they were sent, say their outcomes"
            if self.quorum is None:
                said.append(f"{what}; give --policy to see it shown")
            elif not self.unshown:
                said.append(f"{what}: for each the head is here with the quorum")
            else:
                named = ", ".join(map(str, self.unshown[:_SHOWN]))
                said.append(f"{what}: NOT SHOWN for intents {named}{' …' if self.unshown[_SHOWN:] else ''}")
        return said

    def _stated(self, said: Statement) -> list[str]:
        """Whether nothing is off the record towards one backend, or what stands against saying so."""
        name = said.backend or f"channel {said.channel}"
        span = f"leaves {said.start} to {said.end - 1}" if said.end > said.start else "no leaf"
        if said.complete and said.by == "records":
            counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in said.counts.items())
            return [f"complete   {name}: {span}, at grade {said.grade}, by the backend's own record ({counts})"]
        if said.complete:
            leaf = said.counts["leaf"]
            return [f"complete   {name}: {span}, at grade {said.grade}: SO SAYS THE GATEWAY, in leaf {leaf}"]
        lines = [f"complete   {name}: NOT SHOWN for {span}"]
        lines += [f"           {each}" for each in said.reasons[:_SHOWN]]
        hidden = len(said.reasons[_SHOWN:]) + said.more
        return [*lines, f"           … and {hidden} more (--json)"] if hidden else lines

    def _told(self) -> list[str]:
        summary, said = self.summary, list[str]()
        kinds = summary.get("kinds")
        if isinstance(kinds, dict):
            said.append(f"kinds      {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items())) or 'none'}")
        if isinstance(summary.get("first_at"), int) and isinstance(summary.get("last_at"), int):
            said.append(f"time       {_time(summary['first_at'])} to {_time(summary['last_at'])}, as the gateway says")
        gap = summary.get("longest_gap")
        if isinstance(gap, dict):
            said.append(f"silence    at most {gap['seconds']} s, before leaf {gap['before']}")
        for name, what in (
            ("open", "calls without outcome in this range: intents"),
            ("unknown", "calls of unknown end: intents"),
        ):
            listed = summary.get(name)
            if isinstance(listed, list) and listed:
                said.append(
                    f"{name:<10} {what} {', '.join(map(str, listed[:_SHOWN]))}{' …' if listed[_SHOWN:] else ''}"
                )
        if self.answered_before:
            said.append(f"before     {self.answered_before} outcomes of intents that lie before this range")
        said.append(f"opened     {self.opened} facts, {self.erased} leaves erased, {self.receipts} backend receipts")
        said += [_erasure(each) for each in self.erasures[:_SHOWN]]
        if self.sampled is not None:
            whose = "the seed" if self.asked.get("seed") else "the head and its cosignatures"
            said.append(
                f"sample     {self.sampled[0]} of {self.sampled[1]} calls, chosen by {whose}; each is opened in full"
                if not self.findings
                else "sample     see above"
            )
        if self.replay is not None:
            said.append(f"replayed   {_counted(self.replay)}")
        if self.call_tokens is not None:
            said.append(f"tokens     {_counted(self.call_tokens)}")
        missing = sorted(each for each, here in self.policies.items() if not here)
        said.append(f"policies   {len(self.policies) - len(missing)} bundles that decisions name are here")
        said += [f"           not here: {each}" for each in missing[:_SHOWN]]
        return said


def _spanned(each: KeySpan) -> str:
    if each.last is None:
        return f"           heads from {each.first} leaves on by {each.vkey}"
    return f"           heads of {each.first} to {each.last} leaves by {each.vkey}, leaf {each.last} names the next"


def _erasure(each: dict[str, object]) -> str:
    leaf, scope = each["leaf"], each["scope"]
    if leaf is None:
        return f"erased     {each['here']} leaves here, by no leaf that the bundle names"
    if each["at"] is None:
        return f"erased     {each['here']} leaves here, by leaf {leaf}, which lies outside of the range"
    text = f"erased     {each['here']} leaves here, {_time(each['at'])}, by leaf {leaf}"
    if isinstance(scope, dict):
        what = f"before {_time(scope['before'])}" if scope["before"] else f"{scope['keys']} keys"
        text += f", which tells of {scope['count']} between {scope['first']} and {scope['last']} ({what})"
    return text


def _counted(counts: Mapping[str, object]) -> str:
    """Counts as words; what else stands among them as it is."""
    named = [
        f"{name.replace('_', ' ')} {each}" if isinstance(each, str) else f"{each} {name.replace('_', ' ')}"
        for name, each in counts.items()
        if isinstance(each, int | str) and (each or name in ("same", "differs", "given"))
    ]
    return ", ".join(named)


def _time(at: object) -> str:
    try:
        return datetime.fromtimestamp(int(str(at)), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at} s"


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else "�" for each in text)
