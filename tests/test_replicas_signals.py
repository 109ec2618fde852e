"""Two gateways that remember together in one PostgreSQL: security events come to one of them and hold on both."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from company import Company, company, said, wait_for
from onbehalf.validate.signals import RISC
from postgres import run
from replica_house import beside, remembering
from state_house import state_database
from test_app import recorded
from transmitter import AUDIENCE, BEARER, Transmitter, push, transmitting

_HOLDERS = """SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE locktype = 'advisory' AND granted AND datname = current_database()"""
WITHIN_S = 5
"""A second, for a machine that is slow and loaded."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both gateways, of which `here` began first, and the transmitter of one pushed and one fetched stream."""

    here: Company
    there: Company
    process: subprocess.Popen[str]
    idp: Transmitter
    dsn: str

    def code(self, at: Company, *, iat: int | None = None) -> str:
        """What Alice's call to one of them comes to: "" for done, else why not."""
        token = self.here.token(**({} if iat is None else {"iat": iat}))
        answer = at.post("tools/call", token=token, name="notes_list", arguments={})
        if answer.status_code == 401:
            return "401"
        found = answer.json().get("result") or answer.json().get("error")
        return str((found.get("_meta") or found.get("data") or {}).get("onbehalf/denial", {}).get("code", ""))

    def holders(self) -> int:
        ((count,),) = run(self.dsn, _HOLDERS)
        return int(count)


@pytest.fixture(scope="module")
def pair(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SIGNALS", BEARER)
        dsn = stack.enter_context(state_database(postgres))
        here = stack.enter_context(company(tmp_path_factory.mktemp("signals") / "here"))
        idp = stack.enter_context(transmitting(here.issuer.url))
        idp.hold = 1.0
        told = f'issuer: "{idp.url}", logins: "{here.issuer.url}", tenant: acme, silent_seconds: 600, required: true'
        streams = [
            f'{{name: okta, audience: "{AUDIENCE}", {told}, push: env:SIGNALS}}',
            f'{{name: fetched, audience: "{AUDIENCE}/2", {told}, '
            f'poll: {{url: "{idp.url}/poll", secret: env:SIGNALS, pause_seconds: 0.1}}}}',
        ]
        here.edit("upstreams:\n", "signals:\n" + "".join(f"  - {each}\n" for each in streams) + "upstreams:\n")
        remembering(here, dsn)
        process = stack.enter_context(here.serving())
        there = beside(here)
        stack.enter_context(there.serving())
        yield Pair(here=here, there=there, process=process, idp=idp, dsn=dsn)


def test_the_first_call_after_a_pushed_event_is_refused_where_it_came_and_soon_everywhere(pair: Pair) -> None:
    then = int(time.time()) - 120
    assert [pair.code(at, iat=then) for at in (pair.here, pair.there)] == ["", ""]
    assert push(pair.there.gateway, pair.idp.set("session-revoked", {"event_timestamp": then})).status_code == 202
    assert pair.code(pair.there, iat=then) == "401"
    wait_for(lambda: pair.code(pair.here, iat=then) == "401", what="the other gateway", seconds=WITHIN_S)
    assert [pair.code(at) for at in (pair.here, pair.there)] == ["", ""], "who logs in anew goes on"


def test_one_event_that_comes_to_both_at_once_is_taken_by_one_and_on_record_once(pair: Pair) -> None:
    token = pair.idp.set("session-revoked", {"event_timestamp": int(time.time()) - 120}, jti="to both")
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda at: push(at.gateway, token).status_code, (pair.here, pair.there) * 3))
    assert answers == [202] * 6
    wait_for(
        lambda: run(pair.dsn, "SELECT noted FROM onbehalf_state.signal WHERE id = 'to both'") == [(True,)],
        what="the record",
    )
    kept = [each for at in (pair.here, pair.there) for each in recorded(at, "signal") if each["id"] == "to both"]
    assert len(kept) == 1


def test_a_disabled_account_is_stopped_by_one_gateway_and_let_go_by_the_other_on_both(pair: Pair) -> None:
    now = int(time.time())
    assert push(pair.here.gateway, pair.idp.set(f"{RISC}account-disabled", iat=now - 100)).status_code == 202
    assert pair.code(pair.here) == "blocked"
    wait_for(lambda: pair.code(pair.there) == "blocked", what="the other gateway", seconds=WITHIN_S)
    assert push(pair.there.gateway, pair.idp.set(f"{RISC}account-enabled", iat=now - 50)).status_code == 202
    assert pair.code(pair.there) == ""
    wait_for(lambda: pair.code(pair.here) == "", what="the other gateway", seconds=WITHIN_S)


def test_check_says_when_any_of_them_heard_a_stream(pair: Pair) -> None:
    wait_for(lambda: bool(run(pair.dsn, "SELECT 1 FROM onbehalf_state.stream WHERE name = 'fetched'")), what="a poll")
    told = " ".join(said("check", "--config", pair.there.config).out.split())
    assert "signals okta: was last heard" in told, told
    assert "signals fetched: was last heard" in told, told


def test_a_stream_is_fetched_by_one_gateway_until_it_is_killed_and_then_by_the_other(pair: Pair) -> None:
    wait_for(lambda: pair.holders() == 1, what="one that fetches")
    now = int(time.time())
    first = pair.idp.offer(pair.idp.set(f"{RISC}account-disabled", aud=f"{AUDIENCE}/2", iat=now - 40))
    wait_for(lambda: first in pair.idp.acked, what="what was fetched")
    for at in (pair.here, pair.there):
        wait_for(lambda at=at: pair.code(at) == "blocked", what="both", seconds=WITHIN_S)  # type: ignore[misc]
    pair.process.kill()
    pair.process.wait()
    second = pair.idp.offer(pair.idp.set(f"{RISC}account-enabled", aud=f"{AUDIENCE}/2", iat=now - 30))
    wait_for(lambda: second in pair.idp.acked, what="the other one", seconds=60)
    wait_for(lambda: pair.code(pair.there) == "", what="what was fetched", seconds=WITHIN_S)
    wait_for(lambda: pair.holders() == 1, what="one that fetches")
