"""A call's records as sentences: who, what, why, what came back, and where it is on record."""

from __future__ import annotations

import orjson
import pytest

from onbehalf.explain.leaf import Record
from onbehalf.explain.story import story
from onbehalf.model import Digest, Json, UnixTime

LEAF = Digest("sha256:" + "0" * 64)
ABOUT: dict[str, Json] = {
    "caller": {
        "subject": "u-1", "tenant": "acme", "client": "chatgpt", "actors": ["agent-7"], "scopes": [],
        "issuer": "https://idp.example", "key": "k1", "algorithm": "EdDSA", "token": "sha256:1",
    },
    "person": {"id": "acme/alice", "name": "Alice Kim", "revision": 3},
    "tool": {"name": "list_reviews", "upstream": "hr", "action": "list", "definition": "d", "writes": False},
    "arguments": {"team": "platform", "note": "a\nOn record as outcome 9"},
    "via": {"agent": "ChatGPT/1.0", "protocol": "2026-07-28"},
}  # fmt: skip
ALLOW: Json = {
    "effect": "allow", "policies": ["manager_reads"], "policy": "sha256:" + "a" * 64, "revision": 3,
    "resource": {"type": "Review", "id": "acme/r1"},
}  # fmt: skip
DENY: Json = {
    "effect": "deny", "code": "not_permitted", "text": "no permit held", "remedy": "ask the person's manager",
    "policy": "sha256:" + "a" * 64, "revision": 3, "resource": {"type": "Review", "id": "acme/r9"},
    "candidates": [{
        "policy": "manager_reads", "effect": "permit", "doc": "managers read their team's reviews", "remedy": "",
        "conjuncts": [
            {"text": "principal has position", "holds": True}, {"text": "resource in team", "holds": False},
            {"text": "context.now < 5", "holds": None},
        ],
    }],
}  # fmt: skip


def record(index: int, kind: str, facts: dict[str, Json], *, erased: bool = False) -> Record:
    return Record(
        index=index, leaf=LEAF, kind=kind, call="call_1", at=UnixTime(1_700_000_000), facts=facts, erased=erased
    )


def outcome(index: int, of: int, kind: str = "outcome", **facts: Json) -> Record:
    return record(index, kind, {"intent": {"index": of, "leaf": LEAF}, **facts})


INTENT = record(4, "intent", {**ABOUT, "decision": ALLOW})
DONE: Json = {"status": "done", "code": "", "message": "", "unknown": False}


def test_done_call_is_told_from_caller_to_rows() -> None:
    rows: Json = {"returned": 5, "released": 2, "withheld": 3, "ids": ["acme/r1", "acme/r2"]}
    told = story([INTENT, outcome(5, 4, outcome=DONE, rows=rows)])
    text = told.as_text()
    assert told.ending == "done"
    assert text.startswith("Alice Kim (acme/alice) of tenant acme called through the client chatgpt")
    assert "acting through agent-7" in text
    assert 'list_reviews of hr (it reads) with team = "platform"' in text
    assert 'Allowed on Review::"acme/r1" by the policy manager_reads' in text
    assert "5 rows came back, 2 were released (acme/r1, acme/r2), 3 were withheld by policy." in text
    assert "On record as intent 4, 2023-11-14 22:13:20 UTC" in text


def test_what_policies_demanded_is_told_with_the_decision_and_with_what_came_back() -> None:
    demands: Json = [
        {"policy": "p1", "columns": ["a", "b"], "mask": {"b": "hash"}, "max_rows": 2, "purpose": ["x", "y"]},
        {"policy": "p2", "approve": ["manager"]},
    ]
    intent = record(4, "intent", {**ABOUT, "decision": {**ALLOW, "obligations": demands}})  # type: ignore[dict-item]
    rows: Json = {"returned": 5, "released": 2, "withheld": 0, "cut": 3, "ids": ["r1", "r2"], "purposes": ["x"]}
    applied: Json = [{"policy": "p1", "max_rows": 2, "rows": 2}]
    lines = [line.text for line in story([intent, outcome(5, 4, outcome=DONE, rows=rows, obligations=applied)]).lines]
    assert "p1 demands only the fields a, b; b as hash; at most 2 rows; the purpose x or y" in lines
    assert "p2 demands the approval of manager" in lines
    assert "p1 had at most 2 rows: in 2 rows" in lines
    [came_back] = [line for line in lines if "came back" in line]
    assert came_back.endswith(
        "0 were withheld by policy; 3 more were permitted and over the most that may be released. "
        "They may be used for x only."
    )


def test_denial_is_told_condition_by_condition_with_its_remedy() -> None:
    told = story([record(4, "denial", {**ABOUT, "decision": DENY})])
    text = told.as_text()
    assert told.ending == "denied"
    for part in ("- principal has position: held", "- resource in team: did not hold",
                 "- context.now < 5: could not be evaluated", "What to do: ask the person's manager.",
                 "“managers read their team's reviews”"):  # fmt: skip
        assert part in text


def test_refusal_before_a_decision_is_told_without_a_person() -> None:
    decision: Json = {"effect": "deny", "code": "unknown_tool", "text": "no tool `x`", "remedy": ""}
    told = story([record(1, "denial", {"caller": ABOUT["caller"], "tool": {"name": "x"}, "decision": decision})])
    assert told.ending == "denied"
    assert "Subject u-1" in told.as_text()
    assert "Denied (unknown_tool): no tool `x`." in told.as_text()


