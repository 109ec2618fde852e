"""Looking from outside is bounded, follows nothing, and says of every failure what it was."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from doors.issuer_house import issuing
from onbehalf.doors.outbound_look import Answer, Looker, is_loopback, is_public


def looked(url: str, *, seconds: float = 5.0, max_bytes: int = 4096) -> Answer:
    async def run() -> Answer:
        looker = Looker(seconds=seconds, max_bytes=max_bytes)
        try:
            return await looker.get(url)
        finally:
            await looker.aclose()

    return asyncio.run(run())


def test_a_redirect_is_told_and_not_followed() -> None:
    with issuing() as here, issuing() as there:
        here.answers["/x"] = (302, {"location": f"{there.url}/x"}, b"")
        told = looked(f"{here.url}/x")
        assert (told.status, told.headers["location"], told.problem) == (302, f"{there.url}/x", "")
        assert there.asked.total() == 0


def test_an_answer_is_read_up_to_its_bound_and_one_byte_more_is_a_problem() -> None:
    with issuing() as here:
        for size, problem in ((4096, ""), (4097, "its answer is larger than 4096 bytes")):
            here.answers["/x"] = (200, {}, json.dumps({"a": "b" * (size - 9)}).encode().ljust(size))
            told = looked(f"{here.url}/x")
            assert told.problem == problem
            assert bool(told.body) == (not problem)


def test_a_server_that_is_too_slow_is_given_up() -> None:
    with issuing() as here:
        here.pause = 3
        began = time.monotonic()
        told = looked(f"{here.url}/x", seconds=0.3)
        assert time.monotonic() - began < 2
        assert told.problem == "it did not answer within 0.3 s"
        assert told.seconds == 0.3


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"a": 1, "a": 2}', b"[" * 3000, b"\xff"])
def test_what_is_no_unambiguous_object_is_no_body(body: bytes) -> None:
    with issuing() as here:
        here.answers["/x"] = (200, {}, body)
        told = looked(f"{here.url}/x")
        assert (told.status, told.body, told.problem) == (200, {}, "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "https://127.0.0.1:1/x", "http://[::1", "nonsense"])
def test_what_cannot_be_reached_is_a_problem_and_no_exception(url: str) -> None:
    assert looked(url, seconds=2).problem


def test_whose_addresses_are_public_is_told() -> None:
    assert asyncio.run(is_public("http://127.0.0.1/x")) is False
    assert asyncio.run(is_public("https://10.1.2.3/x")) is False
    assert asyncio.run(is_public("https://[fe80::1]/x")) is False
    assert asyncio.run(is_public("https://8.8.8.8/x")) is True
    assert asyncio.run(is_public("https://name.invalid/x")) is None
    assert [is_loopback(each) for each in ("http://127.1.2.3", "http://localhost.evil.example", "http://[::1]:1")] == [
        True, False, True,
    ]  # fmt: skip
