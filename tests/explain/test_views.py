"""What leaves of a record, and that from every form that claims it the record is had back, unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from explain import viewed
from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.tree import leaf_hash
from onbehalf.explain.views import View, document, json_line, read_document, read_json_line
from onbehalf.explain.views_cef import cef, read_cef
from onbehalf.explain.views_cloudevents import cloudevent, read_cloudevent
from onbehalf.explain.views_ocsf import ocsf, read_ocsf
from onbehalf.explain.views_otel import attributes, log_record, read_log_record
from onbehalf.explain.views_said import said
from onbehalf.explain.views_set import claims, read_claims
from onbehalf.model import digest

VIEWS = viewed.company()
VERSION = "0.1.0"
FORMS: dict[str, tuple[Callable[[View], Any], Callable[[Any], View]]] = {
    "document": (document, read_document),
    "cloudevents": (cloudevent, read_cloudevent),
    "ocsf": (lambda view: ocsf(view, version=VERSION), read_ocsf),
    "otel": (log_record, read_log_record),
    "set": (lambda view: claims(view, issuer="https://gateway.example.com", audience="siem"), read_claims),
}


# --- lossless ---


@pytest.mark.parametrize("form", FORMS)
@given(view=viewed.views())
@settings(max_examples=150, deadline=None)
def test_any_record_is_rebuilt_from_each_form_after_it_was_sent_as_json(form: str, view: View) -> None:
    write, read = FORMS[form]
    arrived = orjson.loads(orjson.dumps(write(view)))
    assert json_line(read(arrived)) == json_line(view)


@pytest.mark.parametrize(("kind", "facts"), [("intent", viewed.INTENT), ("outcome", viewed.OUTCOME), ("start", {})])
def test_a_view_names_the_leaf_hash_that_the_log_has(kind: str, facts: dict[str, Any]) -> None:
    assert viewed.seen(kind, facts).hash == f"sha256:{leaf_hash(viewed.entry_of(kind, facts)).hex()}"


@given(view=viewed.views())
@settings(max_examples=150, deadline=None)
def test_any_record_is_rebuilt_from_its_json_line_which_is_one_line(view: View) -> None:
    line = json_line(view)
    assert b"\n" not in line
    assert json_line(read_json_line(line)) == line


@given(view=viewed.views())
@settings(max_examples=200, deadline=None)
def test_a_cef_line_is_one_line_and_read_back_says_where_the_record_is_and_what_its_digest_is(view: View) -> None:
    line = cef(view, version=VERSION)
    assert line.isprintable()
    head, extension = read_cef(line)
    assert head[:5] == ["CEF:0", "onbehalf", "gateway", VERSION, view.leaf.kind]
    assert extension["cn1"] == str(view.index)
    assert extension["cs1"] == view.hash
    assert extension["externalId"] == view.leaf.id
    assert extension["cs4"] == digest(json_line(view))
    assert extension["rt"] == str(view.leaf.at * 1000)
    assert len(line) < 40_000


# --- nothing about a form can be changed unseen ---


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["intent", "done", "denial", "erased"])
def test_a_form_with_one_value_changed_is_refused(form: str, which: str) -> None:
    write, read = FORMS[form]
    whole = orjson.loads(orjson.dumps(write(VIEWS[which])))
    free = {("iss",), ("aud",), ("iat",), ("metadata", "product", "version")}
    """What the reader is told by nobody else: who issued a token and when, and the gateway's version."""
    changed = 0
    for path in _paths(whole):
        if path in free or _of_facts(form, path):
            continue
        with pytest.raises(LedgerCorrupt):
            read(_changed(whole, path))
        changed += 1
    assert changed >= 8


def _paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path for key, each in value.items() for path in _paths(each, (*before, key))]
    if isinstance(value, list):
        return [path for at, each in enumerate(value) for path in _paths(each, (*before, at))]
    return [before]


