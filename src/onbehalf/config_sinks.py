"""The section `sinks` of `onbehalf.yaml`: where views of the record are sent by `onbehalf audit send`, and what of it.

A gateway that serves reads none of this but to see that it is well formed. Must not read a file or a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from onbehalf.config_directory import Keys, Place, Reference
from onbehalf.errors import ConfigInvalid

__all__ = [
    "FileSink", "HttpSink", "OtlpSink", "ParquetSink", "PushSink", "SinkName", "SinkSettings", "StdoutSink",
    "SyslogSink", "ViewName", "require_sinks",
]  # fmt: skip

SinkName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
ViewName: TypeAlias = Literal["json", "cloudevents", "ocsf", "otel", "set", "cef"]
_Address = Annotated[str, Meta(pattern=r"^https?://[\x21-\x7e]+$", max_length=2048)]
_Peer = Annotated[str, Meta(pattern=r"^[A-Za-z0-9.:\[\]_-]+:[0-9]{1,5}$")]
_HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}$")]


class _Sink(Keys, frozen=True, kw_only=True):
    """What all sinks have. `payload` lets arguments and all else that is on record leave with it.

    A batch has at most `batch` records; it is tried for `timeout_seconds`. New records are looked for every
    `every_seconds`.
    """

    payload: bool = False
    batch: Annotated[int, Meta(ge=1, le=5000)] = 500
    every_seconds: Annotated[float, Meta(ge=0.05, le=3600)] = 1.0
    timeout_seconds: Annotated[float, Meta(ge=0.1, le=600)] = 10.0


class FileSink(_Sink, frozen=True, kw_only=True, tag_field="kind", tag="file"):
    """Lines at the end of the file `path`, which gives way to a new one at `rotate_bytes`; of the old ones the newest
    `keep` stay, 0 is all of them."""

    path: Place
    view: ViewName = "json"
    rotate_bytes: Annotated[int, Meta(ge=4096, le=2**40)] = 256 * 2**20
    keep: Annotated[int, Meta(ge=0, le=10_000)] = 0


class StdoutSink(_Sink, frozen=True, kw_only=True, tag_field="kind", tag="stdout"):
    """Lines on the standard output of `onbehalf audit send`."""

    view: ViewName = "json"


class SyslogSink(_Sink, frozen=True, kw_only=True, tag_field="kind", tag="syslog"):
    """Messages of RFC 5424 over TLS (RFC 5425), or over plain TCP (RFC 6587) to loopback, to `address`, `host:port`.

    `authorities` is a PEM file to trust instead of the system's. `facility` is a number of RFC 5424; 13 is log audit.
    A record whose message would be longer than `message_bytes` goes without its facts.
    """

    address: _Peer
    view: ViewName = "json"
    authorities: Annotated[str, Meta(max_length=4096)] = ""
    facility: Annotated[int, Meta(ge=0, le=23)] = 13
    message_bytes: Annotated[int, Meta(ge=2048, le=2**20)] = 65_536
    insecure_plaintext: bool = False
    """Plain TCP beyond loopback. Danger: whoever sits between reads along, and can leave out and make up records."""


class OtlpSink(_Sink, frozen=True, kw_only=True, tag_field="kind", tag="otlp"):
    """Log records to an OpenTelemetry collector, OTLP/HTTP in JSON. `url` is whole, such as `…:4318/v1/logs`;
    `headers` maps a header's name to the reference of its value."""

    url: _Address
    headers: dict[_HeaderName, Reference] = field(default_factory=dict)


class HttpSink(_Sink, frozen=True, kw_only=True, tag_field="kind", tag="http"):
    """A batch a POST: JSON lines, or with the view `cloudevents` one batch of CloudEvents. `bearer` is shown there."""

    url: _Address
    view: ViewName = "json"
    bearer: Reference | UnsetType = UNSET


class PushSink(_Sink, frozen=True, kw_only=True, tag_field="kind", tag="push"):
    """Signed Security Event Tokens (RFC 8417), one a POST to `url` (RFC 8935), for `audience`. `bearer` is shown there.

    A record whose token would be longer than `token_bytes` goes without its facts.
    """

    url: _Address
    audience: Annotated[str, Meta(min_length=1, max_length=2048)]
    bearer: Reference | UnsetType = UNSET
    batch: Annotated[int, Meta(ge=1, le=5000)] = 100
    token_bytes: Annotated[int, Meta(ge=4096, le=2**20)] = 16_384


class ParquetSink(_Sink, frozen=True, kw_only=True, tag_field="kind", tag="parquet"):
    """Files below `directory`, partitioned by the UTC day of the records (`day=2026-11-28`)."""

    directory: Place
    batch: Annotated[int, Meta(ge=1, le=100_000)] = 5000
    every_seconds: Annotated[float, Meta(ge=0.05, le=3600)] = 60.0


SinkSettings: TypeAlias = FileSink | StdoutSink | SyslogSink | OtlpSink | HttpSink | PushSink | ParquetSink
_LOOPBACK = re.compile(r"^(http://)?(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/|$)")


def require_sinks(sinks: Mapping[str, SinkSettings], *, insecure_http: bool) -> None:
    """See that nothing leaves in the clear unasked, and no two sinks write one place. Raises ConfigInvalid."""
    places: set[str] = set()
    for name, sink in sinks.items():
        if isinstance(sink, OtlpSink | HttpSink | PushSink):
            clear = sink.url.startswith("http://") and not _LOOPBACK.match(sink.url)
            if clear and not insecure_http:
                raise ConfigInvalid(f"the sink `{name}` is not https", hint="only loopback addresses may be http")
        place = sink.path if isinstance(sink, FileSink) else sink.directory if isinstance(sink, ParquetSink) else ""
        if place and place in places:
            raise ConfigInvalid(f"two sinks write `{place}`", hint="give each a place of its own")
        places.add(place)
    if sum(isinstance(sink, StdoutSink) for sink in sinks.values()) > 1:
        raise ConfigInvalid("two sinks write the standard output", hint="lines of both would be mixed")
