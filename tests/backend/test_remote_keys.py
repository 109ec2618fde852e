"""Keys from a URL: fetched late, kept for a while, believed through an outage, and no longer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from backend.forging import KEY, encoded
from backend.serving import KeyServer, served
from onbehalf.backend import RemoteKeys
from onbehalf.backend.keys import CACHE_S, OUTAGE_S, RETRY_S, fetch_keys
from onbehalf.errors import CallKeysUnavailable, CallTokenRefused

URL = "https://gateway.test/jwks"


BLOCKING: ContextVar[bool] = ContextVar("blocking", default=False)


@pytest.fixture(autouse=True, params=[False, True], ids=["awaited", "blocking"])
def either_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """What holds of keys holds whether they are awaited, or asked for by a thread."""
    token = BLOCKING.set(request.param)
    yield
    BLOCKING.reset(token)


class Source:
    """A gateway that answers with some key ids, or not at all, at a time that is set."""

    def __init__(self, *kids: str) -> None:
        self.kids: tuple[str, ...] | None = kids
        self.now = 1000.0
        self.asked = 0

    def fetch(self, url: str) -> bytes:
        self.asked += 1
        if self.kids is None:
            raise OSError("unreachable")
        x = encoded(bytes(KEY.verify_key))
        return json.dumps(
            {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid} for kid in self.kids]}
        ).encode()

    def keys(self) -> RemoteKeys:
        return RemoteKeys(URL, issuer="i", timer=lambda: self.now, fetch=self.fetch)


def found(keys: RemoteKeys, kid: str) -> bool:
    try:
        key = keys.find_blocking(kid) if BLOCKING.get() else asyncio.run(keys.find(kid))
        return key == bytes(KEY.verify_key)
    except CallKeysUnavailable:
        raise
    except CallTokenRefused:
        return False


def test_keys_are_kept_for_their_time_and_then_fetched_again() -> None:
    source = Source("a")
    keys = source.keys()
    for later, asked in ((0, 1), (CACHE_S, 1), (1, 2)):
        source.now += later
        assert found(keys, "a")
        assert source.asked == asked


def test_an_unknown_key_is_asked_for_once_in_a_while() -> None:
    source = Source("a")
    keys = source.keys()
    assert found(keys, "a")
    source.kids = ("a", "b")
    assert not found(keys, "b")
    source.now += RETRY_S
    assert found(keys, "b")
    assert not found(keys, "c")
    assert source.asked == 2


def test_known_keys_are_believed_through_an_outage_and_no_longer() -> None:
    source = Source("a")
    keys = source.keys()
    assert found(keys, "a")
    source.kids = None
    source.now += OUTAGE_S
    assert found(keys, "a")
    source.now += 1
    with pytest.raises(CallKeysUnavailable):
        found(keys, "a")
    source.kids = ("a",)
    source.now += RETRY_S
    assert found(keys, "a")


def test_a_withdrawn_key_is_no_longer_believed_when_keys_are_fetched_again() -> None:
    source = Source("a")
    keys = source.keys()
    assert found(keys, "a")
    source.kids = ("b",)
    source.now += CACHE_S + 1
    assert not found(keys, "a")


def test_without_any_answer_no_key_is_known() -> None:
    source = Source()
    keys = source.keys()
    for _ in range(2):
        with pytest.raises(CallKeysUnavailable):
            found(keys, "a")
    assert source.asked == 1


@pytest.mark.parametrize(("status", "size"), [(200, 100_000), (302, 1), (404, 1), (204, 1)])
def test_an_answer_that_is_too_long_or_not_the_thing_itself_is_refused(status: int, size: int) -> None:
    async def walk() -> None:
        answer: dict[str, Any] = {"x": "y" * size}
        server = KeyServer(lambda: answer)
        server.status = status
        async with served(server) as origin:
            with pytest.raises(ValueError, match="the answer is"):
                await asyncio.to_thread(fetch_keys, f"{origin}/jwks?a=b")

    asyncio.run(walk())


def test_of_many_threads_one_fetches_and_the_others_wait_for_it() -> None:
    source = Source("a")
    slow, go_on = source.fetch, threading.Event()

    def fetch(url: str) -> bytes:
        go_on.wait(10)
        return slow(url)

    keys = RemoteKeys(URL, issuer="i", timer=lambda: source.now, fetch=fetch)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(keys.find_blocking, "a") for _ in range(8)]
        go_on.set()
        assert {each.result(10) for each in asked} == {bytes(KEY.verify_key)}
    assert source.asked == 1
