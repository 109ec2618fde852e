"""Each kind of sink against a real peer: files, syslog daemons, HTTP servers, OTLP's protobuf, Parquet readers."""

from __future__ import annotations

import contextlib
import io
import json
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import orjson
import pyarrow.dataset as dataset
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from company import wait_for
from doors.sink_house import Book, book, counting, indices, read, taking
from doors.tls_house import authority
from explain import viewed
from onbehalf.doors.sink import Sink
from onbehalf.doors.sink_http import HttpSender
from onbehalf.doors.sink_lines import FileLines, StreamLines
from onbehalf.doors.sink_parquet import Parquet
from onbehalf.doors.sink_syslog import Syslog
from onbehalf.errors import SinkRefused, SinkUnavailable
from onbehalf.explain.views_batch import Batch, Form, batch_mark, lines
from onbehalf.explain.views_cef import read_cef
from ports import free_port

JSON = Form(name="json", issuer="https://gateway.example.com", version="0.1.0")
CEF = Form(name="cef", issuer="https://gateway.example.com", version="0.1.0")


@pytest.fixture
def made(tmp_path: Path) -> Book:
    return book(tmp_path / "house", calls=3)


def batches(made: Book, most: int = 2, *, name: str = "one") -> Iterator[Batch]:
    """All that is on record, in batches that count as delivered once the next is asked for."""
    with made.source(name) as source:
        while (batch := source.batch(most)) is not None:
            yield batch
            source.delivered(batch)


def whole(made: Book, name: str = "whole") -> Batch:
    with made.source(name) as source:
        batch = source.batch(1000)
    assert batch is not None
    return batch


def delivered(made: Book, sink: Sink) -> None:
    for batch in batches(made):
        sink.deliver(batch)
    sink.close()


# --- lines ---


def test_a_file_holds_every_record_and_marks_with_the_signed_head(made: Book, tmp_path: Path) -> None:
    path = tmp_path / "out" / "records.jsonl"
    delivered(made, FileLines(path, JSON, rotate_bytes=2**20, keep=0))
    data = path.read_bytes()
    assert indices(data) == [*range(6)]
    marks = [json.loads(line)["batch"] for line in data.splitlines() if line.startswith(b'{"batch"')]
    assert [(mark["first"], mark["end"]) for mark in marks] == [(0, 2), (2, 4), (4, 6)]
    made.keys.signer.verifier.text(marks[-1]["checkpoint"])
    assert path.stat().st_mode & 0o077 == 0


