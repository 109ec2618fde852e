"""Sinks as the configuration says, with their secrets. Must not send anything.

Trust: as secret_reference.py says of secrets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from msgspec import UNSET

from onbehalf.config_sinks import FileSink, HttpSink, OtlpSink, ParquetSink, SinkSettings, StdoutSink, SyslogSink
from onbehalf.doors.outbound_address import is_loopback_name
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.sink import Sink
from onbehalf.doors.sink_http import HttpSender
from onbehalf.doors.sink_lines import FileLines, StreamLines
from onbehalf.doors.sink_parquet import Parquet
from onbehalf.doors.sink_syslog import Syslog
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.views_batch import Form

__all__ = ["configured"]


def configured(name: str, sink: SinkSettings, *, base: Path, issuer: str, version: str, next_: int) -> Sink:
    """The sink. `base` is the directory of the configuration, `next_` the first record not known to be delivered.

    Raises ConfigInvalid, SinkUnavailable.
    """
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


def _syslog(name: str, sink: SyslogSink, form: Form, base: Path) -> Syslog:
    loopback = is_loopback_name(sink.address.rpartition(":")[0].strip("[]"))
    if sink.authorities and sink.insecure_plaintext:
        raise ConfigInvalid(f"the sink `{name}` has `authorities` and `insecure_plaintext`", hint="one of them")
    return Syslog(
        sink.address, form, plaintext=sink.insecure_plaintext or (loopback and not sink.authorities),
        authorities=base / sink.authorities if sink.authorities else None, facility=sink.facility,
        seconds=sink.timeout_seconds, message_bytes=sink.message_bytes,
    )  # fmt: skip
