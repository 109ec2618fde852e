# ruff: noqa: E501  # what is tried reads best in one line
"""What somebody could try with security events against a running gateway, each test named for what it tries.

Whoever attacks here has the bearer of the stream, unless the test says otherwise: it is the lesser of the two proofs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from company import Company, company, wait_for
from identify import events, minting
from identify.minting import b64, key_for, public
from onbehalf.validate.signals import RISC
from test_app import recorded
from test_app_signals import code, stream
from transmitter import AUDIENCE, BEARER, Transmitter, claims_of, push, transmitting

THEIRS = "t" * 40


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    monkeypatch.setenv("SIGNALS", BEARER)
    monkeypatch.setenv("THEIRS", THEIRS)
    with company(tmp_path / "it") as made:
        yield made


@pytest.fixture
def idp(around: Company) -> Iterator[Transmitter]:
    with transmitting(around.issuer.url) as made:
        yield made


def unsigned(idp: Transmitter) -> str:
    return idp.set().rpartition(".")[0] + "."


def alg_none(idp: Transmitter) -> str:
    head = b64(json.dumps({"typ": "secevent+jwt", "alg": "none", "kid": "t-1"}).encode())
    return f"{head}.{idp.set().split('.')[1]}."


def hs256_with_the_public_key(idp: Transmitter) -> str:
    pem = key_for("ES256", "transmitter").public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[union-attr]
    signing_input = (
        f"{b64(json.dumps({'typ': 'secevent+jwt', 'alg': 'HS256', 'kid': 't-1'}).encode())}.{idp.set().split('.')[1]}"
    )
    return f"{signing_input}.{b64(hmac.new(pem, signing_input.encode(), hashlib.sha256).digest())}"


def a_key_of_its_own_in_the_header(idp: Transmitter) -> str:
    return events.mint(claims_of(idp.set()), key=key_for("ES256", "evil"), kid="t-1", jwk=public("ES256", "evil"))


def another_key_under_the_same_id(idp: Transmitter) -> str:
    return events.mint(claims_of(idp.set()), key=key_for("ES256", "evil"), kid="t-1")


def an_access_token(idp: Transmitter) -> str:
    now = int(time.time())
    body = minting.claims(iss=idp.url, aud=AUDIENCE, iat=now, exp=now + 600)
    return minting.mint(body, key=key_for("ES256", "transmitter"), kid="t-1")


def a_set_said_to_be_an_access_token(idp: Transmitter) -> str:
    return events.mint(claims_of(idp.set()), key=key_for("ES256", "transmitter"), kid="t-1", typ="at+jwt")


def deeply_nested(idp: Transmitter) -> str:
    deep: Any = {}
    for _ in range(100):
        deep = {"a": deep}
    return idp.set("session-revoked", deep)


def changed_after_signing(idp: Transmitter) -> str:
    head, _, signature = idp.set().split(".")
    return f"{head}.{idp.set(aud=[AUDIENCE]).split('.')[1]}.{signature}"


@pytest.mark.parametrize(("tried", "err"), [
    (unsigned, "invalid_request"), (alg_none, "invalid_request"), (lambda idp: alg_none(idp) + "AA", "invalid_key"), (hs256_with_the_public_key, "invalid_key"),
    (a_key_of_its_own_in_the_header, "invalid_request"), (another_key_under_the_same_id, "invalid_key"),
    (an_access_token, "invalid_request"), (a_set_said_to_be_an_access_token, "invalid_request"),
    (deeply_nested, "invalid_request"), (changed_after_signing, "invalid_key"),
    (lambda idp: idp.set(kid="unknown"), "invalid_key"), (lambda idp: idp.set(aud="https://other.example"), "invalid_audience"),
    (lambda idp: idp.set(iss="https://other.example"), "invalid_issuer"), (lambda idp: idp.set(iss=idp.url + "/"), "invalid_issuer"),
    (lambda idp: idp.set(iat=int(time.time()) + 3600), "invalid_request"), (lambda idp: idp.set(iat=2**62), "invalid_request"),
    (lambda idp: idp.set(iat=int(time.time()) - 1_209_700), "invalid_request"), (lambda idp: idp.set(exp=2**40), "invalid_request"),
    (lambda idp: idp.set(sub_id={"format": "iss_sub", "iss": "https://other.example", "sub": "alice-at-login"}), "access_denied"),
])  # fmt: skip
def test_a_token_that_is_no_event_of_the_stream(
    around: Company, idp: Transmitter, tried: Callable[[Transmitter], str], err: str
) -> None:
    stream(around, idp)
    with around.serving():
        answer = push(around.gateway, tried(idp))
        assert (answer.status_code, answer.json()["err"]) == (400, err)
        assert code(around) == ""
    assert recorded(around, "signal") == []
    [refused] = recorded(around, "signal_refused")
    assert refused["stream"] == "okta"


def test_an_event_shown_as_an_access_token(around: Company, idp: Transmitter) -> None:
    """The stream's issuer is the login's issuer, with one key for both, and the event has all claims of a token."""
    stream(around, idp)
    around.edit(idp.url, around.issuer.url)
    resource, now = f"{around.gateway}/mcp", int(time.time())
    around.edit(AUDIENCE, resource)
    around.issuer.json(
        "/.well-known/ssf-configuration", {"issuer": around.issuer.url, "jwks_uri": f"{around.issuer.url}/jwks.json"}
    )
    body = minting.claims(
        iss=around.issuer.url, aud=resource, sub=None, exp=None, iat=now, scope="notes.read desk.write"
    )
    about = {"format": "iss_sub", "iss": around.issuer.url, "sub": "bob-at-login"}
    event = {**body, "jti": "x", "sub_id": about, "events": {f"{RISC}account-purged": {}}}
    with around.serving():
        assert push(around.gateway, events.mint(event, key=key_for("ES256", "ES256"))).status_code == 202  # it is one
        for more in ({}, {"sub": "alice-at-login", "exp": now + 600}):
            token = events.mint({**event, **more}, key=key_for("ES256", "ES256"))
            assert around.post("tools/call", token=token, name="notes_list", arguments={}).status_code == 401
        answer = push(around.gateway, around.token())
        assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")
        assert code(around) == ""


def test_an_event_again_and_again_and_at_once(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    now = int(time.time())
    with around.serving():
        disabled, answers = idp.set(f"{RISC}account-disabled", iat=now - 60), []
        threads = [
            threading.Thread(target=lambda: answers.append(push(around.gateway, disabled).status_code))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [202] * 8
        assert push(around.gateway, idp.set(f"{RISC}account-enabled", iat=now - 30)).status_code == 202
        assert code(around, iat=now - 60) == "401"
    with around.serving():  # it is not forgotten with the process
        assert push(around.gateway, disabled).status_code == 202
        assert code(around, iat=now - 60) == "401"
        assert code(around, iat=now) == ""
    assert len(recorded(around, "signal")) == 2
    assert len(recorded(around, "revoked")) == 1


def test_a_body_without_end(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        host, port = around.gateway.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as wire:
            head = f"POST /signals/okta HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {BEARER}\r\n"
            wire.sendall(f"{head}content-type: application/secevent+jwt\r\ntransfer-encoding: chunked\r\n\r\n".encode())
            for _ in range(8):  # no end is ever sent, and the answer does not wait for it
                wire.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            assert b" 413 " in wire.recv(4096)
        assert push(around.gateway, b"x" * 10_000_000).status_code == 413
        assert code(around) == ""


def test_a_body_that_never_comes(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        host, port = around.gateway.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as wire:
            head = f"POST /signals/okta HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {BEARER}\r\n"
            wire.sendall(f"{head}content-type: application/secevent+jwt\r\ncontent-length: 100\r\n\r\n".encode())
            assert b" 408 " in wire.recv(4096)
        assert code(around) == ""


def test_the_bearer_guessed_from_another_stream(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    second = f'{{name: entra, issuer: "https://other.example", audience: "x", tenant: acme, logins: "{around.issuer.url}", push: env:THEIRS}}'
    around.edit("signals:\n", f"signals:\n  - {second}\n")
    with around.serving():
        for name, bearer in (
            ("okta", THEIRS),
            ("entra", BEARER),
            ("okta", around.token()),
            ("nobody", BEARER),
            ("okta/x", BEARER),
        ):
            answer = push(around.gateway, idp.set(), name=name, authorization=f"Bearer {bearer}")
            assert (answer.status_code, answer.json()["err"]) == (400, "authentication_failed")
        answer = push(around.gateway, idp.set(), name="entra", authorization=f"Bearer {THEIRS}")
        assert (answer.status_code, answer.json()["err"]) == (400, "invalid_issuer")
        assert code(around) == ""
    assert {each["stream"] for each in recorded(around, "signal_refused")} == {"entra"}


def test_another_tenants_person_by_their_address_and_by_their_login(around: Company, idp: Transmitter) -> None:
    """A stream of globex names people of acme, in every way it can."""
    around.edit("tenant: acme, algorithms", "tenant: {claim: org, allowed: [acme, globex]}, algorithms")
    people = "  globex:\n    people: {eve: {name: Eve}}\n"
    around.edit("  acme:\n", f"{people}  acme:\n", name="people.yaml")
    around.edit(
        "{name: Alice Example,", "{name: Alice Example, attributes: {mail: alice@acme.example},", name="people.yaml"
    )
    stream(around, idp, tenant='{"g-1": globex}', email="attribute:mail", opaque="person")
    alice = {"format": "iss_sub", "iss": around.issuer.url, "sub": "alice-at-login"}
    mail = {"format": "email", "email": "alice@acme.example"}
    tried: list[Any] = [alice, mail, {"format": "opaque", "id": "alice"}, {"format": "opaque", "id": "acme/alice"}]
    tried += [{"format": "complex", "user": each} for each in (alice, mail)]
    tried += [
        {"format": "complex", "session": {"format": "opaque", "id": "s"}},
        {"format": "aliases", "identifiers": [alice, mail]},
    ]
    foreign = [
        {"format": "complex", "user": alice, "tenant": {"format": "opaque", "id": name}}
        for name in ("acme", "globex", "a-1")
    ]

    def call() -> str:
        answer = around.post("tools/call", token=around.token(org="acme"), name="notes_list", arguments={})
        return "" if answer.status_code == 200 and not answer.json()["result"].get("isError") else answer.text

    with around.serving():
        assert call() == ""
        for name in ("session-revoked", f"{RISC}account-disabled"):
            for about in tried:
                assert push(around.gateway, idp.set(name, sub_id=about)).status_code == 202, about
            for about in foreign:
                answer = push(around.gateway, idp.set(name, sub_id=about))
                assert (answer.status_code, answer.json()["err"]) == (400, "access_denied")
        assert call() == ""
    targets = [target for each in recorded(around, "signal") for event in each["events"] for target in event["targets"]]
    assert targets
    assert {target["tenant"] for target in targets} == {"globex"}
    assert all(each["tenant"] == "globex" for each in recorded(around, "revoked"))


@pytest.mark.parametrize(("changes", "says"), [
    ({"tenant": "globex"}, "may not speak for the tenant `globex`"),
    ({"tenant": '{"x": globex}'}, "may not speak for the tenant `globex`"),
])  # fmt: skip
def test_a_stream_set_up_for_a_tenant_that_is_not_its_issuers(
    around: Company, idp: Transmitter, changes: dict[str, str], says: str
) -> None:
    from onbehalf.errors import ConfigInvalid
    from onbehalf.places import load_settings

    stream(around, idp, **changes)
    with pytest.raises(ConfigInvalid, match=says):
        load_settings(around.config)


def test_keys_that_come_slowly_hold_up_nobody_who_calls(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        assert push(around.gateway, idp.set()).status_code == 202
        idp.pause = 30
        answers: list[Any] = []
        threads = [
            threading.Thread(
                target=lambda n=n: answers.append(push(around.gateway, idp.set(kid=f"new-{n}"))), daemon=True
            )
            for n in range(10)
        ]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        for _ in range(20):
            assert code(around, "bob-at-login") == "not_permitted"
        assert time.monotonic() - began < 25
        assert push(around.gateway, idp.set()).status_code == 202  # a key that is known is not waited for
        for thread in threads:
            thread.join(timeout=20)
        assert {each.status_code for each in answers} <= {400, 503}
        assert len(answers) == 10


@pytest.mark.parametrize(
    "document",
    [b"{", b"[]", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "t-1"}]}', b" " * 300_000],
)
def test_keys_that_are_none(around: Company, idp: Transmitter, document: bytes) -> None:
    stream(around, idp)
    around.edit(f'issuer: "{idp.url}"', f'issuer: "{idp.url}", jwks: "{around.issuer.url}/other.json"')
    around.issuer.answers["/other.json"] = (200, {}, document)
    with around.serving():
        assert push(around.gateway, idp.set()).status_code in (400, 503)
        assert code(around) == ""


def test_metadata_of_another_issuer(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    around.edit(
        f'issuer: "{idp.url}"', f'issuer: "{around.issuer.url}", metadata: "{idp.url}/.well-known/ssf-configuration"'
    )
    with around.serving():
        assert push(around.gateway, idp.set(iss=around.issuer.url)).status_code == 503
        assert code(around) == ""


def test_a_poll_that_is_answered_with_far_too_much(around: Company, idp: Transmitter) -> None:
    stream(around, idp, f'poll: {{url: "{idp.url}/poll", secret: env:SIGNALS, wait_seconds: 5}}')
    idp.raw = b'{"sets": {' + b",".join(b'"%d": "%s"' % (n, b"x" * 4000) for n in range(1000)) + b"}}"
    with around.serving():
        wait_for(lambda: "is larger than" in around.served_log(), what="its end")
        assert code(around) == ""


def test_a_poll_answered_by_a_redirect_to_somebody_else(around: Company, idp: Transmitter) -> None:
    stream(around, idp, f'poll: {{url: "{around.issuer.url}/poll", secret: env:SIGNALS, wait_seconds: 5}}')
    idp.offer(idp.set())
    around.issuer.answers["/poll"] = (302, {"location": f"{idp.url}/poll"}, b"")
    with around.serving():
        wait_for(lambda: "HTTP status" in around.served_log(), what="a refusal")
        assert idp.polls == []
        assert idp.bearers == set()


def test_a_log_line_forged_in_an_event(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        push(around.gateway, idp.set("made-up", sub_id={"format": "opaque\nERROR all is well", "id": "x"}))
        push(around.gateway, idp.set("made-up", jti="x\r\nERROR all is well"))
        assert "\nERROR all is well" not in around.served_log()


def test_a_wrong_bearer_costs_no_key_fetch_and_no_record(around: Company, idp: Transmitter) -> None:
    stream(around, idp)
    with around.serving():
        for _ in range(20):
            push(around.gateway, idp.set(kid="unknown"), authorization="Bearer x")
    assert recorded(around, "signal_refused") == []


def test_a_made_up_key_does_not_have_the_event_under_a_new_one_refused_for_good(
    around: Company, idp: Transmitter
) -> None:
    """Keys are looked for once in 30 s. What comes in between under a key that was published just now must not be lost."""
    stream(around, idp)
    with around.serving():
        assert push(around.gateway, idp.set(kid="made-up")).json()["err"] == "invalid_key"
        idp.published = [public("ES256", "transmitter", kid="t-2")]
        assert push(around.gateway, idp.set(kid="t-2")).status_code == 503
        assert code(around) == ""
        # the keys that are known are still believed: that one was withdrawn is seen with the next fetch
        assert push(around.gateway, idp.set()).status_code == 202
        assert code(around) == "401"


def test_more_events_at_once_than_are_taken(around: Company, idp: Transmitter) -> None:
    """Whoever has the bearer opens as many requests as they can, and sends no body."""
    stream(around, idp)
    with around.serving():
        host, port = around.gateway.removeprefix("http://").split(":")
        head = f"POST /signals/okta HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {BEARER}\r\n"
        head += "content-type: application/secevent+jwt\r\ncontent-length: 100\r\n\r\n"
        wires = [socket.create_connection((host, int(port)), timeout=20) for _ in range(64)]
        try:
            for wire in wires:
                wire.sendall(head.encode())
            wait_for(lambda: push(around.gateway, idp.set("session-presented")).status_code == 503, what="a full house")
            assert code(around) == ""  # calls have room of their own
        finally:
            for wire in wires:
                wire.close()
        wait_for(lambda: push(around.gateway, idp.set()).status_code == 202, what="room again")
        assert code(around) == "401"


@pytest.mark.parametrize("raw", [None, b'{"sets": {}, "moreAvailable": true}'])
def test_a_transmitter_that_would_be_asked_without_end(around: Company, idp: Transmitter, raw: bytes | None) -> None:
    """It hears no acknowledgement and tells the same again, or says that there is more and tells nothing."""
    stream(around, idp, f'poll: {{url: "{idp.url}/poll", secret: env:SIGNALS, wait_seconds: 5, pause_seconds: 0.5}}')
    idp.deaf, idp.raw = True, raw
    idp.offer(idp.set())
    idp.offer(idp.set(aud="https://other.example"))
    with around.serving():
        wait_for(lambda: len(idp.polls) >= 2, what="polls")
        before = len(idp.polls)
        time.sleep(1.5)
        assert len(idp.polls) - before <= 4
    assert len(recorded(around, "signal")) == (raw is None)
    assert len(recorded(around, "signal_refused")) == (raw is None)
