"""The dry run of an HTTP API, against a real server on loopback: what is sent while a call is tried, and while it is
done."""

from __future__ import annotations

import asyncio
import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from act.granted import granted
from doors.api_house import DOCUMENT, Server, answer, serving, settings
from onbehalf.doors.upstream_openapi_configured import open_openapi
from onbehalf.errors import ConfigInvalid
from onbehalf.model import CallToken, Digest, Done, Failed, Json, Outcome, ToolCall, canonical, digest
from onbehalf.validate import route
from replacing import replace

ON: dict[str, Any] = {"parameter": "dry_run", "value": True}


def documented(place: str = "query", **more: Any) -> dict[str, Any]:
    """The document of the house, whose `add` has a dry run in query, header or body."""
    made = copy.deepcopy(DOCUMENT)
    add = made["paths"]["/a"]["post"]
    if place == "body":
        schema = add["requestBody"]["content"]["application/json"]["schema"]
        schema["properties"]["dry_run"] = {"type": "boolean"}
    else:
        add["parameters"] = [{"name": "dry_run", "in": place, "schema": {"type": "boolean"}, **more}]
        add["parameters"][0]["name"] = "Dry-Run" if place == "header" else "dry_run"
    return made


def add(**dry_run: Any) -> dict[str, Any]:
    return {"add": {"action": "addA", "writes": True, "dry_run": {**ON, **dry_run}}}


def tried(made: ToolCall) -> ToolCall:
    return route.tried(made)


def done(made: ToolCall) -> ToolCall:
    return route.as_tried(made, digest(b"d"))


def outcome(
    *answers: bytes, tools: dict[str, Any], document: dict[str, Any], steps: Any = (tried,), pause: float = 0.0,
    **more: Any,
) -> tuple[list[Outcome], Server]:  # fmt: skip
    """What comes of the steps of one call, each with a token of its own, and what the server saw."""

    async def walk(server: Server, directory: Path) -> list[Outcome]:
        told = settings(directory, server.url, tools, document=document, **more)
        door, [tool] = await open_openapi("api", told, base=directory, insecure_http=True)
        arguments: dict[str, Json] = {"text": "a"}
        if tool.dry_run and tool.dry_run.off:
            arguments[tool.dry_run.parameter] = tool.dry_run.off[0]
        found: list[Outcome] = []
        for at, step in enumerate(steps):
            grant = granted(arguments, tool=tool.remote, audience=door.audience)
            call = step(replace(grant.allow.call, tool=tool))
            token = CallToken(grant=replace(grant, allow=replace(grant.allow, call=call)), compact=f"token.{at}")
            found.append(await door.send(call, token))
        await door.aclose()
        return found

    async def walked() -> tuple[list[Outcome], Server]:
        with tempfile.TemporaryDirectory() as directory:
            async with serving(*answers) as server:
                server.pause = pause
                return await walk(server, Path(directory)), server

    return asyncio.run(asyncio.wait_for(walked(), 30))


SAID = answer(b'{"would": ["a", 1]}')


@pytest.mark.parametrize(
    ("place", "name", "on", "off"),
    [
        ("query", "dry_run", b"POST /v1/a?dry_run=true HTTP/1.1", b"POST /v1/a HTTP/1.1"),
        ("header", "Dry-Run", b"dry-run: true", b""),
        ("body", "dry_run", b'{"dry_run":true,"text":"a"}', b'{"text":"a"}'),
    ],
)
def test_it_is_sent_while_a_call_is_tried_and_left_out_while_it_is_done(
    place: str, name: str, on: bytes, off: bytes
) -> None:
    [first, second], server = outcome(
        SAID, answer(b"{}"), tools=add(parameter=name), document=documented(place), steps=(tried, done)
    )
    assert isinstance(first, Done)
    assert isinstance(second, Done)
    assert first.digest == digest(canonical({"would": ["a", 1]}))
    assert first.content["structuredContent"] == {"would": ["a", 1]}
    assert second.digest == ""
    while_tried, while_done = (head + body for head, body in server.seen)
    assert on in while_tried.replace(b"Dry-Run", b"dry-run")
    assert off in while_done
    assert name.encode().lower() not in while_done.lower()


def test_no_call_token_is_sent_twice_for_backends_take_each_once() -> None:
    _, server = outcome(SAID, tools=add(), document=documented(), steps=(tried, done))
    tokens = [line for head, _ in server.seen for line in head.lower().split(b"\r\n") if line.startswith(b"txn-token")]
    assert tokens == [b"txn-token: token.0", b"txn-token: token.1"]


def test_where_the_api_requires_the_parameter_it_is_sent_as_off() -> None:
    _, server = outcome(
        SAID, tools=add(off=False), document=documented(required=True), steps=(lambda call: tried(call), done)
    )
    targets = [head.split(b" ")[1] for head, _ in server.seen]
    assert targets == [b"/v1/a?dry_run=true", b"/v1/a?dry_run=false"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (answer(b'{"error": "do as i say"}', status=500), "upstream_unavailable"),
        (answer(b"", status=400), "upstream_error"),
        (answer(b"", status=403), "upstream_refused"),
        (answer(b"", status=302), "upstream_error"),
        (answer(b"", status=503, more="retry-after: 0\r\n"), "upstream_unavailable"),
        (answer(b"{", status=200), "upstream_garbage"),
        (answer(b"1152921504606846976"), "upstream_garbage"),
        (b"", "upstream_error"),
    ],
)
def test_a_dry_run_that_is_not_answered_well_is_a_failure_known_to_have_changed_nothing(said: bytes, code: str) -> None:
    [failed], server = outcome(said, tools=add(), document=documented())
    assert isinstance(failed, Failed)
    assert (failed.code, failed.unknown) == (code, False)
    assert "do as i say" not in failed.message
    assert len(server.seen) == 1


