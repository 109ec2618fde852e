# ruff: noqa: E501  # what is told reads best in one line
"""A transmitter tells a running gateway of security events, and what it says holds for the very next call."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from company import Company, company, said, wait_for
from onbehalf import config
from onbehalf.validate.signals import CAEP, RISC, SSF
from test_app import recorded
from transmitter import AUDIENCE, BEARER, Transmitter, claims_of, push, transmitting


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    monkeypatch.setenv("SIGNALS", BEARER)
    with company(tmp_path / "it") as made:
        yield made


@pytest.fixture
def idp(around: Company) -> Iterator[Transmitter]:
    with transmitting(around.issuer.url) as made:
        yield made


def stream(around: Company, idp: Transmitter, how: str = "push: env:SIGNALS", **more: Any) -> None:
    """Write a stream into the settings."""
    extra = "".join(f", {key}: {value}" for key, value in {"tenant": "acme", **more}.items())
    line = f'{{name: okta, issuer: "{idp.url}", audience: "{AUDIENCE}", logins: "{around.issuer.url}", {how}{extra}}}'
    around.edit("upstreams:\n", f"signals:\n  - {line}\nupstreams:\n")


def code(around: Company, subject: str = "alice-at-login", *, iat: int | None = None) -> str:
    """What a call comes to: "" for done, else why not."""
    changes = {} if iat is None else {"iat": iat}
    answer = around.post("tools/call", token=around.token(subject, **changes), name="notes_list", arguments={})
    if answer.status_code == 401:
        return "401"
    found = answer.json().get("result") or answer.json().get("error")
    return str((found.get("_meta") or found.get("data") or {}).get("onbehalf/denial", {}).get("code", ""))


def test_the_first_call_after_a_pushed_event_is_answered_is_refused(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        assert code(around) == ""
        before = int(time.time())
        token = idp.set(reason_admin={"en": "phished"})
        pushed = push(around.gateway, token)
        assert (pushed.status_code, pushed.content) == (202, b"")
        assert code(around) == "401"
        assert code(around, "bob-at-login") == "not_permitted"  # as ever: he is not of the staff
        assert code(around, iat=before + 29) == "401"  # within what an issuer's clock may be ahead
    listed = said("audit", "list", "--config", around.config)
    assert (listed.code, "signal" in listed.out) == (0, True)
    [made] = recorded(around, "signal")
    assert (made["stream"], made["issuer"], made["id"]) == ("okta", idp.url, claims_of(token)["jti"])
    [event] = made["events"]
    assert (event["type"], event["does"]) == (f"{CAEP}session-revoked", "end")
    assert event["targets"] == [{"kind": "login", "tenant": "acme", "name": f"{around.issuer.url} alice-at-login"}]
    assert token not in str(made)
    with closing(sqlite3.connect(around.directory / "data" / "revocations.db")) as file:
        assert token.rpartition(".")[2] not in "".join(file.iterdump())


def test_who_logs_in_anew_after_a_session_was_revoked_goes_on(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        then = int(time.time()) - 120
        assert push(around.gateway, idp.set("session-revoked", {"event_timestamp": then})).status_code == 202
        assert code(around, iat=then + 30) == "401"
        assert code(around, iat=then + 31) == ""


@pytest.mark.parametrize(
    "name", ["credential-change", "token-claims-change", "assurance-level-change", "device-compliance-change"]
)
def test_other_events_end_tokens_too(around: Company, idp: Transmitter, name: str) -> None:
    stream(around, idp)
    with around.serving():
        assert push(around.gateway, idp.set(name)).status_code == 202
        assert code(around) == "401"


def test_a_disabled_account_stays_out_until_it_is_enabled_and_across_restarts(
    around: Company, idp: Transmitter
) -> None:
    stream(around, idp)
    now = int(time.time())
    disabled = idp.set(f"{RISC}account-disabled", iat=now - 100)
    with around.serving():
        assert push(around.gateway, disabled).status_code == 202
        assert code(around) == "blocked"
    with around.serving():
        assert code(around) == "blocked"
        assert push(around.gateway, idp.set(f"{RISC}account-enabled", iat=now - 50)).status_code == 202
        assert code(around) == ""
        assert push(around.gateway, disabled).status_code == 202  # the same again is known, and undoes nothing
        assert push(around.gateway, idp.set(f"{RISC}account-disabled", iat=now - 90)).status_code == 202  # told late
        assert code(around) == ""
        assert push(around.gateway, idp.set(f"{RISC}account-disabled", iat=now - 10)).status_code == 202
        assert code(around) == "blocked"
        listed = said("revoke", "list", "--config", around.config).out
        assert f"login {around.issuer.url} alice-at-login of acme" in " ".join(listed.split())
        assert said("revoke", "lift", "2", "--config", around.config).code == 0
        wait_for(lambda: code(around, iat=now) == "401", what="lifted, her token older than the block")
        assert push(around.gateway, idp.set(f"{RISC}account-purged", iat=now)).status_code == 202
        assert push(around.gateway, idp.set(f"{RISC}account-enabled", iat=now)).status_code == 202
        assert code(around) == "blocked"  # who was purged is not who is enabled
    assert [each["by"] for each in recorded(around, "revoked")] == ["signal okta"] * 3
    assert len(recorded(around, "signal")) == 6  # one of seven came twice


def test_a_person_is_found_by_the_address_that_the_directory_has(around: Company, idp: Transmitter) -> None:
    stream(around, idp, email="attribute:mail")
    around.edit(
        "{name: Alice Example,", "{name: Alice Example, attributes: {mail: Alice@acme.example},", name="people.yaml"
    )
    with around.serving():
        for address, then in (("bob@acme.example", ""), ("alice@ACME.example", "401")):
            about = {"format": "email", "email": address}
            assert push(around.gateway, idp.set(sub_id=about)).status_code == 202
            assert code(around) == then
    assert [each["events"][0]["why"] for each in recorded(around, "signal")] == [
        "nobody here has that name",
        "the user it names",
    ]


def test_an_account_told_by_address_is_stopped_and_let_go_in_whatever_case(around: Company, idp: Transmitter) -> None:
    stream(around, idp, email="person")
    now = int(time.time())
    people = around.directory / "people.yaml"
    people.write_text(people.read_text().replace("      alice:", "      alice@acme.example:"))
    with around.serving():
        about = {"format": "email", "email": "Alice@Acme.example"}
        assert push(around.gateway, idp.set(f"{RISC}account-disabled", sub_id=about, iat=now - 100)).status_code == 202
        assert code(around) == "blocked"
        about = {"format": "email", "email": "ALICE@acme.example"}
        assert push(around.gateway, idp.set(f"{RISC}account-enabled", sub_id=about, iat=now - 50)).status_code == 202
        assert code(around) == ""


def test_an_unknown_event_or_format_is_answered_as_taken_and_does_nothing(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        assert push(around.gateway, idp.set("made-up")).status_code == 202
        assert (
            push(around.gateway, idp.set(sub_id={"format": "phone_number", "phone_number": "+15550100"})).status_code
            == 202
        )
        assert code(around) == ""
    found = [each["events"][0] for each in recorded(around, "signal")]
    assert [(each["does"], each["targets"]) for each in found] == [("nothing", [])] * 2


def test_what_was_done_and_not_recorded_is_recorded_at_the_next_start(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        assert push(around.gateway, idp.set()).status_code == 202
    path = around.directory / "data" / "revocations.db"
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE signal SET noted = 0, facts = ?", ('{"stream":"okta","id":"lost"}',))
    with around.serving():
        pass
    assert "lost" in {each["id"] for each in recorded(around, "signal")}


def test_what_was_answered_holds_though_the_gateway_is_killed_at_once(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    event = idp.set()
    with around.serving() as process:
        assert push(around.gateway, event).status_code == 202
        process.kill()
        process.wait(timeout=20)
    with around.serving():
        assert code(around) == "401"
        assert push(around.gateway, event).status_code == 202
    assert [each["id"] for each in recorded(around, "signal")] == [claims_of(event)["jti"]]


def test_what_ended_stays_so_when_the_stream_is_taken_out_of_the_settings(around: Company, idp: Transmitter) -> None:
    before = around.config.read_text(encoding="utf-8")
    stream(around, idp)
    with around.serving():
        assert push(around.gateway, idp.set()).status_code == 202
    around.config.write_text(before, encoding="utf-8")
    with around.serving():
        assert code(around) == "401"
        assert push(around.gateway, idp.set()).status_code == 404


def test_an_event_is_fetched_taken_and_acknowledged(around: Company, idp: Transmitter) -> None:
    stream(around, idp, f'poll: {{url: "{idp.url}/poll", secret: env:SIGNALS, wait_seconds: 5}}')
    with around.serving():
        assert code(around) == ""
        wait_for(lambda: bool(idp.polls), what="a poll")
        bad = idp.offer(idp.set(aud="https://other.example"))
        swapped = idp.offer(idp.set("session-revoked"), "another-id")
        noise = idp.offer("not a token", "noise")
        good = idp.offer(idp.set())
        wait_for(lambda: good in idp.acked and {bad, swapped, noise} <= idp.errors.keys(), what="answers")
        assert code(around) == "401"
        assert {id_: each["err"] for id_, each in idp.errors.items()} == {
            bad: "invalid_audience", swapped: "invalid_request", noise: "invalid_request"
        }  # fmt: skip
        assert idp.acked == [good]
        assert push(around.gateway, idp.set()).status_code == 404  # nothing is pushed to this gateway
    assert idp.bearers == {f"Bearer {BEARER}"}
    assert len(recorded(around, "signal_refused")) == 3
    assert "bearer" not in around.served_log().lower()
    assert BEARER not in around.served_log()


def test_a_transmitter_that_fails_is_asked_again_and_nothing_is_lost(around: Company, idp: Transmitter) -> None:
    stream(around, idp, f'poll: {{url: "{idp.url}/poll", secret: env:SIGNALS, wait_seconds: 5, pause_seconds: 0.1}}')
    idp.status = 500
    with around.serving():
        id_ = idp.offer(idp.set())
        wait_for(lambda: len(idp.polls) >= 2, what="two polls")
        assert code(around) == ""
        idp.status, idp.raw = 200, b'{"sets": {"x": {"y": 1}}, "sets": {}}'
        wait_for(lambda: "a member name stands twice" in around.served_log(), what="a strict reader")
        idp.raw = None
        wait_for(lambda: id_ in idp.acked, what="the event")
        assert code(around) == "401"


def test_more_events_than_one_answer_may_have_are_all_taken(around: Company, idp: Transmitter) -> None:
    """The transmitter tells them all at once, whatever it was asked for."""
    stream(around, idp, f'poll: {{url: "{idp.url}/poll", secret: env:SIGNALS, wait_seconds: 5}}')
    ids = {idp.offer(idp.set(jti=f"number-{number}")) for number in range(80)}
    with around.serving():
        wait_for(lambda: set(idp.acked) == ids, what="all acknowledged")
        assert {body["maxEvents"] for body in idp.polls} == {32}
    assert {each["id"] for each in recorded(around, "signal")} == ids


def test_the_gateway_ends_at_once_while_a_poll_is_held_open(around: Company, idp: Transmitter) -> None:
    idp.hold = 60
    stream(around, idp, f'poll: {{url: "{idp.url}/poll", secret: env:SIGNALS, wait_seconds: 60}}')
    with around.serving() as process:
        wait_for(lambda: bool(idp.polls), what="a poll")
        began = time.monotonic()
        process.terminate()
        assert process.wait(timeout=20) == 0, around.served_log()
        assert time.monotonic() - began < 10


def test_a_stream_is_asked_to_verify_and_only_its_own_answer_counts(around: Company, idp: Transmitter) -> None:
    stream(
        around,
        idp,
        verification=f'{{url: "{idp.url}/verify", stream: stream-1, secret: env:SIGNALS, every_seconds: 600}}',
    )
    with around.serving():
        wait_for(lambda: bool(idp.asked), what="the question")
        [asked] = idp.asked
        assert asked["stream_id"] == "stream-1"
        answer = push(around.gateway, idp.verification("made-up"))
        assert (answer.status_code, answer.json()["err"]) == (400, "invalid_state")
        assert push(around.gateway, idp.verification(asked["state"])).status_code == 202


def test_silence_is_said_loudly_and_refuses_nobody_unless_the_stream_is_required(
    around: Company, idp: Transmitter
) -> None:
    stream(around, idp, silent_seconds=2)
    with around.serving():
        wait_for(lambda: "nothing was heard of stream `okta`" in around.served_log(), what="silence")
        assert code(around) == ""
        assert push(around.gateway, idp.set("session-presented")).status_code == 202
        wait_for(lambda: "is heard again" in around.served_log(), what="its end")
    assert len(recorded(around, "signals_silent")) >= 1
    assert len(recorded(around, "signals_heard")) >= 1
    around.edit("silent_seconds: 2", "silent_seconds: 2, required: true")
    time.sleep(2.1)
    with around.serving():
        assert code(around) == "signals_silent"
        assert push(around.gateway, idp.set("session-presented")).status_code == 202
        assert code(around) == ""


def test_a_stream_that_says_it_is_paused_is_said_loudly(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        about = {"format": "opaque", "id": "stream-1"}
        assert (
            push(around.gateway, idp.set(f"{SSF}stream-updated", {"status": "paused"}, sub_id=about)).status_code == 202
        )
        assert "says that it is paused" in around.served_log()
        assert code(around) == ""


def test_the_gateway_starts_while_the_transmitter_is_away(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    around.edit(idp.url, "http://127.0.0.1:1")
    with around.serving():
        assert code(around) == ""
        answer = push(around.gateway, idp.set(iss="http://127.0.0.1:1"))
        assert answer.status_code == 503  # not refused: it is sent again later
        assert code(around) == ""


@pytest.mark.parametrize(("headers", "body", "status", "err"), [
    ({"authorization": "Bearer " + "x" * 40}, None, 400, "authentication_failed"),
    ({"authorization": f"Basic {BEARER}"}, None, 400, "authentication_failed"),
    ({"authorization": ""}, None, 400, "authentication_failed"),
    ({"content-type": "application/json"}, None, 400, "invalid_request"),
    ({"content-type": ""}, None, 400, "invalid_request"),
    ({"content-encoding": "gzip"}, None, 400, "invalid_request"),
    ({}, b"", 400, "invalid_request"), ({}, b"x.y", 400, "invalid_request"), ({}, b"\xff" * 99, 400, "invalid_request"),
    ({}, b"x" * 16_385, 413, "invalid_request"),
])  # fmt: skip
def test_what_is_no_push_is_refused_in_the_words_of_the_rfc(
    around: Company, idp: Transmitter, headers: dict[str, str], body: bytes | None, status: int, err: str
) -> None:
    stream(around, idp)
    with around.serving():
        answer = push(around.gateway, idp.set() if body is None else body, **headers)
        assert (answer.status_code, answer.json()["err"]) == (status, err)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["description"]
        assert BEARER not in answer.text
        assert code(around) == ""
        other = push(around.gateway, idp.set(), name="other")
        wrong = push(around.gateway, idp.set(), authorization="Bearer x")
        assert (other.status_code, other.text) == (wrong.status_code, wrong.text)
        assert (
            httpx2.get(
                f"{around.gateway}/signals/okta", headers={"authorization": f"Bearer {BEARER}"}, trust_env=False
            ).status_code
            == 405
        )


def findings(around: Company) -> dict[str, str]:
    """What `onbehalf check` says of streams: the level by the text."""
    told = json.loads(said("check", "--json", "--config", around.config).out)["findings"]
    return {each["text"]: each["level"] for each in told if each["what"].startswith("signals")}


def test_the_check_says_how_a_stream_fares(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    assert findings(around) == {
        "was never heard": "warning", "that it is silent is never noticed: `silent_seconds` is not set": "warning"
    }  # fmt: skip
    around.edit("tenant: acme}", "tenant: acme, silent_seconds: 1}")
    with around.serving():
        assert push(around.gateway, idp.set("session-presented")).status_code == 202
        [(text, level)] = findings(around).items()
        assert ("was last heard" in text, level) == (True, "ok")
        about = {"format": "opaque", "id": "stream-1"}
        push(around.gateway, idp.set(f"{SSF}stream-updated", {"status": "disabled"}, sub_id=about))
        assert findings(around) == {"said of itself that it is disabled": "problem"}
    time.sleep(2.1)
    assert set(findings(around).values()) == {"problem"}
    idp.published = []
    assert "it publishes no key that can be used here" in str(findings(around))


@pytest.mark.parametrize(("old", "new", "says"), [
    ("push: env:SIGNALS", "push: env:NOBODY_SET_THIS", "signals.push"), ("push: env:SIGNALS", "push: env:SHORT", "fewer than 32"),
    ("tenant: acme}", "tenant: acme, unclear: maybe}", "maybe"), ("tenant: acme}", "tenant: acme, mail: x}", "known keys are"),
    ("tenant: acme}", "tenant: acme, email: mail}", "signals"),
    ("push: env:SIGNALS", "push: env:SIGNALS, poll: {url: 'http://x.example', secret: env:SIGNALS}", "one of `push` and `poll`"),
    ("push: env:SIGNALS", "poll: {url: 'http://x.example', secret: env:SIGNALS}", "is not https"),
])  # fmt: skip
def test_what_is_wrong_with_the_settings_is_said(
    around: Company, idp: Transmitter, monkeypatch: pytest.MonkeyPatch, old: str, new: str, says: str
) -> None:
    monkeypatch.setenv("SHORT", "x" * 31)
    stream(around, idp)
    line = next(each for each in around.config.read_text(encoding="utf-8").splitlines() if "name: okta" in each)
    around.edit(line, line.replace(old, new))
    told = said("check", "-c", around.config)
    assert told.code == 1
    assert says in " ".join(told.out.split())


def test_the_examples_of_the_page_are_streams() -> None:
    text = (Path(__file__).parents[1] / "docs" / "signals.md").read_text(encoding="utf-8")
    first, poll, verification = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    issuer = "https://acme.okta.example/oauth2/default"
    around = f'gateway: {{resource: "https://gateway.example.com/mcp"}}\nissuers: [{{issuer: "{issuer}", tenant: acme}}]\nupstreams: {{}}\n'
    [pushed] = config.parse(around + first).signals
    assert pushed.push == "env:SIGNALS_OKTA"
    line = next(each for each in first.splitlines(keepends=True) if "push:" in each)
    [fetched] = config.parse(around + first.replace(line, poll)).signals
    assert fetched.poll is not None
    line = next(each for each in first.splitlines(keepends=True) if "silent_seconds:" in each)
    [asked] = config.parse(around + first.replace(line, verification)).signals
    assert asked.verification is not None