def test_a_torn_last_line_is_cut_off_before_its_record_is_written_again(made: Book, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    for torn in (b'{"about":{}, "at', b"x" * 200_000):
        path.write_bytes(b"")
        sink = FileLines(path, JSON, rotate_bytes=2**30, keep=0)
        first = whole(made)
        sink.deliver(first)
        sink.close()
        with path.open("ab") as file:
            file.write(torn)
        again = FileLines(path, JSON, rotate_bytes=2**30, keep=0)
        again.deliver(first)
        again.close()
        assert indices(path.read_bytes()) == [*range(6)] * 2


def test_a_file_gives_way_to_a_new_one_and_only_the_newest_old_ones_stay(made: Book, tmp_path: Path) -> None:
    for keep, old in ((0, 2), (1, 1)):
        path = tmp_path / str(keep) / "records.jsonl"
        sink = FileLines(path, JSON, rotate_bytes=4096, keep=keep)
        for batch in batches(made, name=f"keep-{keep}"):
            sink.deliver(batch)
        sink.close()
        names = sorted(each.name for each in path.parent.iterdir())
        assert names == ["records.jsonl", *[f"records.jsonl.{next_:020}" for next_ in (2, 4)][-old:]]
        together = b"".join((path.parent / name).read_bytes() for name in [*names[1:], names[0]])
        assert indices(together) == [*range(6)][-2 * (old + 1) :]


def test_a_file_that_cannot_be_written_is_unavailable(made: Book, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path in (tmp_path / "file" / "below", tmp_path / "link", Path("/dev/full")):
        sink = FileLines(path, JSON, rotate_bytes=2**20, keep=0)
        with pytest.raises(SinkUnavailable):
            sink.deliver(whole(made))
        sink.close()
    assert (tmp_path / "file").read_text() == "x"


def test_the_standard_output_gets_lines(made: Book) -> None:
    stream = io.BytesIO()
    delivered(made, StreamLines(stream, JSON))
    assert indices(stream.getvalue()) == [*range(6)]


@pytest.mark.parametrize("name", ["json", "cloudevents", "ocsf", "otel", "set", "cef"])
def test_every_form_is_lines_of_text_and_a_mark(made: Book, name: str) -> None:
    form = Form(name=name, issuer="https://gateway.example.com", version="0.1.0")  # type: ignore[arg-type]
    found = lines(whole(made), form)
    assert len(found) == 7
    assert not [line for line in found if b"\n" in line or b"CANARY" in line]
    if name == "cef":
        head, mark = read_cef(batch_mark(whole(made, "mark"), form).decode())
        assert (head[4], mark["cn1"], mark["cn2"]) == ("batch", "0", "6")
    else:
        assert all(map(orjson.loads, found))


# --- syslog ---


def syslog(port: int, form: Form = JSON, *, authorities: Path | None = None, seconds: float = 5, **more: int) -> Syslog:
    return Syslog(
        f"localhost:{port}", form, plaintext=authorities is None, authorities=authorities, facility=13,
        seconds=seconds, message_bytes=more.get("message_bytes", 65_536),
    )  # fmt: skip


def test_syslog_messages_are_counted_and_say_severity_kind_and_the_whole_record(made: Book) -> None:
    with counting() as server:
        delivered(made, syslog(server.port))
        wait_for(lambda: len(server.messages) == 9, what="all messages", seconds=5)
    heads = [each.split(b" ", 7) for each in server.messages]
    assert [head[0] for head in heads[:3]] == [b"<110>1"] * 3  # log audit (13), informational (6)
    assert [head[5] for head in heads[:3]] == [b"intent", b"outcome", b"batch"]
    bodies = [each.partition(b'software="onbehalf"] ')[2] for each in server.messages]
    assert indices(b"\n".join(bodies)) == [*range(6)]


def test_syslog_goes_over_tls_to_whom_the_certificate_names_only(made: Book, tmp_path: Path) -> None:
    ours, other = authority(tmp_path, "ours"), authority(tmp_path, "other")
    with counting(ours.server("localhost")) as server:
        delivered(made, syslog(server.port, authorities=ours.store))
        wait_for(lambda: len(server.messages) == 9, what="all messages", seconds=5)
    batch = whole(made)
    for context, store in ((ours.server("localhost"), other.store), (ours.server("else.example"), ours.store)):
        with counting(context) as server, pytest.raises(SinkUnavailable):
            syslog(server.port, authorities=store).deliver(batch)
        assert server.messages == []
    with counting() as server, pytest.raises(SinkUnavailable):  # a server that speaks no TLS
        syslog(server.port, authorities=ours.store, seconds=1).deliver(batch)


def test_a_syslog_server_that_hangs_up_has_not_taken_the_batch(made: Book) -> None:
    with counting() as server:
        sink, batch = syslog(server.port), whole(made)
        server.closes_after = 100
        with contextlib.suppress(SinkUnavailable):  # it may hang up only after all of it was acknowledged
            sink.deliver(batch)
        time.sleep(0.1)
        with pytest.raises(SinkUnavailable):
            sink.deliver(Batch(log="", first=0, end=0, checkpoint="", views=batch.views * 2000))
        server.closes_after = -1
        sink.deliver(batch)
        wait_for(lambda: len(server.messages) == 7, what="all messages", seconds=5)
        sink.close()


def test_a_connection_that_the_syslog_server_closed_in_between_loses_nothing(made: Book) -> None:
    with counting() as server:
        server.closes_at = 7
        sink, batch = syslog(server.port), whole(made)
        for count in (7, 14, 21):
            server.may_close.clear()
            sink.deliver(batch)
            wait_for(lambda count=count: len(server.messages) == count, what=f"{count} messages", seconds=5)
            server.may_close.set()
            wait_for(lambda: sink._socket and select.select([sink._socket], [], [], 0)[0], what="the end", seconds=5)
        sink.close()


def test_what_was_acknowledged_on_a_connection_that_then_ended_does_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sink = syslog(listening.getsockname()[1])
        connection = sink._connected(time.monotonic() + 5)
        listening.accept()[0].close()
        wait_for(lambda: select.select([connection], [], [], 0)[0], what="the end", seconds=5)
        with pytest.raises(ConnectionResetError):
            sink._drained(connection, time.monotonic() + 5)
        sink.close()


def test_a_syslog_server_that_reads_nothing_is_given_up_in_time(made: Book) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    batch = whole(made)
    big = Batch(log=batch.log, first=0, end=0, checkpoint=batch.checkpoint, views=batch.views * 2000)
    began = time.monotonic()
    with pytest.raises(SinkUnavailable):
        syslog(listening.getsockname()[1], seconds=1).deliver(big)
    assert time.monotonic() - began < 30
    listening.close()


def test_a_record_too_long_for_a_message_goes_without_its_facts_and_is_whole_otherwise(tmp_path: Path) -> None:
    made = book(tmp_path, calls=0)
    made.write(1, facts={"purpose": "p" * 10_000})
    with counting() as server:
        delivered(made, syslog(server.port, message_bytes=4096))
        wait_for(lambda: len(server.messages) == 3, what="all messages", seconds=5)
    found = read(server.messages[0].partition(b"] ")[2])
    assert (found.index, found.facts) == (0, {})
    assert "purpose" in found.withheld
    assert max(map(len, server.messages)) <= 4096


@pytest.mark.skipif(shutil.which("rsyslogd") is None, reason="rsyslog is not installed (apt-get install rsyslog)")
@pytest.mark.parametrize("form", [JSON, CEF])
def test_rsyslog_takes_every_message_as_it_was_sent(made: Book, tmp_path: Path, form: Form) -> None:
    port, out = free_port(), tmp_path / "received"
    config = tmp_path / "rsyslog.conf"
    config.write_text(
        f'global(maxMessageSize="128k" workDirectory="{tmp_path}")\n'
        f'module(load="imtcp" MaxSessions="10")\ninput(type="imtcp" port="{port}" address="127.0.0.1")\n'
        'template(name="raw" type="string" string="%msgid%|%app-name%|%syslogfacility%|%msg%\\n")\n'
        f'action(type="omfile" file="{out}" template="raw")\n'
    )
    command = ["rsyslogd", "-n", "-f", str(config), "-i", str(tmp_path / "pid"), "-C"]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(lambda: _answers(port), what="rsyslog", seconds=15)
        delivered(made, syslog(port, form))
        wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") == 9, what="all messages", seconds=10)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(10)
    rows = [line.split(b"|", 3) for line in out.read_bytes().splitlines()]
    assert [row[0] for row in rows[:3]] == [b"intent", b"outcome", b"batch"]
    assert {(row[1], row[2]) for row in rows} == {(b"onbehalf", b"13")}
    bodies = [row[3].removeprefix(b" ") for row in rows]
    if form is JSON:
        assert indices(b"\n".join(bodies)) == [*range(6)]
    else:
        told = [read_cef(each.decode()) for each in bodies]
        assert [extension["cn1"] for head, extension in told if head[4] != "batch"] == [*map(str, range(6))]


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


# --- HTTP ---


def http(url: str, body: str = "lines", *, seconds: float = 3, **headers: str) -> HttpSender:
    return HttpSender(url, JSON, body, headers=headers, seconds=seconds)  # type: ignore[arg-type]


def test_http_gets_lines_with_their_range_their_head_and_the_secret(made: Book) -> None:
    with taking() as server:
        delivered(made, http(server.url, authorization="Bearer canary-secret"))
    assert indices(b"".join(body for _, body in server.got)) == [*range(6)]
    headers = server.got[0][0]
    assert headers["onbehalf-records"] == "0-2"
    assert headers["authorization"] == "Bearer canary-secret"
    assert headers["content-type"] == "application/x-ndjson"
    assert not [body for _, body in server.got if b"canary-secret" in body]


def test_http_gets_a_batch_of_cloudevents(made: Book) -> None:
    with taking() as server:
        delivered(made, http(server.url, "cloudevents"))
    events = [event for _, body in server.got for event in orjson.loads(body)]
    assert [int(event["sequence"]) for event in events] == [*range(6)]
    assert server.got[0][0]["content-type"].startswith("application/cloudevents-batch+json")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(503, SinkUnavailable), (429, SinkUnavailable), (408, SinkUnavailable), (400, SinkRefused), (401, SinkRefused),
     (302, SinkRefused), (304, SinkRefused)],
)  # fmt: skip
def test_an_answer_that_is_no_success_is_none(made: Book, status: int, expected: type[Exception]) -> None:
    with taking() as server:
        server.answers = [(status, b"")]
        sink = http(server.url)
        with pytest.raises(expected, match=str(status)):
            sink.deliver(whole(made))
        sink.close()
    assert len(server.got) == 1, "no redirect is followed"