def test_lookup_is_told_as_an_aside_and_does_not_end_the_call() -> None:
    lookup = record(2, "intent", {**ABOUT, "decision": ALLOW, "purpose": "lookup"})
    denied = record(4, "denial", {**ABOUT, "decision": DENY})
    told = story([lookup, outcome(3, 2, outcome=DONE), denied])
    assert told.ending == "denied"
    assert "first looked the resource up with the tool list_reviews" in told.as_text()
    assert "The lookup was answered." in told.as_text()


def test_a_preview_is_told_as_tried_and_taken_back_and_never_as_done() -> None:
    tried = record(2, "intent", {**ABOUT, "decision": ALLOW, "purpose": "preview"})
    rows: Json = {"returned": 3, "released": 3, "withheld": 0, "ids": ["acme/1"]}
    told = story([tried, outcome(3, 2, outcome=DONE, rows=rows)])
    assert told.ending == "tried"
    assert "had it tried and taken back with the tool list_reviews" in told.as_text()
    assert "It was tried and taken back: 3 rows would change, 3 of them permitted." in told.as_text()
    assert "It was done" not in told.as_text()
    then = record(4, "intent", {**ABOUT, "decision": ALLOW, "expected": "sha256:1"})
    told = story([tried, outcome(3, 2, outcome=DONE, rows=rows), then, outcome(5, 4, outcome=DONE)])
    assert told.ending == "done"
    assert "only if the same would change as when it was tried" in told.as_text()


def test_a_dry_run_is_told_as_what_it_is_and_promises_nothing_that_only_the_api_could() -> None:
    tool: Json = {"name": "orders_close", "upstream": "shop", "writes": True, "bound": ["dry"], "dry_run": "dry"}
    about: dict[str, Json] = {**ABOUT, "decision": ALLOW, "tool": tool}
    tried = record(2, "intent", {**about, "arguments": {"id": "7", "dry": True}, "purpose": "preview"})
    rows: Json = {"returned": 3, "released": 2, "withheld": 1, "ids": ["acme/1"]}
    told = story([tried, outcome(3, 2, outcome=DONE, rows=rows)])
    assert told.ending == "tried"
    assert "the gateway asked for a dry run of the tool orders_close of shop (it writes) with id = " in told.as_text()
    assert "the gateway set dry = true" in told.as_text()
    assert "changes nothing: 3 rows would change, 2 of them permitted." in told.as_text()
    assert "taken back" not in told.as_text()
    assert "its answer is mapped to no rows" in story([tried, outcome(3, 2, outcome=DONE)]).as_text()
    then = record(4, "intent", {**about, "arguments": {"id": "7"}, "expected": "sha256:1"})
    told = story([tried, outcome(3, 2, outcome=DONE), then, outcome(5, 4, outcome=DONE)])
    assert told.ending == "done"
    assert "after the dry run right before it" in told.as_text()
    assert "only if the same would change" not in told.as_text()
    failed: Json = {"status": "failed", "code": "upstream_unavailable", "message": "HTTP status 500", "unknown": False}
    assert story([tried, outcome(3, 2, outcome=failed)]).ending == "failed"


def test_a_scoped_call_says_what_rows_were_asked_for() -> None:
    scope: Json = {"predicate": 'scoped."tenant" = :scope_0', "parameters": ["scope_0"]}
    told = story([record(4, "intent", {**ABOUT, "decision": ALLOW, "scope": scope}), outcome(5, 4, outcome=DONE)])
    assert 'only rows were asked for where scoped."tenant" = :scope_0' in told.as_text()


def test_failure_unknown_and_open_calls_say_so() -> None:
    failed: Json = {"status": "failed", "code": "timeout", "message": "no answer in 5 s", "unknown": False}
    unsure: Json = {"status": "failed", "code": "timeout", "message": "no answer in 5 s", "unknown": True}
    lost: Json = {"status": "unknown", "code": "interrupted", "message": "the gateway stopped", "unknown": True}
    assert story([INTENT, outcome(5, 4, outcome=failed)]).ending == "failed"
    assert story([INTENT, outcome(5, 4, outcome=unsure)]).ending == "unknown"
    told = story([INTENT, outcome(5, 4, "unknown", outcome=lost)])
    assert told.ending == "unknown"
    assert "not known whether this was done: the gateway stopped" in told.as_text()
    assert story([INTENT]).ending == "open"
    assert "No outcome is on record" in story([INTENT]).as_text()


def test_arguments_cannot_write_a_line_of_their_own() -> None:
    lines = story([INTENT]).as_text().splitlines()
    assert not any(line.startswith("On record as outcome 9") for line in lines)


def test_erased_record_is_told_as_erased() -> None:
    assert "cannot be read here" in story([record(4, "intent", {}, erased=True)]).as_text()


def test_story_is_plain_json_and_an_empty_one_is_a_story() -> None:
    assert orjson.loads(orjson.dumps(story([INTENT]).as_json()))["ending"] == "open"
    assert story([]).ending == "none"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"outcome": DONE}, "The gateway saw the answer: grade R1."),
        ({"outcome": DONE, "backend_receipt": "x.y.z"}, "The backend signed for its answer: grade R3."),
        (
            {"outcome": {"status": "failed", "code": "x", "message": "m", "unknown": True}},
            "Nobody saw an answer: grade R0.",
        ),
    ],
)
def test_an_outcome_says_how_well_it_is_known(facts: dict[str, Json], said: str) -> None:
    lines = [line.text for line in story([INTENT, outcome(5, 4, **facts)]).lines]
    assert [line for line in lines if "grade" in line] == [said]
