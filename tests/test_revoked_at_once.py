"""How soon a person who is stopped is refused, by each way of stopping, while a real MCP client calls in a loop.

What is asserted of signals and SCIM is order and not luck: no call that begins after the answer to the transmitter, or
after it saw its event acknowledged, is done. The times are printed (`-s`); docs/signals.md has a measured run.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from company import Company, company, wait_for
from onbehalf.doors.revocations_sqlite import Revocations
from onbehalf.model import UnixTime
from onbehalf.validate.signals import RISC
from test_app_scim import Provider
from transmitter import AUDIENCE, BEARER, Transmitter, push, transmitting

SCIM_SECRET = "s" * 40
LOOK_SECONDS = 0.05
"""How old what the gateway knows of another process's writing may be."""
ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the loop: when it began and ended by the monotonic clock, and whether it was done."""

    began: float
    ended: float
    done: bool


@dataclass
class Loop:
    """Somebody who calls without a pause, with one token, until told to stop."""

    url: str
    token: str
    calls: list[Call] = field(default_factory=list)
    stop: bool = False

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        while not self.stop:
            began = time.monotonic()
            try:
                async with (
                    httpx2.AsyncClient(headers={"Authorization": f"Bearer {self.token}"}, trust_env=False) as http,
                    Client(streamable_http_client(self.url, http_client=http), mode="2026-07-28") as client,
                ):
                    while not self.stop:
                        began = time.monotonic()
                        result = await client.call_tool("notes_list", {})
                        self._kept(began, done=not result.is_error)
            except BaseException as error:  # a token that is worth nothing ends the SDK's client
                if isinstance(error, KeyboardInterrupt):
                    raise
                self._kept(began, done=False)

    def _kept(self, began: float, *, done: bool) -> None:
        self.calls.append(Call(began=began, ended=time.monotonic(), done=done))


@contextmanager
def calling(around: Company, token: str) -> Iterator[Loop]:
    """Somebody calls in a thread; entered when calls are done, left when several more were tried."""
    loop = Loop(url=f"{around.gateway}/mcp", token=token)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: sum(call.done for call in loop.calls) >= 5, what="calls", said=around.served_log)
        yield loop
        left = time.monotonic() + LOOK_SECONDS
        wait_for(lambda: sum(call.began > left for call in loop.calls) >= 3, what="more calls", said=around.served_log)
    finally:
        loop.stop = True
        thread.join(timeout=20)
    assert not thread.is_alive()


def refused_after(loop: Loop, at: float, *, since: float) -> float:
    """That no call which began after `at` was done, and some were tried; and that every one that ended before `since`
    was. How long after `since` the first was refused, in seconds."""
    assert all(call.done for call in loop.calls if call.ended < since)
    after = [call for call in loop.calls if call.began > at]
    assert len(after) >= 3
    assert not any(call.done for call in after)
    return next(call for call in loop.calls if not call.done).ended - since


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    monkeypatch.setenv("SIGNALS", BEARER)
    with company(tmp_path / "it") as made:
        yield made


@pytest.fixture
def idp(around: Company) -> Iterator[Transmitter]:
    with transmitting(around.issuer.url) as made:
        yield made


def stream(around: Company, idp: Transmitter, how: str) -> None:
    names = f'name: okta, issuer: "{idp.url}", audience: "{AUDIENCE}", tenant: acme, logins: "{around.issuer.url}"'
    around.edit("upstreams:\n", f"signals: [{{{names}, {how}}}]\nupstreams:\n")


def told(what: str, times: list[float]) -> None:
    middle, worst = statistics.median(times) * 1000, max(times) * 1000
    sys.stdout.write(
        f"\n{what}: first refusal after {middle:.0f} ms (median of {len(times)}), {worst:.0f} ms at most\n"
    )


def test_by_a_pushed_event_no_call_after_the_answer_is_done(around: Company, idp: Transmitter) -> None:
    stream(around, idp, "push: env:SIGNALS")
    with around.serving():
        start = int(time.time()) - 1000
        times = []
        for number in range(ROUNDS):  # each time a newer token, that the next event ends
            with calling(around, around.token(iat=start + 100 * number + 50)) as loop:
                sent = time.monotonic()
                event = idp.set("session-revoked", {"event_timestamp": start + 100 * number + 60})
                assert push(around.gateway, event).status_code == 202
                answered = time.monotonic()
            times.append(refused_after(loop, answered, since=sent))
    told("session-revoked, pushed, from its being sent", times)


def test_by_a_disabled_account_no_call_after_the_answer_is_done(around: Company, idp: Transmitter) -> None:
    stream(around, idp, "push: env:SIGNALS")
    with around.serving(), calling(around, around.token()) as loop:
        sent = time.monotonic()
        assert push(around.gateway, idp.set(f"{RISC}account-disabled")).status_code == 202
        answered = time.monotonic()
    told("account-disabled, pushed, from its being sent", [refused_after(loop, answered, since=sent)])


def test_by_a_fetched_event_no_call_after_it_was_acknowledged_is_done(around: Company, idp: Transmitter) -> None:
    stream(around, idp, f'poll: {{url: "{idp.url}/poll", secret: env:SIGNALS, wait_seconds: 30}}')
    with around.serving():
        start = int(time.time()) - 1000
        times = []
        for number in range(ROUNDS):
            with calling(around, around.token(iat=start + 100 * number + 50)) as loop:
                event = idp.set("session-revoked", {"event_timestamp": start + 100 * number + 60})
                offered = time.monotonic()
                idp.offer(event)
                wait_for(lambda number=number: len(idp.acked) > number, what="its acknowledgement")
                acked = time.monotonic()
            times.append(refused_after(loop, acked, since=offered))
    told("session-revoked, fetched by a poll that is held open, from its being there", times)


def test_by_scim_no_call_after_the_answer_is_done(around: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIM_ACME", SCIM_SECRET)
    pushed = f'scim: [{{tenant: acme, issuer: "{around.issuer.url}", secret: "env:SCIM_ACME"}}]'
    around.edit("upstreams:\n", f"directory: {{{pushed}}}\nupstreams:\n")
    (around.directory / "people.yaml").write_text("tenants: {}\n")
    policy = around.directory / "policies" / "own.cedar"
    policy.write_text(policy.read_text().replace('principal in Group::"acme/staff"', "principal"))
    with around.serving():
        provider = Provider(base=f"{around.gateway}/scim/v2/acme", secret=SCIM_SECRET)
        alice, times = provider.add("alice"), []
        for _ in range(ROUNDS):
            with calling(around, around.token()) as loop:
                sent = time.monotonic()
                ops = {"Operations": [{"op": "replace", "path": "active", "value": False}]}
                assert provider.send("PATCH", f"Users/{alice}", ops).status_code == 200
                answered = time.monotonic()
            times.append(refused_after(loop, answered, since=sent))
            ops = {"Operations": [{"op": "replace", "path": "active", "value": True}]}
            assert provider.send("PATCH", f"Users/{alice}", ops).status_code == 200
    told("SCIM `active: false`, from its being sent", times)


def test_by_onbehalf_revoke_in_another_process_calls_are_refused_soon(around: Company) -> None:
    command = [sys.executable, "-m", "onbehalf.cli.main", "revoke", "person", "alice", "--reason", "x"]
    with around.serving(), calling(around, around.token()) as loop:
        began = time.monotonic()
        subprocess.run([*command, "--config", str(around.config)], check=True, capture_output=True, timeout=60)
        ended = time.monotonic()
    told("onbehalf revoke, from its start as a process", [refused_after(loop, ended + LOOK_SECONDS, since=began)])


def test_what_another_process_writes_refuses_the_first_call_50_ms_later(around: Company) -> None:
    with around.serving():
        file, times = Revocations.open(around.directory / "data" / "revocations.db"), []
        for _ in range(ROUNDS):
            with calling(around, around.token(iat=int(time.time()) + 29)) as loop:
                began = time.monotonic()
                made = file.add(
                    "person", "acme", "alice", at=UnixTime(1), blocks=True, by="root", reason="as the command does"
                )
                written = time.monotonic()
            times.append(refused_after(loop, written + LOOK_SECONDS, since=began))
            file.lift(made.id, at=UnixTime(2), by="root")
            time.sleep(0.1)  # until that is seen
        file.close()
    told("a revocation, from its being written by another process", times)
