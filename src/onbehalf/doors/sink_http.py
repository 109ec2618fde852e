"""HTTP: a batch a POST, as JSON lines, as a batch of CloudEvents, or as OTLP.

2xx is delivered. A status that may pass (408, 425, 429, 5xx) is unavailable, every other one refused: nothing is left
out to go on. Must not read the record or know a secret's reference.

Trust: whoever answers for the URL can say that it keeps what it does not; the batches' ranges are there to be counted.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Literal

import orjson
from pyreqwest.client import SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from onbehalf.doors.outbound import plain
from onbehalf.errors import SinkRefused, SinkUnavailable
from onbehalf.explain.views_batch import Batch, Form, cloudevents_batch, lines, otlp_request

__all__ = ["HttpSender"]

_PASSING = (408, 425, 429)
_MAX_ANSWER = 64 * 1024
_TYPES = {
    "cloudevents": "application/cloudevents-batch+json; charset=utf-8", "lines": "application/x-ndjson",
    "otlp": "application/json",
}  # fmt: skip


class HttpSender:
    """One URL. `headers` are the secret ones; `seconds` is for a whole exchange."""

    def __init__(
        self, url: str, form: Form, body: Literal["lines", "cloudevents", "otlp"], *, headers: Mapping[str, str],
        seconds: float,
    ) -> None:  # fmt: skip
        self._url, self._form, self._body, self._headers = url, form, body, dict(headers)
        self._client = plain(SyncClientBuilder(), seconds=seconds, connect_seconds=min(seconds, 5.0)).build()

    def deliver(self, batch: Batch) -> None:
        """Raises SinkUnavailable, SinkRefused."""
        request = self._client.post(self._url).header("content-type", _TYPES[self._body])
        told = {
            "onbehalf-records": f"{batch.first}-{batch.end}",
            "onbehalf-checkpoint": base64.b64encode(batch.checkpoint.encode()).decode(),
            **self._headers,
        }
        for name, value in told.items():
            request = request.header(name, value)
        try:
            with request.body_bytes(self._data(batch)).build_streamed() as response:
                status = response.status
                answer = b""
                while len(answer) <= _MAX_ANSWER and (piece := response.body_reader.read(_MAX_ANSWER)):
                    answer += bytes(piece)
        except PyreqwestError as error:
            raise SinkUnavailable(f"it cannot be reached: {type(error).__name__}") from error
        self._judge(status, answer)

    def close(self) -> None:
        self._client.close()

    def _data(self, batch: Batch) -> bytes:
        if self._body == "otlp":
            return otlp_request(batch, version=self._form.version)
        if self._body == "cloudevents":
            return cloudevents_batch(batch)
        return b"".join(line + b"\n" for line in lines(batch, self._form))

    def _judge(self, status: int, answer: bytes) -> None:
        if status in _PASSING or status >= 500:
            raise SinkUnavailable(f"it answers with the status {status}")
        if not 200 <= status < 300:
            raise SinkRefused(f"it answers with the status {status}", hint="see what it expects, and its credentials")
        if self._body == "otlp" and _rejected(answer):
            raise SinkRefused("it took the batch only in part", hint="see the collector's own log")


def _rejected(answer: bytes) -> bool:
    """Whether an ExportLogsServiceResponse says that not all was taken (OTLP, partial success)."""
    try:
        told = orjson.loads(answer or b"{}")
        part = told.get("partialSuccess") or {}
        return int(part.get("rejectedLogRecords", 0)) != 0
    except (ValueError, AttributeError, TypeError):  # a 200 in protobuf, or nothing: the status is the answer
        return False
