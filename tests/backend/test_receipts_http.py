"""An API signs for its answers, and the gateway's door takes no other answer from it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.api_guarding import AUDIENCE, GATEWAY, api_house, told
from onbehalf.backend.receipt import receipt_key
from onbehalf.model import Done, Failed, Rows

KEY, OTHER = receipt_key(b"\x31" * 32), receipt_key(b"\x32" * 32)
GIVEN: dict[str, Any] = {"keys": [KEY.public]}


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(walk: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(walk, 60))


def said(receipt: str) -> dict[str, Any]:
    part = receipt.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def test_a_signed_answer_is_taken_with_its_receipt(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind, given_receipts=GIVEN, receipts=KEY) as home:
            for tool, arguments in (("get", {"id": "7"}), ("change", {"id": "7", "note": "é"})):
                done = await home.send(tool, arguments)
                assert isinstance(done, Done), done
                receipt = said(done.receipt)
                seen = home.seen[-1].call
                assert seen is not None
                assert (receipt["iss"], receipt["aud"]) == (AUDIENCE, GATEWAY)
                assert (receipt["txn"], receipt["call_token"]) == (seen.call, seen.token_id)

    run(walk())


@pytest.mark.parametrize("receipts", [None, OTHER], ids=["none", "another key's"])
def test_an_answer_without_a_good_receipt_is_refused_and_a_change_is_not_known(
    tmp_path: Path, kind: str, receipts: Any
) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind, given_receipts=GIVEN, receipts=receipts) as home:
            read = await home.send("get", {"id": "7"})
            assert isinstance(read, Failed)
            assert (read.code, read.unknown) == ("receipt_refused", False)
            changed = await home.send("change", {"id": "7"})
            assert isinstance(changed, Failed)
            assert (changed.code, changed.unknown) == ("receipt_refused", True)
            assert len(home.seen) == 2

    run(walk())


def test_a_receipt_of_an_earlier_answer_is_refused(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind, given_receipts=GIVEN, receipts=KEY) as home:
            answer = await home.ask("GET", "/v1/items/7", home.token("getItem", {"id": "7"}).compact)
            old = answer.headers["onbehalf-receipt"]
            receipts = home.door._receipts
            assert receipts is not None
            later = home.token("getItem", {"id": "7"})
            with pytest.raises(Exception, match="of another call"):
                receipts.require(old, later, answer=answer.content, status=200)

    run(walk())


def test_who_asks_for_no_receipts_takes_the_answer_as_before(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind, receipts=KEY) as home:
            done = await home.send("get", {"id": "7"})
            assert isinstance(done, Done)
            assert done.receipt == ""

    run(walk())


def test_nothing_that_was_not_proven_is_signed_for(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind, receipts=KEY, open_paths={"/healthz"}) as home:
            refused = await home.ask("GET", "/v1/items/7", "x")
            assert told(refused) == (401, "call_token_refused")
            assert "onbehalf-receipt" not in refused.headers
            assert "onbehalf-receipt" not in (await home.ask("GET", "/healthz")).headers

    run(walk())


def test_absence_is_signed_for_too(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind, given_receipts=GIVEN, receipts=KEY, status=404) as home:
            rows = Rows(type="Item", at=("items",), id="id", tenant="tenant", attributes={})
            home.tools["get"] = replace(home.tools["get"], rows=rows)
            done = await home.send("get", {"id": "7"})
            assert isinstance(done, Done)
            assert said(done.receipt)["outcome"]["status"] == 404

    run(walk())
