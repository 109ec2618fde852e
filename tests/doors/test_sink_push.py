"""Signed Security Event Tokens, pushed one by one: what a receiver gets, and what of its answers means."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from doors.sink_house import Book, Taker, book, taking
from explain import viewed
from identify.minting import b64, unb64
from onbehalf.config_signals import StreamSettings
from onbehalf.doors.key_file import CACHE_S
from onbehalf.doors.signer_events import event_keys_path, make_event_keys, read_event_keys
from onbehalf.doors.sink_push import Receiver, SetPush
from onbehalf.errors import SignatureMismatch, SignerUnavailable, SinkRefused, SinkUnavailable
from onbehalf.explain.views_batch import Batch
from onbehalf.explain.views_set import EVENT, read_claims
from onbehalf.identify import peek, verify_signal
from onbehalf.identify.keys import public_keys
from onbehalf.model import Presented, UnixTime
from onbehalf.model_signals import Signal

ISSUER, AUDIENCE, NOW = "https://gateway.example.com", "https://siem.example/events", UnixTime(viewed.AT + 60)
STREAM = StreamSettings(name="gateway", issuer=ISSUER, audience=AUDIENCE, tenant="acme", push="env:PUSH")


@pytest.fixture
def made(tmp_path: Path) -> Book:
    """Three calls on record, and keys that may be rotated."""
    make_event_keys(tmp_path / "keys", UnixTime(NOW - CACHE_S - 1))
    return book(tmp_path)


def push(made: Book, taker: Taker, *, token_bytes: int = 16_384) -> SetPush:
    receiver = Receiver(
        url=taker.url, audience=AUDIENCE, token_bytes=token_bytes, seconds=5,
        headers={"authorization": "Bearer canary-secret"},
    )  # fmt: skip
    return SetPush(receiver, issuer=ISSUER, keys=read_event_keys(made.directory / "keys"), now=lambda: NOW)


def batch_of(made: Book, *, payload: bool = False, most: int = 100) -> Batch:
    with made.source(payload=payload) as source:
        found = source.batch(most)
        assert found is not None
        return found


def claims_of(token: bytes) -> Any:
    return dict(peek(Presented(token=token.decode())).claimed)


def proven(made: Book, token: bytes) -> Signal:
    """What this project's own receiver believes, by the keys as they are published."""
    peeked = peek(Presented(token=token.decode()))
    published = json.dumps(read_event_keys(made.directory / "keys").jwks()).encode()
    key = public_keys(published, issuer=ISSUER)[peeked.key_id]
    return verify_signal(peeked, stream=STREAM, key=key, now=NOW)


def test_each_record_is_one_token_that_a_receiver_of_shared_signals_believes(made: Book) -> None:
    batch = batch_of(made)
    with taking() as taker:
        taker.answers = [(202, b"")] * len(batch.views)
        push(made, taker).deliver(batch)
    assert len(taker.got) == len(batch.views) == 6
    for view, (headers, body) in zip(batch.views, taker.got, strict=True):
        assert headers["content-type"] == "application/secevent+jwt"
        assert headers["authorization"] == "Bearer canary-secret"
        signal = proven(made, body)
        assert (signal.id, signal.issued_at, [each.type for each in signal.events]) == (view.leaf.id, NOW, [EVENT])
        claims = claims_of(body)
        assert read_claims(claims) == view, "the record is had back from it"
        assert "exp" not in claims
        assert "sub" not in claims
        assert b"canary-secret" not in body


def test_a_token_that_was_changed_or_is_for_others_is_not_believed(made: Book) -> None:
    batch = batch_of(made, most=1)
    with taking() as taker:
        taker.answers = [(202, b"")]
        push(made, taker).deliver(batch)
    head, payload, signature = taker.got[0][1].decode().split(".")
    forged = b64(unb64(payload.encode()).replace(b"acme", b"evil"))
    assert forged != payload
    for changed in (f"{head}.{forged}.{signature}", f"{head}.{payload}.{'A' * len(signature)}"):
        with pytest.raises(SignatureMismatch):
            proven(made, changed.encode())


