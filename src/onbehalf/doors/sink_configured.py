"""Sinks as the configuration says, with their secrets. Must not send anything.

Trust: as secret_reference.py says of secrets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from msgspec import UNSET

from onbehalf.config_sinks import (
    FileSink,
    HttpSink,
    OtlpSink,
    ParquetSink,
    PushSink,
    SinkSettings,
    StdoutSink,
    SyslogSink,
)
from onbehalf.doors.clock_system import now
from onbehalf.doors.outbound_address import is_loopback_name
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.signer_events import read_event_keys
from onbehalf.doors.sink import Sink
from onbehalf.doors.sink_http import HttpSender
from onbehalf.doors.sink_lines import FileLines, StreamLines
from onbehalf.doors.sink_parquet import Parquet
from onbehalf.doors.sink_push import Receiver, SetPush
from onbehalf.doors.sink_syslog import Syslog
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.views_batch import Form

__all__ = ["configured"]


def configured(
    name: str, sink: SinkSettings, *, base: Path, keys: Path, issuer: str, version: str, next_: int
) -> Sink:  # fmt: skip
    """The sink. `base` is the directory of the configuration, `keys` that of the gateway's keys, `next_` the first
    record not known to be delivered.

    Raises ConfigInvalid, SinkUnavailable, SignerUnavailable.
    """
    if isinstance(sink, PushSink):
        return _push(name, sink, base=base, keys=keys, issuer=issuer)
    form = Form(name="json" if isinstance(sink, OtlpSink | ParquetSink) else sink.view, issuer=issuer, version=version)
    if isinstance(sink, FileSink):
        return FileLines(base / sink.path, form, rotate_bytes=sink.rotate_bytes, keep=sink.keep)
    if isinstance(sink, StdoutSink):
        return StreamLines(sys.stdout.buffer, form)
    if isinstance(sink, ParquetSink):
        return Parquet(base / sink.directory, next_=next_)
    if isinstance(sink, SyslogSink):
        return _syslog(name, sink, form, base)
    what = f"sinks.{name}"
    if isinstance(sink, HttpSink):
        bearer = resolved(sink.bearer, base=base, what=f"{what}.bearer") if sink.bearer is not UNSET else ""
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        body = "cloudevents" if sink.view == "cloudevents" else "lines"
        return HttpSender(sink.url, form, body, headers=headers, seconds=sink.timeout_seconds)  # type: ignore[arg-type]
    headers = {key: resolved(value, base=base, what=f"{what}.headers") for key, value in sink.headers.items()}
    return HttpSender(sink.url, form, "otlp", headers=headers, seconds=sink.timeout_seconds)


def _push(name: str, sink: PushSink, *, base: Path, keys: Path, issuer: str) -> SetPush:
    bearer = resolved(sink.bearer, base=base, what=f"sinks.{name}.bearer") if sink.bearer is not UNSET else ""
    receiver = Receiver(
        url=sink.url, audience=sink.audience, token_bytes=sink.token_bytes, seconds=sink.timeout_seconds,
        headers={"authorization": f"Bearer {bearer}"} if bearer else {},
    )  # fmt: skip
    # not made here: receivers can check nothing that the gateway does not publish
    return SetPush(receiver, issuer=issuer, keys=read_event_keys(keys), now=now)


def _syslog(name: str, sink: SyslogSink, form: Form, base: Path) -> Syslog:
    loopback = is_loopback_name(sink.address.rpartition(":")[0].strip("[]"))
    if sink.authorities and sink.insecure_plaintext:
        raise ConfigInvalid(f"the sink `{name}` has `authorities` and `insecure_plaintext`", hint="one of them")
    return Syslog(
        sink.address, form, plaintext=sink.insecure_plaintext or (loopback and not sink.authorities),
        authorities=base / sink.authorities if sink.authorities else None, facility=sink.facility,
        seconds=sink.timeout_seconds, message_bytes=sink.message_bytes,
    )  # fmt: skip
