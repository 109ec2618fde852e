"""Security events that are pushed (RFC 8935): one SET a request, to `/signals/<stream>`.

What every request passes, in order (the public door has looked at Host and at doubled headers): 1 room for one more;
2 the bearer is the stream's, compared in constant time; an unknown stream and a wrong bearer are one answer; 3 method
and media type; 4 the body is bounded in size and time; 5 the stream takes it. It is answered 202 when it is on disk and
in force, so that the next call after is judged by it. Must not know what is in a SET.

Trust: whoever has the bearer can have a key be fetched, and fill the record with refusals; to stop anybody takes a key
of the stream's issuer as well.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from onbehalf.config import Limits
from onbehalf.doors.inbound_body import read
from onbehalf.doors.inbound_wire import ClientGone, Receive, Scope, Send, send_json
from onbehalf.doors.signals_refusal import err_of
from onbehalf.doors.signals_stream import SignalStream
from onbehalf.errors import IdentifyError, MediaTypeRefused, MethodRefused, OnbehalfError, RequestRefused
from onbehalf.identify import MAX_TOKEN_BYTES
from onbehalf.model import digest

__all__ = ["PATH", "PushedStream", "SignalsApp"]

_log = logging.getLogger(__name__)
PATH = "/signals/"
_LIMITS = Limits(body_bytes=MAX_TOKEN_BYTES, body_seconds=5)
_AT_ONCE = 64
_TYPE = b"application/secevent+jwt"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedStream:
    """One stream that is pushed. `secret` is the digest of what its transmitter shows."""

    stream: SignalStream
    secret: bytes = field(repr=False)


class SignalsApp:
    """The ASGI app below `/signals/`, for streams by their name."""

    def __init__(self, streams: Mapping[str, PushedStream]) -> None:
        self._streams = dict(streams)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        """Answer one request below PATH whose Host is ours; `headers` by lower-case name."""
        if self._under_way >= _AT_ONCE:  # 1
            await _refuse(send, 503, "invalid_request", "more events are under way than are taken at once")
            return
        self._under_way += 1
        try:
            await self._taken(scope, receive, send, headers)
        except ClientGone:
            return
        except OnbehalfError as error:
            _log.warning("an event was refused with %s: %r", error.code, error.message)
            await _refuse(send, _http(error), err_of(error), error.message)
        except Exception:  # the door's last resort: refuse without details, and log them
            _log.exception("an event failed")
            await _refuse(send, 500, "invalid_request", "something is wrong here; send it again later")
        finally:
            self._under_way -= 1

    async def _taken(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        found = self._streams.get(str(scope["path"]).removeprefix(PATH))
        if not _admits(found, headers.get(b"authorization", b"")) or found is None:  # 2
            await _refuse(send, 400, "authentication_failed", "no stream and bearer that fit")
            return
        if scope["method"] != "POST":  # 3
            raise MethodRefused("only POST is served here")
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != _TYPE:
            raise MediaTypeRefused("the body is not `application/secevent+jwt`", hint="RFC 8935 section 2.1")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise MediaTypeRefused("the body is packed, which nobody asked for")
        body = await read(receive, dict(headers), _LIMITS)  # 4
        try:
            await found.stream.take(body.decode("latin-1"))  # 5: characters that no token has are refused there
        except IdentifyError as error:
            if error.status < 500:
                await found.stream.refused(error.code, digest(body))
            raise
        await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def _admits(found: PushedStream | None, authorization: bytes) -> bool:
    kind, _, secret = authorization.partition(b" ")
    expected = found.secret if found is not None else bytes(32)
    return hmac.compare_digest(sha256(secret.strip()).digest(), expected) and kind.lower() == b"bearer"


def _http(error: OnbehalfError) -> int:
    """RFC 8935 section 2.3: 400 for what is wrong with a SET; HTTP's own words for all else."""
    if error.status >= 500:
        return 503
    return error.status if isinstance(error, RequestRefused) and error.status in (405, 408, 413) else 400


async def _refuse(send: Send, status: int, err: str, description: str) -> None:
    headers = ((b"content-language", b"en"), *(((b"allow", b"POST"),) if status == 405 else ()))
    await send_json(send, status, {"err": err, "description": description}, headers)
