"""What every server of a plain HTTP API does with a call token, whichever way it serves.

`begin` needs the headers only, so that nobody's body is read without a token; `finish` proves it for the one operation
and the arguments of the request, and uses it up. Must not read a socket or wait.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from onbehalf.backend.calls import Calls, note_answer
from onbehalf.backend.operations import HttpRequest, Operations, read_operations
from onbehalf.backend.receipt import HEADER as RECEIPT_HEADER
from onbehalf.backend.receipt import ReceiptKey, make_receipt
from onbehalf.backend.replay import MemoryReplay, Replay
from onbehalf.backend.verify import VerifiedCall, look, prove, use_up
from onbehalf.errors import (
    BodyTooLarge,
    BodyTooSlow,
    CallTokenMissing,
    ConfigInvalid,
    OnbehalfError,
    RequestRefused,
)
from onbehalf.identify.compact import Peeked
from onbehalf.model import Json, UnixTime, digest

__all__ = ["HEADER", "Document", "HttpGuard", "Proven", "refusal"]

HEADER = "txn-token"
_OTHER_REQUEST = frozenset(
    {"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"}
)
"""Headers by which some frameworks do another request than the one that was looked at."""
_OPEN = frozenset({"GET", "HEAD"})

Document = bytes | Mapping[str, Json] | Operations
"""An OpenAPI document in bytes, as its members, or read already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A proven call, and the arguments that it is for: what the API may act on."""

    call: VerifiedCall
    arguments: Mapping[str, Json] = field(repr=False)


def _now() -> UnixTime:
    return UnixTime(int(time.time()))


@dataclass(slots=True, kw_only=True)
class HttpGuard:
    """The check of one API. `operations` may be a function where the document is made late; it is called once.

    `open_paths` are answered without a token to GET and HEAD, and prove nothing: health checks, the document itself.
    With `services`, calls of programs are taken as well. `calls` keeps a row of each that is taken.
    """

    issuer: str
    audience: str
    operations: Document | Callable[[], Document]
    base_path: str = ""
    open_paths: Collection[str] = ()
    max_body_bytes: int = 2**20
    replay: Replay | None = None
    receipts: ReceiptKey | None = None
    services: bool = False
    calls: Calls | None = None
    clock: Callable[[], UnixTime] = _now
    _read: Operations | None = field(default=None, init=False, repr=False)
    _memory: Replay = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.issuer or not self.audience:
            raise ConfigInvalid("call tokens need an issuer and an audience", hint="name the gateway and this backend")
        if isinstance(self.open_paths, str):
            raise ConfigInvalid("`open_paths` is a set of paths, not one text")
        self._memory = self.replay if self.replay is not None else MemoryReplay(since=self.clock())
        if not callable(self.operations):
            self._read = self._of(self.operations)

    def open(self, method: str, path: str) -> bool:
        """Whether this needs no call token."""
        return method in _OPEN and path in self.open_paths

    def begin(self, headers: Iterable[tuple[str, str]]) -> Peeked:
        """The one call token of a request, nothing proven. Names are in lower case. Raises OnbehalfError."""
        listed = list(headers)
        if any(name in _OTHER_REQUEST for name, _ in listed):
            raise RequestRefused("a header that means another request is not served here")
        tokens = [value for name, value in listed if name == HEADER]
        if len(tokens) != 1:
            raise CallTokenMissing(
                f"expected exactly one `Txn-Token` header, found {len(tokens)}",
                hint="call through the gateway, which sets it",
            )
        return look(tokens[0], issuer=self.issuer)

    def finish(self, peeked: Peeked, *, key: bytes, request: HttpRequest) -> Proven:
        """The call, proven for exactly this request and used up. Raises OnbehalfError."""
        if self._read is None:
            assert callable(self.operations)
            self._read = self._of(self.operations())
        asked = self._read.asked(request)
        now = self.clock()
        call = prove(
            peeked, key=key, audience=self.audience, tool=asked.tool, arguments=asked.arguments, now=now,
            services=self.services,
        )  # fmt: skip
        use_up(peeked, call, replay=self._memory, now=now)
        if self.calls is not None:
            self.calls.accept(call, now=now)
        return Proven(call=call, arguments=asked.arguments)

    @property
    def vouches(self) -> bool:
        """Whether something is to be said about answers, so that they are held back until they are whole."""
        return self.receipts is not None or self.calls is not None

    def vouch(self, call: VerifiedCall, *, status: int, answer: bytes) -> tuple[str, str]:
        """Keep what was answered, and give the header that vouches for it; its value is "" without a receipt key."""
        if self.calls is not None:
            note_answer(self.calls, call, answer=digest(answer), status=status)
        if self.receipts is None:
            return RECEIPT_HEADER, ""
        made = make_receipt(
            call, key=self.receipts, backend=self.audience, gateway=self.issuer, answer=answer, status=status,
            now=self.clock(),
        )  # fmt: skip
        return RECEIPT_HEADER, made

    def _of(self, given: Document) -> Operations:
        return given if isinstance(given, Operations) else read_operations(given, base_path=self.base_path)


def refusal(error: OnbehalfError) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body that tell a refusal. Its message speaks of the request's form only."""
    body = json.dumps({"error": error.code, "message": error.message, "hint": error.hint}).encode("ascii")
    headers = [
        ("content-type", "application/json"), ("content-length", str(len(body))), ("cache-control", "no-store"),
    ]  # fmt: skip
    if error.status == 401:
        headers.append(("www-authenticate", "Txn-Token"))  # RFC 9110 section 15.5.2 wants one
    if isinstance(error, BodyTooLarge | BodyTooSlow):
        headers.append(("connection", "close"))  # the rest of the body is not read
    return error.status, headers, body
