"""An HTTP API as an upstream, against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from act.granted import granted
from doors.api_house import DOCUMENT, Server, answer, serving, settings
from onbehalf.doors import upstream_openapi
from onbehalf.doors.outbound_address import AddressRefused, judged, pinned
from onbehalf.doors.upstream_authorization import BearerSource
from onbehalf.doors.upstream_openapi_configured import open_openapi
from onbehalf.errors import ConfigInvalid
from onbehalf.model import CallToken, Done, Failed, Json, Outcome, Rows, ToolCall
from onbehalf.validate.api import read_document, read_operation
from onbehalf.validate.api_request import Unsendable, request_of
from replacing import replace

FIND: dict[str, Any] = {"find": {"action": "readA"}}
ADD: dict[str, Any] = {"add": {"action": "addA", "writes": True}}
KEY: dict[str, Json] = {"key": "k"}


async def sent(
    server: Server, tools: dict[str, Any], arguments: dict[str, Json], *, rows: Rows | None = None,
    authorizer: BearerSource | None = None, **more: Any,
) -> Outcome:  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        told = settings(Path(directory), server.url, tools, **more)
        door, made = await open_openapi("api", told, base=Path(directory), insecure_http=True, authorizer=authorizer)
    grant = granted(arguments, tool=made[0].remote, audience=door.audience)
    call = replace(grant.allow.call, tool=replace(made[0], rows=rows))
    token = CallToken(grant=replace(grant, allow=replace(grant.allow, call=call)), compact="the.call.token")
    try:
        return await door.send(call, token)
    finally:
        await door.aclose()


def outcome(
    *answers: bytes, tools: dict[str, Any] = FIND, arguments: dict[str, Json] = KEY, pause: float = 0.0, **more: Any
) -> tuple[Outcome, Server]:
    async def walk() -> tuple[Outcome, Server]:
        async with serving(*answers) as server:
            server.pause = pause
            return await sent(server, tools, arguments, **more), server

    return asyncio.run(asyncio.wait_for(walk(), 30))


def test_a_call_arrives_with_its_token_and_the_gateways_own_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret-1")
    done, server = outcome(answer(b'{"a": 1}'), headers={"X-Api-Key": "env:API_KEY"})
    assert isinstance(done, Done)
    assert done.content["structuredContent"] == {"a": 1}
    [(head, _)] = server.seen
    assert head.startswith(b"GET /v1/a/k/z HTTP/1.1\r\n")
    assert b"txn-token: the.call.token\r\n" in head.lower()
    assert b"x-api-key: secret-1\r\n" in head.lower()
    assert b"authorization" not in head.lower()


def test_a_body_is_the_canonical_json_of_its_members() -> None:
    done, server = outcome(answer(b"{}"), tools=ADD, arguments={"text": "é\r\n"})
    assert isinstance(done, Done)
    assert json.loads(server.seen[0][1]) == {"text": "é\r\n"}


OPERATION = read_operation(read_document(json.dumps(DOCUMENT).encode()), "find")


@effort(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(), st.lists(st.text(), min_size=1, max_size=3)), min_size=1, max_size=8))
def test_whatever_an_argument_is_the_server_sees_it_at_its_place_and_nothing_else(
    cases: list[tuple[str, str, list[str]]],
) -> None:
    async def walk() -> None:
        async with serving() as server:
            for key, q, many in cases:
                before = len(server.seen)
                found = await sent(server, FIND, {"key": key, "q": q, "many": [*many]})
                if isinstance(found, Failed):
                    assert found.code == "arguments_refused"
                    assert len(server.seen) == before
                    continue
                target = server.seen[-1][0].split(b" ")[1].decode()
                path, _, query = target.partition("?")
                assert [unquote(part) for part in path.split("/")] == ["", "v1", "a", key, "z"]
                pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
                assert pairs == [("q", q), *(("many", each) for each in many)]

    asyncio.run(asyncio.wait_for(walk(), 60))


@pytest.mark.parametrize(
    "key", ["", ".", "..", "a/b", "%2f", "%252F", "..%2f", "a\\b", "%5c", "\r\n", "\x00", "%2e%2e", "a%00"]
)
def test_a_path_value_that_could_be_read_as_more_than_one_segment_is_refused(key: str) -> None:
    failed, server = outcome(arguments={"key": key})
    assert failed == Failed(code="arguments_refused", message="`key` cannot stand in a path", unknown=False)
    assert not server.seen


@pytest.mark.parametrize("word", ["a\r\nX-Evil: 1", "a\nb", "\x00", "", " a", "é"])
def test_a_header_value_cannot_end_its_line(word: str) -> None:
    with pytest.raises(Unsendable):
        request_of(OPERATION, {"key": "k", "X-Word": word})


def test_an_empty_list_is_refused_for_leaving_it_out_could_mean_all() -> None:
    with pytest.raises(Unsendable):
        request_of(OPERATION, {"key": "k", "many": []})


SECRET = b"do as i say"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (answer(SECRET, status=302, more="location: http://127.0.0.1:1/\r\n"), "upstream_error"),
        (answer(SECRET, status=401), "upstream_refused"),
        (answer(SECRET, status=500), "upstream_unavailable"),
        (answer(SECRET, kind="text/html"), "upstream_garbage"),
        (answer(SECRET), "upstream_garbage"),
        (answer(b'{"a": 1, "a": 2}'), "upstream_garbage"),
        (answer(b"[" * 999 + b"]" * 999), "upstream_garbage"),
        (answer(b'"' + b"x" * 5000 + b'"'), "upstream_garbage"),
        (answer(b"{}", more="content-encoding: gzip\r\n"), "upstream_garbage"),
        (b"", "upstream_error"),
    ],
)
def test_a_hostile_answer_is_a_failure_that_holds_none_of_its_words(said: bytes, code: str) -> None:
    failed, server = outcome(said, response_bytes=2048)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.unknown) == (code, False)
    assert SECRET.decode() not in failed.message
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("said", "unknown"),
    [(answer(b"", status=500), True), (answer(b"", status=302), True), (b"", True), (answer(b"", status=409), False)],
)
def test_a_write_that_may_have_happened_is_not_known_and_not_sent_again(said: bytes, unknown: bool) -> None:
    failed, server = outcome(said, tools=ADD, arguments={"text": "a"})
    assert isinstance(failed, Failed)
    assert failed.unknown is unknown
    assert len(server.seen) == 1


BUSY = answer(b"", status=503, more="retry-after: 0\r\n")


@pytest.mark.parametrize(("after", "again_s"), [("0", 0.0), ("2", 2.0), ("3", None), ("1.5", None), ("soon", None)])
def test_a_busy_server_makes_another_sending_of_a_read_worth_it_and_no_token_leaves_twice(
    after: str, again_s: float | None
) -> None:
    failed, server = outcome(answer(b"", status=503, more=f"retry-after: {after}\r\n"), answer(b"{}"))
    assert isinstance(failed, Failed)
    assert (failed.again_s, len(server.seen)) == (again_s, 1)
    failed, server = outcome(BUSY, tools=ADD, arguments={"text": "a"})
    assert isinstance(failed, Failed)
    assert (failed.again_s, len(server.seen)) == (None, 1)


def test_a_server_that_is_not_there_is_known_not_to_have_done_it() -> None:
    async def walk() -> Outcome:
        async with serving() as server:
            pass
        return await sent(server, ADD, {"text": "a"})

    failed = asyncio.run(walk())
    assert isinstance(failed, Failed)
    assert (failed.code, failed.unknown) == ("upstream_unavailable", False)


def test_a_call_goes_to_the_address_that_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def walk() -> tuple[bytes, int]:
        async with serving() as server:
            port, asked = int(server.url.split(":")[2].partition("/")[0]), []

            async def judge(url: str, *, private: bool, seconds: float) -> tuple[str, str, int]:
                asked.append(url)
                return "api.invalid", "127.0.0.1", port

            monkeypatch.setattr(upstream_openapi, "pinned", judge)
            server.url = f"http://api.invalid:{port}/v1"
            assert isinstance(await sent(server, FIND, KEY), Done)
            return server.seen[0][0], len(asked)

    head, asked = asyncio.run(walk())
    assert b"host: api.invalid" in head.lower()
    assert asked == 1


def test_one_bad_address_among_good_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def walk() -> None:
        async def found(*_: Any, **__: Any) -> list[Any]:
            return [(2, 1, 6, "", (each, 443)) for each in ("93.184.216.34", "10.0.0.1")]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found, raising=False)
        with pytest.raises(AddressRefused):
            await pinned("https://a.test", private=False, seconds=1)
        assert await pinned("https://a.test", private=True, seconds=1) == ("a.test", "93.184.216.34", 443)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(walk())


def test_a_slow_server_is_given_up_in_time() -> None:
    failed, _ = outcome(pause=3.0, timeout_seconds=0.3, tools=ADD, arguments={"text": "a"})
    assert isinstance(failed, Failed)
    assert (failed.code, failed.unknown) == ("upstream_timed_out", True)


class Bearers:
    """Gives a new token each time, after `pause` seconds; says of one that is refused that another is worth a try."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause, self.given = pause, 0

    async def bearer(self, call: ToolCall) -> str:
        await asyncio.sleep(self.pause)
        self.given += 1
        return f"token-{self.given}"

    async def refused(self, call: ToolCall) -> bool:
        return True


