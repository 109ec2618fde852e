"""An HTTP API as an upstream: one request for a call, with its call token, and its one JSON answer taken.

A dry call is the API's own dry run. Its call token is for that alone, and is used up by it: it is therefore never sent
once more right before the call is done, and `expected` is not compared here. Between the try and the doing the API may
change; only the API can rule that out, e.g. with If-Match.

The server is the configured one and no other: its address is judged and pinned, redirects are not followed. No call
token leaves twice: who takes it once may have used it up before refusing the call. A GET or HEAD that was answered 503
with a short Retry-After, or 401 to a token of the person's that was kept and can be had anew, is a failure that says so
(`again_s`), for whoever makes a sending of its own of it. Must not decide anything, or read a document.

Trust: the server does what a call token for it, and the gateway's own credentials, allow, and changes nothing in a dry
run. Its answers are hostile text; it gets nothing else of a person, and none of its words stands in a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

import orjson
from pyreqwest.client import Client
from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError
from pyreqwest.response import Response

from onbehalf.doors.outbound import plain_client
from onbehalf.doors.outbound_address import AddressRefused, pinned
from onbehalf.doors.upstream_authorization import AuthorizationFailed, BearerSource, with_bearer
from onbehalf.doors.upstream_receipts import Receipts
from onbehalf.errors import ReceiptRefused
from onbehalf.model import CallToken, Done, Failed, Json, Outcome, ToolCall, digest
from onbehalf.strict_json import NotStrict, strict_json
from onbehalf.validate.api import Operation
from onbehalf.validate.api_dry_run import Untold, require_told, unfit
from onbehalf.validate.api_request import Request, Unsendable, request_of

__all__ = ["OpenapiServer"]

_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 4.0
_DEPTH = 64
_NOT_CONNECTED = "client error (Connect)"
_PATIENCE = {"0": 0.0, "1": 1.0, "2": 2.0}
"""The values of Retry-After that are waited for, in seconds."""


class _Trouble(Exception):
    """What became of one request, in our own words. `sent` is whether it may have been acted on, `anew` whether
    nothing of it left, so that it may be sent as it is, and `again` after how many seconds another sending is worth it.
    """

    def __init__(self, code: str, message: str, *, sent: bool, anew: bool = False, again: float | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.sent, self.anew, self.again = code, message, sent, anew, again


class OpenapiServer:
    """The Upstream port on one HTTP API. Used in one event loop, ended by `aclose`."""

    def __init__(
        self, url: str, *, audience: str, operations: Mapping[str, Operation], headers: Mapping[str, str],
        timeout: float, response_bytes: int, private_network: bool, receipts: Receipts | None = None,
        authorizer: BearerSource | None = None,
    ) -> None:  # fmt: skip
        """`url` is checked already; nothing is connected or resolved yet. `timeout` in seconds bounds one call.

        With `receipts`, an answer that the backend did not sign for is a failure, and what was done is not known.
        """
        self._url = url.rstrip("/")
        self._audience = audience
        self._operations = operations
        self._headers = dict(headers)
        self._timeout = timeout
        self._bytes = response_bytes
        self._private = private_network
        self._receipts = receipts
        self._authorizer = authorizer
        self._client: Client | None = None
        self._making = asyncio.Lock()
        self._closed = False

    @property
    def audience(self) -> str:
        return self._audience

    async def send(self, call: ToolCall, token: CallToken) -> Outcome:
        """Send the call. Never raises but for cancellation; messages hold nothing the server said.

        A dry call is sent as it is, and its outcome is known: an API that says it did not, did nothing.
        """
        granted = token.grant.allow.call
        if token.grant.audience != self._audience or (granted.id, granted.digest) != (call.id, call.digest):
            return Failed(code="wrong_grant", message="the call token is not for this call here", unknown=False)
        arguments, effect = orjson.loads(call.arguments), call.tool.writes and not call.dry
        if problem := unfit(call, arguments):
            return Failed(code="upstream_error", message=problem, unknown=False)
        try:
            operation = self._operations[call.tool.remote]
            request = request_of(operation, arguments)
        except (KeyError, Unsendable) as error:
            message = str(error) if isinstance(error, Unsendable) else "there is no such operation"
            return Failed(code="arguments_refused", message=message[:300], unknown=False)
        try:
            return await self._sent(call, request, token, patient=operation.reads)
        except _Trouble as error:
            again = error.again if operation.reads and not call.tool.writes else None
            return Failed(code=error.code, message=error.message, unknown=error.sent and effect, again_s=again)
        except TimeoutError:
            message = "the server did not answer in time"
            return Failed(code="upstream_timed_out", message=message, unknown=effect)
        except Exception as error:  # a failure is a value, whatever it was; it goes on record
            message = f"the exchange failed: {type(error).__name__}"
            return Failed(code="upstream_error", message=message, unknown=effect)

    async def aclose(self) -> None:
        """Close all connections."""
        self._closed = True
        await self._dropped(self._client)

    async def _sent(self, call: ToolCall, request: Request, token: CallToken, *, patient: bool) -> Outcome:
        ends = asyncio.get_running_loop().time() + self._timeout
        try:
            return await self._once(call, request, token, ends)
        except _Trouble as error:
            if not error.anew or not patient or call.tool.writes:
                raise
        return await self._once(call, request, token, ends)

    async def _once(self, call: ToolCall, request: Request, token: CallToken, ends: float) -> Done:
        exchange = partial(self._exchanged, call, request, token)
        if self._authorizer is None:
            async with asyncio.timeout_at(ends):
                return await exchange(None)
        try:
            return await with_bearer(ends, self._authorizer, call, exchange)
        except AuthorizationFailed as error:
            raise _Trouble(error.code, str(error), sent=False) from error

    async def _exchanged(self, call: ToolCall, request: Request, token: CallToken, bearer: str | None) -> Done:
        """`bearer` is the person's access token in the API's own domain. Raises _Trouble, TimeoutError."""
        client = await self._connected()
        builder = client.request(request.method, self._url + request.target).header("accept", "application/json")
        for name, value in request.headers:
            builder = builder.header(name, value)
        for name, value in self._headers.items():
            builder = builder.header(name, value, is_sensitive=True)
        builder = builder.header("Txn-Token", token.compact, is_sensitive=True)
        if bearer is not None:
            builder = builder.header("Authorization", f"Bearer {bearer}", is_sensitive=True)
        if request.body is not None:
            builder = builder.header("content-type", "application/json").body_bytes(request.body)
        try:
            async with builder.build_streamed() as response:
                return await self._answered(call, response, token)
        except PyreqwestError as error:
            if _unsent(error):
                await self._dropped(client)  # the name may lead elsewhere by now: it is resolved and judged anew
                message = "the server cannot be reached"
                raise _Trouble("upstream_unavailable", message, sent=False, anew=True) from error
            if isinstance(error, TimeoutError):
                raise
            raise _Trouble("upstream_error", "the exchange broke off", sent=True) from error

    async def _answered(self, call: ToolCall, response: Response, token: CallToken) -> Done:
        status = response.status
        if status == 401 and self._authorizer is not None and await self._authorizer.refused(call):
            raise _Trouble("upstream_refused", f"HTTP status {status}", sent=False, again=0.0)
        absent = status == 404 and not call.tool.writes and call.tool.rows is not None
        if absent and self._receipts is None:
            return _done(call, None)  # absent and not yours are one answer
        if not 200 <= status < 300 and not absent:
            raise _refused(status, response.get_header("retry-after"))
        if response.get_header("content-encoding") not in (None, "identity"):
            raise _Trouble("upstream_garbage", "the answer came packed, which nobody asked for", sent=True)
        body = await self._whole(response)
        receipt, answer = self._receipt(response, token, body), digest(body)
        if not body or absent:
            return _done(call, None, receipt, answer)
        kind = (response.get_header("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise _Trouble("upstream_garbage", "the answer is not JSON", sent=True)
        try:
            return _done(call, strict_json(body, depth=_DEPTH), receipt, answer)
        except NotStrict as error:
            raise _Trouble("upstream_garbage", "the answer is not one unambiguous JSON value", sent=True) from error

    def _receipt(self, response: Response, token: CallToken, body: bytes) -> str:
        """The backend's receipt of this answer; "" where none is asked for. Raises _Trouble."""
        if self._receipts is None:
            return ""
        given = response.get_header("onbehalf-receipt")
        try:
            return self._receipts.require(given, token, answer=body, status=response.status)
        except ReceiptRefused as error:
            raise _Trouble(error.code, error.message, sent=True) from error

    async def _whole(self, response: Response) -> bytes:
        parts: list[bytes] = []
        size = 0
        while (chunk := await response.body_reader.read_chunk()) is not None:
            size += len(chunk)
            if size > self._bytes:
                raise _Trouble("upstream_garbage", f"the answer is larger than {self._bytes} bytes", sent=True)
            parts.append(bytes(chunk))
        return b"".join(parts)

    async def _connected(self) -> Client:
        """The client, whose connections all go to the one address that was judged."""
        async with self._making:
            if self._closed:
                raise _Trouble("upstream_unavailable", "the door is closed", sent=False)
            if self._client is None:
                seconds = min(_CONNECT_SECONDS, self._timeout / 2)
                try:
                    host, address, port = await pinned(self._url, private=self._private, seconds=seconds)
                except AddressRefused as error:
                    raise _Trouble("upstream_unavailable", str(error), sent=False) from error
                self._client = (
                    plain_client(seconds=self._timeout, connect_seconds=seconds)
                    .pool_idle_timeout(timedelta(seconds=_IDLE_SECONDS))
                    .resolve(host, address, port)
                    .build()
                )
            return self._client

    async def _dropped(self, client: Client | None) -> None:
        if client is not None and self._client is client:
            self._client = None
            await client.close()


