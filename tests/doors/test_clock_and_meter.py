"""Small doors: the system's clock and ids, another machine's clock, and the counts."""

from __future__ import annotations

import email.utils
import itertools
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    enable_created_metrics,
)
from prometheus_client.exposition import generate_latest

from onbehalf.doors.clock_remote import clock_offset
from onbehalf.doors.clock_system import fresh_call_id, now
from onbehalf.doors.meter_prometheus import PrometheusMeter
from ports import free_port


def test_now_is_whole_seconds() -> None:
    assert isinstance(now(), int)
    assert abs(now() - time.time()) < 2


def test_a_call_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    made = fresh_call_id()
    after = time.time_ns() // 1_000_000
    assert re.fullmatch(r"call_[0-9a-f]{32}", made)
    value = uuid.UUID(hex=made.removeprefix("call_"))
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert before <= value.int >> 80 <= after


def test_call_ids_are_unique_and_their_random_bits_vary() -> None:
    made = [int(fresh_call_id().removeprefix("call_"), 16) for _ in range(5000)]
    assert len(set(made)) == len(made)
    always, ever = made[0], made[0]
    for value in made:
        always, ever = always & value, ever | value
    fixed = 0xF << 76 | 0x3 << 62
    random_bits = ((1 << 80) - 1) & ~fixed
    assert always & random_bits == 0
    assert ever & random_bits == random_bits
    assert (ever & fixed, always & fixed) == (0x7 << 76 | 0x2 << 62,) * 2


def test_ids_of_later_milliseconds_sort_later() -> None:
    first = fresh_call_id()
    until = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= until:
        pass
    assert fresh_call_id() > first


# --- another machine's clock ---


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that answers every connection with these bytes, whatever is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def loop() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=loop, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def dated(seconds: float, status: str = "200 OK") -> bytes:
    date = email.utils.formatdate(time.time() + seconds, usegmt=True)
    return f"HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:1/\r\n\r\n".encode()


@pytest.mark.parametrize("ahead", [0, 3600, -7200])
@pytest.mark.parametrize("status", ["200 OK", "302 Found", "404 Not Found", "500 Oops"])
def test_the_offset_is_how_far_we_are_ahead_whatever_the_status(ahead: int, status: str) -> None:
    with answering(dated(-ahead, status)) as url:
        offset = clock_offset(url)
    assert offset is not None
    assert abs(offset - ahead) < 2


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"\r\n\r\n", b"not http at all\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 999999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nDate: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nDate: Mon, 99 Foo 9999 99:99:99 GMT\r\n\r\n", b"HTTP/1.1 200 OK\r\nDate: \xff\xfe\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 0001 00:00:00 -0000\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200,
        b"HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\n\r\n",
    ],
)  # fmt: skip
def test_an_answer_that_tells_no_time_is_no_offset_and_no_exception(answer: bytes) -> None:
    with answering(answer) as url:
        offset = clock_offset(url)
        assert offset is None or isinstance(offset, float)


@pytest.mark.parametrize(
    "url", ["", "file:///etc/passwd", "ftp://x/", "http://", "http://[::1", "http://a b/", "http://\n/"]
)
def test_what_is_no_http_url_is_not_asked(url: str) -> None:
    assert clock_offset(url) is None


def test_a_machine_that_does_not_answer_is_no_offset() -> None:
    assert clock_offset(f"http://127.0.0.1:{free_port()}") is None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert clock_offset(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1) is None


# --- counts ---


def test_what_is_counted_is_exposed_by_fixed_labels() -> None:
    registry = CollectorRegistry()
    meter = PrometheusMeter(registry)
    for _ in range(2):
        meter.decided(tool="notes", decision="allow", code="")
        meter.acted(upstream="base", outcome="done", seconds=0.02)
        meter.refused(code="busy")
    meter.decided(tool="notes", decision="deny", code="not_permitted")
    text = generate_latest(registry).decode()
    for line in (
        'onbehalf_decisions_total{code="",decision="allow",tool="notes"} 2.0',
        'onbehalf_decisions_total{code="not_permitted",decision="deny",tool="notes"} 1.0',
        'onbehalf_upstream_seconds_count{outcome="done",upstream="base"} 2.0',
        'onbehalf_upstream_seconds_bucket{le="0.01",outcome="done",upstream="base"} 0.0',
        'onbehalf_upstream_seconds_bucket{le="0.025",outcome="done",upstream="base"} 2.0',
        'onbehalf_refusals_total{code="busy"} 2.0',
        "onbehalf_problems 0.0",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize("created", [True, False])
def test_what_is_counted_without_the_library_is_exposed_as_if_by_it(
    created: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.25)
    (enable_created_metrics if created else disable_created_metrics)()
    try:
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        meter = PrometheusMeter(ours)
        decisions = Counter(
            "onbehalf_decisions", "Tool calls decided, by tool and decision.", ("tool", "decision", "code"),
            registry=theirs,
        )  # fmt: skip
        Counter("onbehalf_refusals", "Requests refused at the door, by code.", ("code",), registry=theirs)
        acts = Histogram(
            "onbehalf_upstream_seconds", "Time an upstream took, by outcome.", ("upstream", "outcome"), registry=theirs,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        Gauge(
            "onbehalf_problems", "Parts that could not be taken over or reached; the log says which.", registry=theirs
        )
        Counter(
            "onbehalf_client_checkpoints",
            "Checkpoints that clients brought back, by what they say: split is a second history.", ("verdict",),
            registry=theirs,
        )  # fmt: skip
        assert generate_latest(ours) == generate_latest(theirs)
        for labels in [("notes", "allow", ""), ("no\ntes", "deny", 'a"b\\'), ("notes", "allow", "")]:
            decisions.labels(*labels).inc()
            meter.decided(tool=labels[0], decision=labels[1], code=labels[2])
        for outcome, seconds in itertools.product(("done", "failed"), (0, 1e-9, 0.001, 0.0011, 0.3, 1, 30, 30.1, 7e9)):
            acts.labels("base", outcome).observe(seconds)
            meter.acted(upstream="base", outcome=outcome, seconds=seconds)
        assert generate_latest(ours) == generate_latest(theirs)
        assert (b"onbehalf_upstream_seconds_created" in generate_latest(ours)) is created
        names = ["onbehalf_decisions_total", "onbehalf_upstream_seconds_sum"]
        some = [generate_latest(registry.restricted_registry(names)) for registry in (ours, theirs)]
        assert sorted(some[0].splitlines()) == sorted(some[1].splitlines())  # in no order
    finally:
        enable_created_metrics()


def test_a_second_meter_on_the_same_registry_is_refused() -> None:
    registry = CollectorRegistry()
    PrometheusMeter(registry)
    with pytest.raises(ValueError, match="onbehalf_decisions"):
        PrometheusMeter(registry)


def test_problems_are_asked_for_at_each_scrape() -> None:
    registry = CollectorRegistry()
    found: list[str] = []
    PrometheusMeter(registry).watch_problems(lambda: len(found))
    assert b"onbehalf_problems 0.0" in generate_latest(registry)
    found.append("x")
    assert b"onbehalf_problems 1.0" in generate_latest(registry)


def test_two_houses_in_one_process_count_apart() -> None:
    registries = [CollectorRegistry(), CollectorRegistry()]
    meters = [PrometheusMeter(registry) for registry in registries]
    meters[0].refused(code="busy")
    assert b"busy" not in generate_latest(registries[1])