@pytest.mark.parametrize(
    ("status", "answer", "expected", "said"),
    [
        (200, b"", SinkRefused, "not with 202"), (204, b"", SinkRefused, "204"), (302, b"", SinkRefused, "302"),
        (400, b'{"err":"invalid_audience","description":"not\\u001b mine"}', SinkRefused, "invalid_audience: not"),
        (400, b"[", SinkRefused, "400"), (401, b"", SinkRefused, "401"), (429, b"", SinkUnavailable, "429"),
        (503, b"", SinkUnavailable, "503"),
    ],
)  # fmt: skip
def test_only_202_is_delivered(made: Book, status: int, answer: bytes, expected: type[Exception], said: str) -> None:
    with taking() as taker:
        taker.answers = [(status, answer)]
        with pytest.raises(expected, match=said) as refused:
            push(made, taker).deliver(batch_of(made))
    assert "\x1b" not in str(refused.value)
    assert len(taker.got) == 1, "nothing after it is sent, and no redirect followed"


def test_what_was_taken_is_not_sent_again_because_a_later_one_was_not(made: Book) -> None:
    batch = batch_of(made)
    with taking() as taker:
        sink = push(made, taker)
        taker.answers = [(202, b""), (202, b""), (503, b"")]
        with pytest.raises(SinkUnavailable):
            sink.deliver(batch)
        taker.answers = [(202, b"")] * 4
        sink.deliver(batch)
    ids = [claims_of(body)["jti"] for _, body in taker.got]
    wanted = [view.leaf.id for view in batch.views]
    assert ids == [*wanted[:3], *wanted[2:]]


def test_a_record_too_long_for_the_receiver_goes_without_its_facts_and_its_leaf_whole(made: Book) -> None:
    made.write(1, facts={"arguments": {"text": "x" * 20_000}})
    batch = batch_of(made, payload=True)
    with taking() as taker:
        taker.answers = [(202, b"")] * len(batch.views)
        push(made, taker, token_bytes=8192).deliver(batch)
    assert max(len(body) for _, body in taker.got) <= 8192
    long_one = read_claims(claims_of(taker.got[-2][1]))
    assert (long_one.facts, long_one.hash) == ({}, batch.views[-2].hash)
    assert "arguments" in long_one.withheld
    with taking() as taker, pytest.raises(SinkRefused, match="even without its facts"):
        push(made, taker, token_bytes=100).deliver(batch)
    assert taker.got == []


def test_keys_that_were_rotated_sign_from_the_next_batch_on_and_those_before_stay_published(made: Book) -> None:
    keys, first = made.directory / "keys", batch_of(made)
    with taking() as taker:
        taker.answers = [(202, b"")] * 8
        sink = push(made, taker)
        sink.deliver(first)
        before = read_event_keys(keys)
        before.rotate(NOW)
        made.write(1)
        with made.source() as source:
            earlier = source.batch(6)
            assert earlier is not None
            source.delivered(earlier)
            more = source.batch(10)
            assert more is not None
            sink.deliver(more)
    kids = [peek(Presented(token=body.decode())).key_id for _, body in taker.got]
    assert len(set(kids[:6])) == len(set(kids[6:])) == 1
    assert kids[0] != kids[-1]
    assert [proven(made, body).issuer for _, body in taker.got] == [ISSUER] * 8


def test_keys_that_are_gone_or_open_to_others_send_nothing(made: Book) -> None:
    path = event_keys_path(made.directory / "keys")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with taking() as taker:
        sink = push(made, taker)
        path.chmod(0o640)
        with pytest.raises(SinkUnavailable, match="0600"):
            sink.deliver(batch_of(made))
        path.unlink()
        with pytest.raises(SignerUnavailable):
            push(made, taker)
    assert taker.got == []