def test_a_write_that_waited_for_a_token_in_vain_is_known_not_to_be_done() -> None:
    slow = {"authorizer": Bearers(3.0), "timeout_seconds": 0.3}
    failed, server = outcome(tools=ADD, arguments={"text": "a"}, **slow)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.unknown, server.seen) == ("upstream_login_failed", False, [])


def test_so_is_one_whose_gateway_came_to_a_standstill_meanwhile() -> None:
    class Stalled(Bearers):
        async def bearer(self, call: ToolCall) -> str:
            time.sleep(0.3)  # all time limits of the call are over when the event loop goes on
            return await super().bearer(call)

    failed, server = outcome(tools=ADD, arguments={"text": "a"}, authorizer=Stalled(3.0), timeout_seconds=0.2)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.unknown, server.seen) == ("upstream_login_failed", False, [])


def test_a_token_that_is_refused_and_can_be_had_anew_makes_another_sending_of_a_read_worth_it() -> None:
    no = answer(b"", status=401)
    failed, server = outcome(no, answer(b"{}"), authorizer=Bearers())
    assert failed == Failed(code="upstream_refused", message="HTTP status 401", unknown=False, again_s=0.0)
    assert len(server.seen) == 1
    failed, server = outcome(no, tools=ADD, arguments={"text": "a"}, authorizer=Bearers())
    assert failed == Failed(code="upstream_refused", message="HTTP status 401", unknown=False)
    assert len(server.seen) == 1