def test_a_server_that_hangs_is_given_up_in_time_and_a_dead_one_at_once(made: Book) -> None:
    with taking() as server:
        server.holding.set()
        sink, began = http(server.url, seconds=0.5), time.monotonic()
        with pytest.raises(SinkUnavailable):
            sink.deliver(whole(made))
        assert time.monotonic() - began < 3
    with pytest.raises(SinkUnavailable):
        http(f"http://127.0.0.1:{free_port()}/x").deliver(whole(made, "dead"))


def test_a_collector_reads_each_log_record_with_the_published_protobuf(made: Book) -> None:
    with taking() as server:
        delivered(made, http(server.url, "otlp"))
    requests = [json_format.Parse(body, ExportLogsServiceRequest()) for _, body in server.got]
    found = [log for each in requests for log in each.resource_logs[0].scope_logs[0].log_records]
    assert [read(log.body.string_value.encode()).index for log in found] == [*range(6)]
    assert [log.event_name for log in found[:2]] == ["onbehalf.intent", "onbehalf.outcome"]
    told = {each.key: each.value for each in requests[1].resource_logs[0].resource.attributes}
    assert (told["onbehalf.batch.first"].int_value, told["onbehalf.batch.end"].int_value) == (2, 4)
    made.keys.signer.verifier.text(told["onbehalf.log.checkpoint"].string_value)