def test_a_dry_run_that_takes_too_long_is_known_to_have_changed_nothing_and_a_doing_is_not() -> None:
    for step, unknown in ((tried, False), (done, True)):
        [failed], _ = outcome(
            SAID, tools=add(), document=documented(), steps=(step,), pause=3.0, timeout_seconds=0.3
        )  # fmt: skip
        assert isinstance(failed, Failed)
        assert (failed.code, failed.unknown) == ("upstream_timed_out", unknown)


def test_an_answer_without_a_body_counts_as_null() -> None:
    [found], _ = outcome(answer(b"", status=204), tools=add(), document=documented())
    assert isinstance(found, Done)
    assert found.digest == digest(b"null")


def test_what_is_made_up_anew_for_each_try_may_be_left_out_of_the_comparison() -> None:
    answers = [answer(b'{"would": 1, "at": %d}' % at) for at in (1, 2)]
    found, _ = outcome(*answers, tools=add(compare=["would"]), document=documented(), steps=(tried, tried))
    first, second = (each.digest for each in found if isinstance(each, Done))
    assert first == second
    found, _ = outcome(*answers, tools=add(), document=documented(), steps=(tried, tried))
    first, second = (each.digest for each in found if isinstance(each, Done))
    assert first != second


def test_an_answer_without_the_rows_to_decide_is_a_failure() -> None:
    tools = add()
    tools["add"]["rows"] = {"type": "A", "at": "items"}
    for said in (answer(b"", status=204), answer(b'{"ok": true}'), answer(b"", status=404)):
        [failed], _ = outcome(said, tools=tools, document=documented())
        assert isinstance(failed, Failed)
        assert failed.unknown is False


def test_what_would_be_done_while_it_is_only_tried_is_never_sent() -> None:
    def without(call: ToolCall) -> ToolCall:
        return replace(call, dry=True)

    def untried(call: ToolCall) -> ToolCall:
        return call

    def half(call: ToolCall) -> ToolCall:
        return replace(route.tried(call), dry=False, expected=Digest("d"))

    found, server = outcome(SAID, tools=add(), document=documented(), steps=(without, untried, half))
    assert [(each.code, each.unknown) for each in found if isinstance(each, Failed)] == [("upstream_error", False)] * 3
    assert server.seen == []


def test_a_tool_without_a_dry_run_is_never_tried() -> None:
    tools = {"add": {"action": "addA", "writes": True}}
    found, server = outcome(SAID, tools=tools, document=DOCUMENT, steps=(tried, done))
    assert [each.code for each in found if isinstance(each, Failed)] == ["upstream_error"] * 2
    assert server.seen == []


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ({"dry_run": {"parameter": "nope", "value": 1}}, "is no parameter of the operation"),
        ({"dry_run": {"parameter": "dry_run", "value": "yes"}}, "does not take"),
        ({"dry_run": ON, "bound": {"dry_run": {"constant": False}}}, "is bound too"),
        ({"dry_run": ON, "page": {"by": ["a"]}}, "`page` is for a SELECT"),
        ({"preview": True}, "nothing says how its API can try"),
        ({"remote": "all", "writes": False, "dry_run": {"parameter": "tenant", "value": "x"}}, "writes nothing"),
        ({"dry_run": ON, "waived": ["dry_run"]}, "no such parameter to waive"),
    ],
)
def test_what_cannot_be_tried_so_is_refused_when_loading(tmp_path: Path, tool: dict[str, Any], said: str) -> None:
    tools = {"add": {"action": "a", "writes": True, **tool}}
    told = settings(tmp_path, "http://127.0.0.1:1", tools, document=documented())
    with pytest.raises(ConfigInvalid, match=said):
        asyncio.run(open_openapi("api", told, base=tmp_path))


def test_a_required_parameter_without_off_is_refused_when_loading(tmp_path: Path) -> None:
    told = settings(tmp_path, "http://127.0.0.1:1", add(), document=documented(required=True))
    with pytest.raises(ConfigInvalid, match="is required") as refused:
        asyncio.run(open_openapi("api", told, base=tmp_path))
    assert "`off`" in refused.value.hint


def test_the_model_does_not_see_the_parameter(tmp_path: Path) -> None:
    tools = add()
    tools["add"]["preview"] = True
    document = documented(required=True)
    tools["add"]["dry_run"]["off"] = False
    told = settings(tmp_path, "http://127.0.0.1:1", tools, document=document)
    _, [tool] = asyncio.run(open_openapi("api", told, base=tmp_path))
    properties = tool.schema["properties"]
    assert isinstance(properties, dict)
    assert sorted(properties) == ["change", "text"]
    assert tool.schema["required"] == ["text"]
    assert "dry_run" not in json.dumps(tool.schema)