def _of_facts(form: str, path: tuple[Any, ...]) -> bool:
    """A value that only the record's own salts could vouch for, or one that no other part repeats."""
    inside = {"document": 0, "cloudevents": 1, "ocsf": 2, "set": 2, "otel": 99}[form]
    return path[inside : inside + 1] in [(name,) for name in ("facts", "about", "index", "log", "withheld", "erased")]


def _changed(whole: Any, path: tuple[Any, ...]) -> Any:
    copy = orjson.loads(orjson.dumps(whole))
    at = copy
    for key in path[:-1]:
        at = at[key]
    old = at[path[-1]]
    at[path[-1]] = old + "x" if isinstance(old, str) else old + 1 if isinstance(old, int) else "x"
    return copy


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b"\xff", b'{"v":1}', b"[" * 2000, b'{"v":1,"v":1}', b"1e999"]
)
def test_noise_is_no_view(line: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        read_json_line(line)


def test_a_view_spelled_otherwise_is_no_json_line() -> None:
    with pytest.raises(LedgerCorrupt, match="spelling"):
        read_json_line(json_line(VIEWS["intent"]) + b" ")


def test_a_fact_that_is_neither_told_nor_named_as_withheld_is_missed() -> None:
    whole = orjson.loads(json_line(VIEWS["intent"]))
    whole["withheld"].remove("arguments")
    with pytest.raises(LedgerCorrupt, match="`arguments` stand on one side only"):
        read_document(whole)


# --- what leaves ---


@pytest.mark.parametrize("which", [name for name in VIEWS if name != "payload"])
def test_without_payload_no_argument_no_name_and_no_words_of_others_leave(which: str) -> None:
    view = VIEWS[which]
    forms = [orjson.dumps(write(view)).decode() for write, _ in FORMS.values()]
    for text in (json_line(view).decode(), cef(view, version=VERSION), *forms):
        assert "CANARY" not in text
        assert "Alice Ngo" not in text
        assert "3" * 64 not in text, "a bare digest of arguments can be guessed"
        assert "5" * 64 not in text, "and so can one of a result"


def test_with_payload_everything_leaves_and_nothing_is_withheld() -> None:
    view = VIEWS["payload"]
    assert view.withheld == ()
    assert view.facts == viewed.INTENT


def test_what_is_withheld_is_named_and_its_commitment_is_there() -> None:
    view = VIEWS["intent"]
    assert view.withheld == ("arguments", "arguments_digest", "person.name")
    assert view.leaf.facts.keys() == viewed.INTENT.keys()


def test_a_fact_of_a_later_day_is_withheld_until_somebody_says_that_it_is_free() -> None:
    view = viewed.seen("novelty", {"shoe_size": 43})
    assert (view.facts, view.withheld) == ({}, ("shoe_size",))


def test_an_erased_record_is_told_as_such_with_its_commitments() -> None:
    view = VIEWS["erased"]
    assert (view.erased, view.facts, view.withheld) == (True, {}, ())
    assert view.leaf.facts.keys() == viewed.INTENT.keys()


# --- what the words are ---


def test_an_outcome_says_who_did_what_from_its_intent_and_what_came_of_it_from_itself() -> None:
    flat = said(VIEWS["done"])
    assert (flat.person, flat.tenant, flat.tool, flat.action) == ("acme/alice", "acme", "reviews_list", "listReviews")
    assert (flat.effect, flat.status, flat.returned, flat.released) == ("allow", "done", 3, 2)
    assert (flat.types, flat.ids) == (("Review",), ("acme/r1", "acme/r2"))
    assert flat.people == ("acme/bob", "acme/carol")
    assert said(VIEWS["alone"]).person == ""


def test_names_of_the_conventions_are_those_that_they_publish() -> None:
    from opentelemetry.semconv._incubating.attributes import (
        error_attributes,
        gen_ai_attributes,
        mcp_attributes,
        user_agent_attributes,
        user_attributes,
    )

    modules = (error_attributes, gen_ai_attributes, mcp_attributes, user_agent_attributes, user_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    used = {name for view in VIEWS.values() for name in attributes(view) if not name.startswith("onbehalf.")}
    assert len(used) == 9
    assert used <= known
    assert attributes(VIEWS["done"])["gen_ai.operation.name"] in {
        each.value for each in gen_ai_attributes.GenAiOperationNameValues
    }
    assert attributes(VIEWS["done"])["mcp.method.name"] in {each.value for each in mcp_attributes.McpMethodNameValues}


def test_a_denial_is_warned_of_and_an_unknown_end_is_an_error() -> None:
    numbers = {name: log_record(VIEWS[name])["severityNumber"] for name in ("intent", "denial", "unknown")}
    assert numbers == {"intent": 9, "denial": 13, "unknown": 17}


def test_cef_escapes_what_would_begin_another_field() -> None:
    line = cef(VIEWS["refused"], version=VERSION)
    assert r"fname=nothing�|x\=\\" in line
    assert line.split("|")[5] == "denial of nothing�\\"
    head, extension = read_cef(line)
    assert head[5] == "denial of nothing�|x=\\"
    assert extension["fname"] == "nothing�|x=\\"
    assert extension["act"] == "blocked"


def test_cef_keeps_the_lengths_of_its_dictionary() -> None:
    long = viewed.seen("denial", {"tool": {"name": "t" * 5000}, "via": {"agent": "= " * 5000, "protocol": ""}})
    _, extension = read_cef(cef(long, version=VERSION))
    assert len(extension["fname"]) == 1023
    assert extension["fname"].endswith("…")
    assert len(extension["requestClientApplication"]) <= 1023


def test_ids_of_events_are_the_records_own_and_sequences_sort_as_indices() -> None:
    first, second = (cloudevent(viewed.seen("intent", viewed.INTENT, index=index)) for index in (9, 10))
    assert str(first["sequence"]) < str(second["sequence"])
    assert re.fullmatch("[0-9a-f]{32}", str(first["id"]))


def test_a_float_that_is_spelled_as_a_whole_number_is_spelled_again() -> None:
    view = viewed.seen("intent", {"arguments": {"most": 1e17, "deep": [9007199254740992.0]}}, payload=True)
    assert b'"most":100000000000000000' in json_line(view)
    assert json_line(read_json_line(json_line(view))) == json_line(view)


def test_a_reading_says_in_every_form_which_account_claims_to_have_read_by_which_command() -> None:
    view = VIEWS["read"]
    assert view.withheld == ("read.filters", "read.purpose")
    event: Any = ocsf(view, version="1")
    assert (event["activity_id"], event["api"]["operation"], event["actor"]["user"]) == (
        2, "audit export", {"name": "dana"},
    )  # fmt: skip
    told = attributes(view)
    assert (told["onbehalf.reader.claimed"], told["onbehalf.command"]) == ("dana", "audit export")
    assert "user.id" not in told, "no person is proven"
    assert cloudevent(view)["subject"] == "audit export"
    _, fields = read_cef(cef(view, version="1"))
    assert (fields["suser"], fields["sproc"]) == ("dana", "audit export")
    about = claims(view, issuer="https://gateway.example.com")["sub_id"]
    assert about == {"format": "opaque", "id": view.log}, "nobody vouches for an account"


def test_a_token_says_when_it_was_issued_and_when_the_record_was_made() -> None:
    view = VIEWS["done"]
    said = claims(view, issuer="https://gateway.example.com", audience="siem", issued_at=view.leaf.at + 7)
    assert (said["iat"], said["toe"]) == (view.leaf.at + 7, view.leaf.at)
    assert read_claims(orjson.loads(orjson.dumps(said))) == view
    with pytest.raises(LedgerCorrupt):
        read_claims({**said, "iat": True})
