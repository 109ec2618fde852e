"""Push delivery of Security Event Tokens (RFC 8935): one record a POST, signed with a key that is for these alone.

202 is delivered, and nothing else: a page that answers 200 to everything took nothing. Within one process a record that
was taken is not sent again because a later one of its batch was not; after a crash it is, under the same `jti`. A token
that would be longer than the receiver takes goes without its facts. Must not read the record.

Trust: as signer_events.py. That a receiver has a token is its own word.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson
from pyreqwest.client import SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from onbehalf.doors.key_file import KeyFile
from onbehalf.doors.outbound import plain
from onbehalf.doors.signer_events import EVENT_TYPE
from onbehalf.errors import SignerUnavailable, SinkRefused, SinkUnavailable
from onbehalf.explain.views import View
from onbehalf.explain.views_batch import Batch, narrowed
from onbehalf.explain.views_said import one_line
from onbehalf.explain.views_set import claims
from onbehalf.model import UnixTime

__all__ = ["Receiver", "SetPush"]

_PASSING = (408, 425, 429)
_MAX_ANSWER = 64 * 1024
_ACCEPTED = 202


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Who is sent to: as `audience`, at `url`, with the secret `headers`, tokens of at most `token_bytes`."""

    url: str
    audience: str
    token_bytes: int
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class SetPush:
    """One receiver. `issuer` is whom tokens are by; `keys` sign them."""

    def __init__(self, receiver: Receiver, *, issuer: str, keys: KeyFile, now: Callable[[], UnixTime]) -> None:
        self._receiver, self._issuer, self._keys, self._now = receiver, issuer, keys, now
        self._client = plain(
            SyncClientBuilder(), seconds=receiver.seconds, connect_seconds=min(receiver.seconds, 5.0)
        ).build()
        self._taken = 0

    def deliver(self, batch: Batch) -> None:
        """Raises SinkUnavailable, SinkRefused."""
        try:
            self._keys.reload()  # another process may have rotated them
        except SignerUnavailable as error:
            raise SinkUnavailable(error.message, hint=error.hint) from error
        for view in batch.views:
            if view.index >= self._taken:
                self._push(self._token(view), batch.checkpoint)
                self._taken = view.index + 1

    def close(self) -> None:
        self._client.close()

    def _token(self, view: View) -> str:
        for each in (view, narrowed(view)):
            token = self._signed(each)
            if len(token) <= self._receiver.token_bytes:
                return token
        raise SinkRefused(
            f"the token of record {view.index} has {len(token)} bytes even without its facts",
            hint="set `token_bytes` to what the receiver takes",
        )

    def _signed(self, view: View) -> str:
        said = claims(view, issuer=self._issuer, audience=self._receiver.audience, issued_at=self._now())
        return self._keys.sign(orjson.dumps(said))

    def _push(self, token: str, checkpoint: str) -> None:
        told = {
            "content-type": f"application/{EVENT_TYPE}",
            "accept": "application/json",
            "onbehalf-checkpoint": base64.b64encode(checkpoint.encode()).decode(),
            **self._receiver.headers,
        }
        request = self._client.post(self._receiver.url)
        for name, value in told.items():
            request = request.header(name, value)
        try:
            with request.body_bytes(token.encode("ascii")).build_streamed() as response:
                status, answer = response.status, b""
                while len(answer) <= _MAX_ANSWER and (piece := response.body_reader.read(_MAX_ANSWER)):
                    answer += bytes(piece)
        except PyreqwestError as error:
            raise SinkUnavailable(f"it cannot be reached: {type(error).__name__}") from error
        if status in _PASSING or status >= 500:
            raise SinkUnavailable(f"it answers with the status {status}")
        if status != _ACCEPTED:
            raise SinkRefused(
                f"it answers with the status {status}, and not with 202{_why(answer)}",
                hint="see the issuer, audience, keys and secret that it expects (RFC 8935 section 2.3)",
            )


def _why(answer: bytes) -> str:
    """What the receiver says is wrong (RFC 8935 section 2.3), as the end of a sentence; "" where it says nothing."""
    try:
        told = orjson.loads(answer[:_MAX_ANSWER])
    except ValueError:
        return ""
    words = [told.get(name) for name in ("err", "description")] if isinstance(told, dict) else []
    said = ": ".join(one_line(each, 300) for each in words if isinstance(each, str) and each)
    return f" ({said})" if said else ""
