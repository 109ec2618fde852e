"""Records of decisions as a reader gives them, and the two programs that make them again."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import cedarpy
import orjson

from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.explain import entries, tree
from onbehalf.explain.leaf import Record, make, open_payload, read, spell
from onbehalf.model import Allow, Ask, AuditEntry, Digest, Question, ToolCall, UnixTime
from onbehalf.replaying import Again, Replay
from onbehalf.validate import decide
from onbehalf.verifier.leaves import read_leaf
from onbehalf.verifier.replay import Replay as VerifierReplay

__all__ = ["again", "by_verifier", "decided", "obliged", "recorded", "replay_of"]

OBLIGATIONS = (
    '@scope("x")', '@scope("y,x")', '@purpose("audit")', '@purpose("audit,other")', '@acr("phr")', '@acr("phr,pwd")',
    '@max_age("300")', '@columns("id,tenant_id")', '@mask("status:hash, rating:null")', '@max_rows("7")',
    '@approve("manager")', '@approve("self")',
)  # fmt: skip


def recorded(made: Iterable[AuditEntry], *, start: int = 0) -> list[Record]:
    """What a reader gives for these entries: each went through its leaf and payload."""
    found = []
    for index, entry in enumerate(made, start=start):
        one = make(spell(entry), id_="0" * 32, salt=bytes(32))
        leaf = read(one.leaf)
        facts = open_payload(leaf, one.payload)
        hash_ = Digest(f"sha256:{tree.leaf_hash(one.leaf).hex()}")
        found.append(Record(index=index, leaf=hash_, kind=leaf.kind, call=leaf.call, at=UnixTime(leaf.at), facts=facts))
    return found


def decided(engine: CedarEngine, call: ToolCall, question: Question, besides: Any = ()) -> AuditEntry:
    """The record of a call that was decided on this question alone, as the corridor makes it."""
    decision = decide.decide(
        call, question=question, judgement=decide.owing(engine.judge(question), besides),
        candidates=lambda: engine.candidates(question), policy=engine.policy,
    )  # fmt: skip
    if isinstance(decision, Allow):
        return entries.intent(decision)
    if isinstance(decision, Ask):
        return entries.denial(decide.unapproved(decision, code="approval_required", remedy="r"))
    return entries.denial(decision)


def replay_of(engine: CedarEngine, *, other: CedarEngine | None = None) -> Replay:
    """The gateway's, with the engine's own bundle as the only one that is kept."""

    @cache
    def kept(named: str, action: str) -> CedarEngine | None:
        return CedarEngine.recorded(engine.spelled, actions=[action]) if named == engine.policy else None

    return Replay(kept, other=None if other is None else lambda _: other)


def again(engine: CedarEngine, record: Record) -> Again:
    found = _replays(engine)[0].again(record)
    assert found is not None
    return found


@cache
def _replays(engine: CedarEngine) -> tuple[Replay, VerifierReplay]:
    """Both programs for one bundle: to make one ready takes longer than a hundred questions to it."""
    bundle = VerifierReplay(cedarpy, lambda digest: engine.spelled if digest == engine.policy else None)
    return replay_of(engine), bundle


def by_verifier(engine: CedarEngine, record: Record) -> tuple[str, str]:
    """What the verifier says of one record, all of it opened: how it came out, and what it found."""
    made = _replays(engine)[1]
    before = dict(made.counts)
    facts = dict.fromkeys(sorted(record.facts), "0" * 64)
    text = orjson.dumps({"at": record.at, "call": record.call, "facts": facts, "id": "", "kind": record.kind, "v": 1})
    code, said = made.take(read_leaf(text), dict(record.facts), erased=False)
    [outcome] = [name for name, count in made.counts.items() if count != before[name]]
    return outcome, f"{code} {said}".strip()


def obliged(chance: random.Random, text: str) -> str:
    """The same policies, of which some permits demand something."""

    def some(found: re.Match[str]) -> str:
        kinds = {each.partition("(")[0]: each for each in chance.sample(OBLIGATIONS, chance.choice((0, 0, 1, 2)))}
        return f'@doc("d") {" ".join(kinds.values())} permit'

    return re.sub(r'@doc\("d"\) permit', some, text)