def _unsent(error: PyreqwestError) -> bool:
    """Whether the connection was never made. The client's ConnectError alone does not say so: it is also what a
    connection gives that was lost after the request had left."""
    if not isinstance(error, DetailedPyreqwestError):
        return False
    return any(each["message"] == _NOT_CONNECTED for each in error.details["causes"] or ())


def _refused(status: int, retry_after: str | None) -> _Trouble:
    """What a status says. 4xx is taken as not done, but for 408; all of 3xx and 5xx may come after it was."""
    message = f"HTTP status {status}"
    if status in (401, 403):
        return _Trouble("upstream_refused", message, sent=False)
    if status == 503:
        return _Trouble("upstream_unavailable", message, sent=True, again=_PATIENCE.get(retry_after or ""))
    code = "upstream_unavailable" if status >= 500 else "upstream_error"
    return _Trouble(code, message, sent=not 400 <= status < 500 or status == 408)


def _done(call: ToolCall, value: Json, receipt: str = "", answer: str = "") -> Done:
    """The answer as an MCP result; that of a dry run with its digest. Raises _Trouble."""
    members: dict[str, Json] = {"content": [{"type": "text", "text": orjson.dumps(value).decode()}], "isError": False}
    if isinstance(value, dict | list):
        members["structuredContent"] = value
    done = Done(content=members, receipt=receipt, answer=answer)
    if not call.dry:
        return done
    try:
        digest = require_told(call.tool, value, done)
    except Untold as error:
        raise _Trouble(
            "upstream_garbage", f"a dry run that does not say what would change: {error}", sent=True
        ) from error
    return Done(content=members, receipt=receipt, answer=answer, digest=digest)
