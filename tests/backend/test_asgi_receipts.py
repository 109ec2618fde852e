"""Where a receipt goes into an answer, however the answer is cut into pieces; and what goes on as it is."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from onbehalf.backend.asgi_receipts import receipted, result_receipted

STREAM = (
    b": hello\r\n\r\nevent: message\r\ndata: "
    + json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"p": 1}}).encode()
    + b"\r\n\r\nevent: message\r\nid: 7\r\n"
    + b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[],"_meta":{"own":1}}}\r\n\r\n'
)


def vouch(result: Mapping[str, Any]) -> str:
    return f"signed {json.dumps(result['content'])}"


def passed(wrap: Any, kind: str, parts: list[bytes]) -> tuple[dict[bytes, bytes], bytes, int]:
    """Headers, body and number of body messages that came out."""
    out: list[Any] = []

    async def send(message: Any) -> None:
        out.append(message)

    async def walk() -> None:
        wrapped = wrap(send)
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % sum(map(len, parts)))]
        headers += [(b"Onbehalf-Receipt", b"made up")]
        await wrapped({"type": "http.response.start", "status": 200, "headers": headers})
        for at, part in enumerate(parts):
            await wrapped({"type": "http.response.body", "body": part, "more_body": at + 1 < len(parts)})

    asyncio.run(walk())
    bodies = [message["body"] for message in out if message["type"] == "http.response.body"]
    return {name.lower(): value for name, value in out[0]["headers"]}, b"".join(bodies), len(bodies)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


@effort(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=12))
def test_a_result_in_an_event_stream_gets_its_receipt_however_it_is_cut(places: list[int]) -> None:
    _, body, _ = passed(lambda send: result_receipted(send, vouch), "text/event-stream", cut(STREAM, places))
    events = body.split(b"\r\n\r\n")
    assert events[0] == b": hello"
    assert json.loads(events[1].split(b"data: ")[1])["method"] == "notifications/progress"
    assert events[2].startswith(b"event: message\r\nid: 7\r\n")
    result = json.loads(events[2].split(b"data: ")[1])["result"]
    assert result["_meta"] == {"own": 1, "onbehalf/receipt": "signed []"}


def test_an_event_goes_on_as_soon_as_it_is_whole() -> None:
    first = STREAM.index(b"\r\n\r\n") + 4
    _, _, count = passed(
        lambda send: result_receipted(send, vouch), "text/event-stream", [STREAM[:first], STREAM[first:]]
    )
    assert count == 2


@effort(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=5))
def test_a_result_in_json_gets_its_receipt_and_its_new_length(places: list[int]) -> None:
    data = b'{"jsonrpc":"2.0","id":1,"result":{"content":["\xc3\xa9"]}}'
    headers, body, _ = passed(lambda send: result_receipted(send, vouch), "application/json", cut(data, places))
    assert json.loads(body)["result"]["_meta"]["onbehalf/receipt"] == 'signed ["\\u00e9"]'
    assert headers[b"content-length"] == str(len(body)).encode()


def test_what_is_no_result_goes_on_as_it_is() -> None:
    for kind, data in (
        ("application/json", b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}'),
        ("application/json", b"[]"), ("application/json", b"no json"), ("application/json", b'{"result":1}'),
        ("text/plain", b'{"result":{"content":[]}}'), ("text/event-stream", b"data: {}\n\ndata: half"),
    ):  # fmt: skip
        _, body, _ = passed(lambda send: result_receipted(send, vouch), kind, [data])
        assert body == data


def test_a_receipt_in_a_header_is_of_the_whole_body_and_replaces_one_that_the_app_made_up() -> None:
    def signed(status: int, answer: bytes) -> tuple[str, str]:
        return "onbehalf-receipt", f"{status} {answer.decode()}"

    headers, body, count = passed(lambda send: receipted(send, signed), "text/plain", [b"a", b"b", b""])
    assert (headers[b"onbehalf-receipt"], body, count) == (b"200 ab", b"ab", 1)
