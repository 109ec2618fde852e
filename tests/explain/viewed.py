"""Records to be looked at: made by the code that makes the log's, of facts like a gateway's or of any at all."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st

from onbehalf.explain.leaf import Leaf, make, read, spell
from onbehalf.explain.views import View, view
from onbehalf.model import AuditEntry, Json, UnixTime, canonical

LOG = "gateway.example.com/ledger"
AT = 1_790_000_000
CALLER: Json = {
    "subject": "u-1", "tenant": "acme", "client": "https://chat.example/client", "actors": [], "scopes": ["read"],
    "issuer": "https://login.example.com", "key": "k1", "algorithm": "ES256", "token": "sha256:" + "1" * 64,
}  # fmt: skip
ABOUT: dict[str, Json] = {
    "caller": CALLER,
    "person": {"id": "acme/alice", "name": "Alice Ngo", "revision": 3},
    "tool": {
        "name": "reviews_list", "upstream": "hr", "remote": "reviews_list", "action": "listReviews",
        "definition": "sha256:" + "2" * 64, "writes": False, "bound": [],
    },
    "arguments": {"team": "platform", "note": "CANARY-ARGUMENT"},
    "arguments_digest": "sha256:" + "3" * 64,
    "via": {"agent": "Chat/1.0", "protocol": "2026-07-28"},
}  # fmt: skip
ALLOW: Json = {
    "effect": "allow", "policies": ["team", "own"], "policy": "sha256:" + "a" * 64, "revision": 3,
    "resource": {"type": "Tool", "id": "acme/reviews_list"},
}  # fmt: skip
DENY: Json = {
    "effect": "deny", "code": "not_permitted", "text": "CANARY-TEXT is not yours", "remedy": "ask",
    "policy": "sha256:a", "revision": 3, "resource": {"type": "Review", "id": "acme/r9"}, "candidates": [],
}  # fmt: skip
ROWS: Json = {
    "returned": 3, "released": 2, "withheld": 1, "ids": ["acme/r1", "acme/r2"], "types": ["Review"],
    "people": ["acme/bob", "acme/carol"],
}  # fmt: skip
DONE: Json = {"status": "done", "code": "", "message": "", "unknown": False}
READ: dict[str, Json] = {
    "read": {
        "command": "audit export", "from": 0, "records": 7, "filters": {"person": "CANARY-ARGUMENT"},
        "purpose": "CANARY-TEXT",
    },
    "claimed_by": {"user": "root", "uid": 0, "host": "gateway-1", "sudo_user": "dana"},
}  # fmt: skip
INTENT: dict[str, Json] = {**ABOUT, "decision": ALLOW}
OUTCOME: dict[str, Json] = {
    "intent": {"index": 4, "leaf": "sha256:" + "4" * 64}, "outcome": DONE, "rows": ROWS,
    "result_digest": "sha256:" + "5" * 64,
}  # fmt: skip


def leaf_of(kind: str, facts: dict[str, Json], *, call: str = "call_" + "0" * 32, at: int = AT) -> Leaf:
    return read(entry_of(kind, facts, call=call, at=at))


def entry_of(kind: str, facts: dict[str, Json], *, call: str = "call_" + "0" * 32, at: int = AT) -> bytes:
    """A leaf as the log has it; an intent has its number."""
    entry = AuditEntry(kind=kind, call=call, at=UnixTime(at), facts=facts)
    place = ("0123456789abcdef", 12) if kind == "intent" else ("", 0)
    return make(spell(entry), id_="ab" * 16, salt=b"s" * 32, place=place).leaf


def seen(
    kind: str, facts: dict[str, Json], *, index: int = 5, payload: bool = False, intent: dict[str, Json] | None = None,
    erased: bool = False, **made: Any,
) -> View:  # fmt: skip
    leaf = leaf_of(kind, facts, **made)
    told = None if erased else _opened(facts)
    return view(leaf, told, log=LOG, index=index, payload=payload, intent=_opened(intent) if intent else None)


def _opened(facts: dict[str, Json]) -> dict[str, Json]:
    """Facts as they come out of a payload: read from their one spelling."""
    return {name: orjson.loads(canonical(value)) for name, value in facts.items()}


def company() -> dict[str, View]:
    """One of each kind that a gateway writes about calls."""
    failed: Json = {"status": "failed", "code": "upstream_failed", "message": "CANARY-MESSAGE", "unknown": False}
    unknown: Json = {"status": "unknown", "code": "interrupted", "message": "stopped", "unknown": True}
    refused: dict[str, Json] = {
        "caller": CALLER, "tool": {"name": "nothing\n|x=\\"}, "via": ABOUT["via"],
        "decision": {"effect": "deny", "code": "unknown_tool", "text": "CANARY-TEXT", "remedy": "look"},
    }  # fmt: skip
    waits: Json = {**ALLOW, "effect": "ask", "approvers": ["manager"], "obligations": []}  # type: ignore[dict-item]
    return {
        "intent": seen("intent", INTENT),
        "done": seen("outcome", OUTCOME, intent=INTENT),
        "failed": seen("outcome", {**OUTCOME, "outcome": failed}, intent=INTENT),
        "unknown": seen("unknown", {"intent": OUTCOME["intent"], "outcome": unknown}, intent=INTENT),
        "alone": seen("outcome", OUTCOME),
        "denial": seen("denial", {**ABOUT, "decision": DENY}),
        "refused": seen("denial", refused),
        "asked": seen("asked", {**ABOUT, "decision": waits}),
        "approval": seen("approval", {"caller": CALLER, "person": {"id": "acme/marta"}, "vote": "approved"}),
        "writes": seen("intent", {**INTENT, "tool": {**ABOUT["tool"], "writes": True}}),  # type: ignore[dict-item]
        "erased": seen("intent", INTENT, erased=True),
        "other": seen("heartbeat", {"beat": 7}, call=""),
        "read": seen("admin_read", READ, call=""),
        "payload": seen("intent", INTENT, payload=True),
    }


_scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False) | st.text()
_json = st.recursive(
    _scalars.filter(lambda each: not isinstance(each, float) or abs(each) < float("inf")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_NAMES = sorted(
    {*ABOUT, "decision", "rows", "outcome", "intent", "obligations", "vote", "expected", "other_fact", *READ}
)
_SHAPES = {**ABOUT, **READ, "decision": DENY, "rows": ROWS, "outcome": DONE}


def _odd(name: str) -> st.SearchStrategy[Json]:
    """Any value; or a gateway's with one member changed to any."""
    shape = _SHAPES.get(name)
    if not isinstance(shape, dict):
        return _json
    member = st.sampled_from(sorted(shape))
    return _json | st.builds(lambda key, value: {**shape, key: value}, member, _json)


@st.composite
def views(draw: st.DrawFn) -> View:
    """The view of any record that can be made."""

    def facts() -> dict[str, Json]:
        names = draw(st.lists(st.sampled_from(_NAMES), unique=True))
        made: dict[str, Json] = {}
        for name in names:
            value = draw(_odd(name))
            try:
                canonical(value)
            except ValueError:  # a lone surrogate has no canonical form, and so is on no record
                continue
            made[name] = value
        return made

    kind = draw(
        st.sampled_from(["intent", "outcome", "unknown", "denial", "asked", "approval", "heartbeat", "admin_read"])
    )
    return seen(
        kind, facts(), index=draw(st.integers(0, 2**53 - 1)), payload=draw(st.booleans()),
        intent=draw(st.none() | st.just(facts())), erased=draw(st.booleans()),
        call=draw(st.sampled_from(["", "call_" + "f" * 32, 'a"\\|= b'])), at=draw(st.integers(0, 2**33)),
    )  # fmt: skip
