"""A call whose person's token was over is sent once more, and a backend that takes each call token once takes both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from doors.test_upstream_mcp_bearer import Bearers
from doors.upstream_house import Backend, answer, result_of, serving
from house import NOW, Doors, house, request
from onbehalf.backend.asgi import CallTokenMiddleware
from onbehalf.backend.calls import SqliteCalls
from onbehalf.doors.signer_file import FileSigner
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.explain.channel import channel_of
from onbehalf.explain.reconcile import Asked, Row, Sending, account, end_of
from onbehalf.explain.story import Record, story
from onbehalf.gateway import Gateway
from onbehalf.model import Digest, Presented, Reply, UnixTime

GATEWAY, AUDIENCE = "https://gateway.test", "https://reports.test/mcp"
DANA = Presented(token="dana")


@dataclass
class Shop:
    """A gateway, and a backend that keeps each call token's row before the app sees the call."""

    gateway: Gateway
    doors: Doors
    calls: SqliteCalls
    reached: list[str] = field(default_factory=list)

    def compared(self) -> Any:
        """The gateway's record held against the backend's."""
        outcomes = {each.facts["intent"]["index"]: each for each in self.doors.entries if "intent" in each.facts}  # type: ignore[index,call-overload]  # as entries makes them
        channel = channel_of("house", AUDIENCE)
        sendings = [
            Sending(
                index=index, leaf=self.doors.receipt(index).leaf, call=entry.call, channel=channel, at=entry.at,
                number=self.doors.receipt(index).number, end=end_of("outcome", outcomes[index].facts["outcome"]),
            )
            for index, entry in enumerate(self.doors.entries) if entry.kind == "intent"
        ]  # fmt: skip
        rows = [
            Row(token=str(row["token"]), at=UnixTime(NOW), channel=str(row["channel"]), n=int(str(row["n"])))
            for row in self.calls.rows()
        ]
        return account(Asked(audience=AUDIENCE, channel=channel, sendings=sendings, rows=rows, now=UnixTime(NOW + 99)))


def with_shop(directory: Path, act: Callable[[Shop], Awaitable[Any]], *, good: str, anew: bool = True) -> Any:
    """What `act` gives, where the app behind the check of call tokens takes the bearer `good` alone."""

    async def walk() -> Any:
        gateway, doors = house(directory)
        shop = Shop(gateway, doors, SqliteCalls(directory / "calls.db"))
        doors.audience = AUDIENCE

        async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
            shop.reached.append(headers["authorization"])
            fits = headers["authorization"] == f"Bearer {good}"
            await answer(send, result_of(message) if fits else b"", status=200 if fits else 401)

        signer = FileSigner.open(directory / "keys", issuer=GATEWAY, now=UnixTime(0))
        app = CallTokenMiddleware(
            Backend(reply), issuer=GATEWAY, audience=AUDIENCE, jwks=signer.jwks(), calls=shop.calls,
            clock=lambda: UnixTime(NOW),
        )  # fmt: skip
        async with serving(app) as url:
            door = McpUpstreamServer(
                f"{url}/mcp", audience=AUDIENCE, protocol="2026-07-28", timeout=5, response_bytes=100_000,
                authorizer=Bearers(anew=anew),
            )  # fmt: skip
            offers = {name: replace(each, upstream=door) for name, each in gateway.standing().offers.items()}
            standing = replace(gateway.standing(), offers=offers)
            shop.gateway = replace(gateway, signer=signer, standing=lambda: standing)
            try:
                return await act(shop)
            finally:
                await door.aclose()
                shop.calls.close()

    return asyncio.run(walk())


def test_a_token_refused_once_makes_two_sendings_each_of_its_own_record_number_and_call_token(tmp_path: Path) -> None:
    async def act(shop: Shop) -> tuple[Shop, Reply, Any, Any]:
        reply = await shop.gateway.call(DANA, request("reviews_report"))
        return shop, reply, [*shop.calls.rows()], shop.compared()

    shop, reply, rows, compared = with_shop(tmp_path, act, good="dana.1")
    assert not reply.denial, reply.content
    assert shop.reached == ["Bearer dana.0", "Bearer dana.1"]
    assert [each.kind for each in shop.doors.entries] == ["intent", "outcome", "intent", "outcome"]
    assert [each.facts["outcome"]["status"] for each in shop.doors.entries[1::2]] == ["failed", "done"]  # type: ignore[index,call-overload]
    assert [(row["n"], row["token"]) for row in rows] == [(1, f"{reply.call}.0"), (2, f"{reply.call}.2")]
    assert compared.findings == []
    assert (compared.complete, compared.counts["matched"]) == (True, 2)
    first, again = shop.doors.entries[::2]
    assert "after" not in first.facts
    assert again.facts["after"] == {"index": 0, "leaf": shop.doors.receipt(0).leaf}


def test_the_story_of_a_call_that_was_sent_once_more_says_so_and_ends_as_the_last_did(tmp_path: Path) -> None:
    async def act(shop: Shop) -> Shop:
        await shop.gateway.call(DANA, request("reviews_report"))
        return shop

    shop = with_shop(tmp_path, act, good="dana.1")
    told = story([
        Record(index=index, leaf=Digest(""), kind=each.kind, call=each.call, at=each.at, facts=each.facts)
        for index, each in enumerate(shop.doors.entries)
    ])  # fmt: skip
    assert told.ending == "done"
    [line] = [each.text for each in told.lines if "sent once more" in each.text]
    assert "not been answered with more than a refusal" in line


def test_what_is_refused_again_is_not_sent_a_third_time(tmp_path: Path) -> None:
    async def act(shop: Shop) -> tuple[Shop, Reply, Any]:
        return shop, await shop.gateway.call(DANA, request("reviews_report")), shop.compared()

    shop, reply, compared = with_shop(tmp_path, act, good="never")
    assert (reply.denial, len(shop.reached)) == ("upstream_refused", 2)
    assert [each.kind for each in shop.doors.entries] == ["intent", "outcome", "intent", "outcome"]
    assert compared.complete


def test_what_no_other_token_can_be_had_for_is_sent_once(tmp_path: Path) -> None:
    async def act(shop: Shop) -> tuple[Shop, Reply]:
        return shop, await shop.gateway.call(DANA, request("reviews_report"))

    shop, reply = with_shop(tmp_path, act, good="dana.1", anew=False)
    assert (reply.denial, len(shop.reached)) == ("upstream_refused", 1)