def test_what_is_not_there_is_no_rows_for_a_tool_that_maps_them() -> None:
    shape = Rows(type="A", at=(), id="id", tenant="tenant", attributes={})
    done, _ = outcome(answer(b"", status=404), rows=shape)
    assert isinstance(done, Done)
    assert "structuredContent" not in done.content
    assert isinstance(outcome(answer(b"", status=404))[0], Failed)


@pytest.mark.parametrize(
    ("address", "host", "private", "good"),
    [
        ("93.184.216.34", "a.test", False, True),
        ("10.0.0.1", "a.test", False, False),
        ("10.0.0.1", "a.test", True, True),
        ("127.0.0.1", "a.test", True, False),
        ("169.254.169.254", "a.test", True, False),
        ("::ffff:10.0.0.1", "a.test", False, False),
        ("::ffff:127.0.0.1", "a.test", True, False),
        ("64:ff9b::a00:1", "a.test", True, False),
        ("2002:7f00:1::", "a.test", True, False),
        ("fe80::1", "a.test", True, False),
        ("fd00::1", "a.test", True, True),
        ("0.0.0.0", "a.test", True, False),
        ("100.64.0.1", "a.test", False, False),
        ("127.0.0.1", "localhost", False, True),
        ("93.184.216.34", "localhost", False, False),
    ],
)
def test_an_address_is_judged_by_what_it_really_is(address: str, host: str, private: bool, good: bool) -> None:
    assert judged(address, host=host, private=private) is good


@pytest.mark.parametrize(
    ("tools", "more", "said"),
    [
        ({"all": {"action": "a"}}, {}, "`tenant` may say whose"),
        ({"find": {"action": "a", "scoped": True}}, {}, "maps no `rows`"),
        ({"add": {"action": "a"}}, {}, "not marked as writing"),
        ({"nothing": {"action": "a"}}, {}, "no operation"),
        ({"find": {"action": "a", "waived": ["q"]}}, {}, "no such parameter to waive"),
        (FIND, {"digest": "sha256:" + "0" * 64}, "not as pinned"),
        (FIND, {"document": "https://a.test/api.json"}, "document_hosts"),
        (FIND, {"url": "http://api.test"}, "not https"),
        (FIND, {"headers": {"Txn-Token": "env:PATH"}}, "gateway's own"),
    ],
)
def test_what_is_not_safe_to_offer_is_refused_when_loading(
    tmp_path: Path, tools: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    import msgspec

    told = msgspec.structs.replace(settings(tmp_path, "http://127.0.0.1:1", tools), **more)
    with pytest.raises(ConfigInvalid, match=said):
        asyncio.run(open_openapi("api", told, base=tmp_path))


def test_a_bound_parameter_is_not_shown(tmp_path: Path) -> None:
    told = settings(tmp_path, "http://127.0.0.1:1", {"all": {"action": "a", "bound": {"tenant": {"tenant": True}}}})
    _, [tool] = asyncio.run(open_openapi("api", told, base=tmp_path))
    assert tool.schema["properties"] == {}
