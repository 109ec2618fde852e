"""Calls that end because someone else does: the server, the client, or the clock."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from doors.inbound_house import Door, call, door


def old_call(word: str, *, id: int = 5) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo", "arguments": {"word": word}}}


async def started(at: Door, era: str) -> asyncio.Task[httpx.Response]:
    """A call under way in the house."""
    if era == "modern":
        task = asyncio.create_task(at.post(call("hang")))
    else:
        task = asyncio.create_task(at.legacy(old_call("hang"), session=await at.open_session()))
    await asyncio.wait_for(at.house.entered.wait(), 5)
    return task


async def closed(at: Door) -> None:
    """Until the port takes no more connections."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", at.port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_clean_shutdown_lets_a_call_in_flight_end(era: str) -> None:
    async def run() -> None:
        async with door() as at:
            under_way = await started(at, era)
            at.server.should_exit = True
            await closed(at)
            at.house.release.set()
            answer = await under_way
            assert answer.status_code == 200
            assert answer.json()["result"]["structuredContent"]["word"] == "hang"
            assert not at.house.cancelled.is_set()

    asyncio.run(run())


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_call_that_outlasts_the_shutdown_is_cancelled_so_that_the_house_can_record_it(era: str) -> None:
    async def run() -> None:
        async with door() as at:
            under_way = await started(at, era)
            at.server.should_exit = True
            await asyncio.wait_for(at.house.cancelled.wait(), 5)
            with pytest.raises(httpx.HTTPError):
                (await under_way).raise_for_status()
        assert at.house.cancelled.is_set()

    asyncio.run(run())


def test_an_older_client_cancels_by_notification_and_its_place_is_free_again() -> None:
    async def run() -> None:
        async with door() as at:
            session = await at.open_session()
            under_way = asyncio.create_task(at.legacy(old_call("hang"), session=session))
            await at.house.entered.wait()
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
            assert (await at.legacy(cancel, token="bob", session=session)).status_code == 404
            assert not at.house.cancelled.is_set()
            assert (await at.legacy(cancel, session=session)).status_code == 202
            await asyncio.wait_for(at.house.cancelled.wait(), 5)
            assert "error" in (await under_way).json()
            assert at.app._calls == 0
            assert (await at.legacy(old_call("again"), session=session)).status_code == 200

    asyncio.run(run())


def test_an_older_call_goes_on_without_its_connection_and_frees_its_place_when_done() -> None:
    async def run() -> None:
        async with door() as at:
            under_way = await started(at, "legacy")
            under_way.cancel()
            await asyncio.sleep(0.05)
            assert not at.house.cancelled.is_set()
            at.house.release.set()
            async with asyncio.timeout(5):
                while at.app._calls:
                    await asyncio.sleep(0.005)

    asyncio.run(run())


@pytest.mark.parametrize("second", [5, "5"])
def test_a_second_request_of_one_id_in_a_session_is_refused_while_the_first_is_under_way(second: Any) -> None:
    async def run() -> None:
        async with door() as at:
            session = await at.open_session()
            first = asyncio.create_task(at.legacy(old_call("hang"), session=session))
            await at.house.entered.wait()
            answer = await at.legacy(old_call("other", id=second), session=session)
            assert answer.status_code == 400
            assert answer.json()["error"]["data"]["onbehalf/denial"]["code"] == "request_refused"
            elsewhere = await at.legacy(old_call("other", id=second), session=await at.open_session())
            assert elsewhere.status_code == 200
            at.house.release.set()
            assert (await first).json()["result"]["structuredContent"]["word"] == "hang"
            assert (await at.legacy(old_call("other", id=second), session=session)).status_code == 200

    asyncio.run(run())