def test_a_collector_that_took_a_part_has_not_taken_the_batch(made: Book) -> None:
    with taking() as server:
        server.answers = [
            (200, b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}'),
            (200, b"\x0a\x00"),
        ]
        sink = http(server.url, "otlp")
        with pytest.raises(SinkRefused, match="in part"):
            sink.deliver(whole(made))
        sink.deliver(whole(made))
        sink.close()


# --- Parquet ---


def test_parquet_is_read_by_arrow_and_duckdb_with_a_partition_a_day(made: Book, tmp_path: Path) -> None:
    made.write(1, at=viewed.AT + 86_400)
    directory = tmp_path / "parquet"
    delivered(made, Parquet(directory, next_=0))
    assert len({path.name for path in directory.iterdir()}) == 2
    found = dataset.dataset(directory, partitioning="hive").to_table().sort_by("index").to_pylist()
    assert [row["index"] for row in found] == [*range(8)]
    assert found[1]["ids"] == ["acme/r1", "acme/r2"]
    assert (found[0]["intent"], found[1]["intent"], found[0]["released"]) == (None, 0, None)
    assert [read(row["record"].encode()).index for row in found] == [*range(8)]
    glob = f"{directory}/*/*.parquet"
    asked = duckdb.sql(f"SELECT person, count(*) FROM '{glob}' WHERE status = 'done' GROUP BY ALL").fetchall()
    assert asked == [("acme/alice", 4)]


def test_records_sent_again_stand_in_parquet_once_whatever_the_batches_were(made: Book, tmp_path: Path) -> None:
    directory = tmp_path / "parquet"
    with made.source() as source:
        first = source.batch(4)
        assert first is not None
        Parquet(directory, next_=0).deliver(first)  # and then we were killed: the cursor did not move
    (directory / "day=2026-09-21" / f"{0:020}-{1:020}.new").write_bytes(b"torn")
    delivered(made, Parquet(directory, next_=0))
    found = dataset.dataset(directory, format="parquet", partitioning="hive").to_table().to_pylist()
    assert sorted(row["index"] for row in found) == [*range(6)]


def test_a_parquet_directory_that_cannot_be_written_is_unavailable(made: Book, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SinkUnavailable):
        Parquet(tmp_path / "file" / "below", next_=0)
    sink = Parquet(tmp_path / "there", next_=0)
    shutil.rmtree(tmp_path / "there")
    with pytest.raises(SinkUnavailable):
        sink.deliver(whole(made))


# --- whatever the kind ---


KINDS: list[Callable[[Path, str], Sink]] = [
    lambda path, _: FileLines(path / "f", JSON, rotate_bytes=2**20, keep=0),
    lambda path, _: Parquet(path / "p", next_=0),
    lambda _, url: http(url),
    lambda _, url: http(url, "otlp"),
    lambda _, url: http(url, "cloudevents"),
]


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_no_argument_leaves_unless_it_was_asked_for(made: Book, tmp_path: Path, kind: int) -> None:
    for payload in (False, True):
        with taking() as server, made.source(f"p{payload}", payload=payload) as source:
            batch = source.batch(10)
            assert batch is not None
            directory = tmp_path / str(payload)
            sink = KINDS[kind](directory, server.url)
            sink.deliver(batch)
            sink.close()
            files = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
            if kind == 1:
                files = [str(dataset.dataset(directory / "p").to_table().to_pylist()).encode()]
            sent = b"".join([*files, *(body for _, body in server.got)])
        assert len(sent) > 1000
        assert (b"CANARY-ARGUMENT" in sent) == payload


def test_nothing_of_this_is_loaded_by_a_gateway_that_serves() -> None:
    code = (
        "import sys, onbehalf.cli.serving\n"
        "heavy = ('pyarrow', 'duckdb', 'numpy', 'onbehalf.doors.sink')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
