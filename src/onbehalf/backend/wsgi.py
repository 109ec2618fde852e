"""Puts a plain HTTP API behind call tokens: a WSGI middleware around it (PEP 3333), for Flask, Django and the like.

Every request needs its own call token, for its one operation and arguments. Must not decide who may do what, or change
what the API answers.

Trust: the API behind may believe `environ["onbehalf.call"]` and `environ["onbehalf.arguments"]`, and nothing else about
who calls. The server bounds how long a body may take, which WSGI cannot; several processes need one shared `replay`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from onbehalf.backend.calls import Calls
from onbehalf.backend.http_guard import HEADER, Document, HttpGuard, refusal
from onbehalf.backend.keys import BlockingKeys, keys_from
from onbehalf.backend.operations import HttpRequest
from onbehalf.backend.receipt import ReceiptKey
from onbehalf.backend.replay import Replay
from onbehalf.backend.verify import VerifiedCall
from onbehalf.errors import BodyMalformed, BodyTooLarge, OnbehalfError
from onbehalf.model import Json

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ARGUMENTS_KEY", "CALL_KEY", "HttpCallTokenMiddleware"]

CALL_KEY = "onbehalf.call"
ARGUMENTS_KEY = "onbehalf.arguments"
_TOKEN = "HTTP_" + HEADER.upper().replace("-", "_")
_REASONS = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 405: "Method Not Allowed",
    408: "Request Timeout", 413: "Content Too Large", 415: "Unsupported Media Type", 503: "Service Unavailable",
}  # fmt: skip
_PIECE = 64 * 1024


class HttpCallTokenMiddleware:
    """`app`, reached only by calls that the gateway `issuer` signed for `audience`.

    `operations` is the OpenAPI document that the gateway has too, and `base_path` the path of the URL that it has for
    this API. The gateway's keys are fetched from `jwks_url` when first needed, or given as `jwks`. `replay` is by
    default a memory of this process. The proven `VerifiedCall` is in `environ["onbehalf.call"]` and what it is for in
    `environ["onbehalf.arguments"]`; `Txn-Token` goes no further. `open_paths` need no token and have neither.
    With `services` it is reached by programs' calls, too (`call.kind`).
    With `receipts` every answer to a proven call is signed for, and `calls` keeps a row of each call and its answer's
    digest; an answer is then held back until it is whole.
    """

    def __init__(
        self, app: WSGIApplication, *, issuer: str, audience: str, operations: Document | Callable[[], Document],
        base_path: str = "", open_paths: Collection[str] = (), jwks_url: str = "",
        jwks: Mapping[str, Json] | BlockingKeys | None = None, replay: Replay | None = None,
        max_body_bytes: int = 2**20, receipts: ReceiptKey | None = None, services: bool = False,
        calls: Calls | None = None, insecure_http_for_tests: bool = False,
    ) -> None:  # fmt: skip
        self._app = app
        self._guard = HttpGuard(
            issuer=issuer, audience=audience, operations=operations, base_path=base_path, open_paths=open_paths,
            max_body_bytes=max_body_bytes, replay=replay, receipts=receipts, services=services, calls=calls,
        )  # fmt: skip
        self._keys: BlockingKeys = keys_from(
            issuer=issuer, jwks_url=jwks_url, jwks=jwks, insecure_http_for_tests=insecure_http_for_tests
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        passed = {key: value for key, value in environ.items() if key not in (CALL_KEY, ARGUMENTS_KEY, _TOKEN)}
        try:
            path = _path(environ)
            if not self._guard.open(environ["REQUEST_METHOD"], path):
                self._admit(environ, path, passed)
        except OnbehalfError as error:
            status, headers, body = refusal(error)
            # PEP 3333 leaves connections to the server
            kept = [(name, value) for name, value in headers if name != "connection"]
            start_response(f"{status} {_REASONS.get(status, 'Refused')}", kept)
            return [body]
        if not self._guard.vouches or CALL_KEY not in passed:
            return self._app(passed, start_response)
        return self._vouched(passed, start_response)

    def _vouched(self, passed: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve it, and answer once all is there, with the receipt of just that where there is a key for one."""
        started: list[tuple[str, list[tuple[str, str]]]] = []
        parts: list[bytes] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            if started and exc_info is None:
                raise AssertionError("the answer was begun already")  # PEP 3333: an error of the app's
            started[:] = [(status, headers)]
            return parts.append

        answered = self._app(passed, start)
        try:
            parts.extend(answered)
        finally:
            if hasattr(answered, "close"):
                answered.close()
        (status, headers), body = started[0], b"".join(parts)
        call: VerifiedCall = passed[CALL_KEY]
        name, value = self._guard.vouch(call, status=int(status[:3]), answer=body)
        kept = [each for each in headers if each[0].lower() != name]
        start_response(status, [*kept, (name, value)] if value else kept)
        return [body]

    def _admit(self, environ: WSGIEnvironment, path: str, passed: dict[str, Any]) -> None:
        """Prove the call and put what is proven into `passed`. Raises OnbehalfError."""
        headers = _headers(environ)
        peeked = self._guard.begin(headers)
        body = _body(environ, self._guard.max_body_bytes)
        key = self._keys.find_blocking(peeked.key_id)
        request = HttpRequest(
            method=environ["REQUEST_METHOD"], path=path, query=environ.get("QUERY_STRING", ""),
            headers=tuple(headers), body=body,
        )  # fmt: skip
        proven = self._guard.finish(peeked, key=key, request=request)
        passed.pop("HTTP_TRANSFER_ENCODING", None)
        passed |= {CALL_KEY: proven.call, ARGUMENTS_KEY: proven.arguments}
        passed |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}


def _path(environ: WSGIEnvironment) -> str:
    """The whole path, decoded once by the server, whose bytes stand in a text as Latin-1 (PEP 3333)."""
    text = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    try:
        return str(text.encode("latin-1").decode())
    except UnicodeError as error:
        raise BodyMalformed("the path is not UTF-8") from error


def _headers(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    """All headers. Servers join those of one name, so that two tokens are one that is none."""
    found = [
        (key[5:].replace("_", "-").lower(), str(value)) for key, value in environ.items() if key.startswith("HTTP_")
    ]
    if environ.get("CONTENT_TYPE"):
        found.append(("content-type", environ["CONTENT_TYPE"]))
    return found


def _body(environ: WSGIEnvironment, most: int) -> bytes:
    """The whole body, bounded in size. Raises BodyMalformed, BodyTooLarge."""
    said, source = environ.get("CONTENT_LENGTH") or "", environ["wsgi.input"]
    if said:
        if not (said.isascii() and said.isdigit()) or "HTTP_TRANSFER_ENCODING" in environ:
            raise BodyMalformed("the length of the body is not told in one clear way")
        left = int(said[:20])
    elif environ.get("wsgi.input_terminated"):
        left = most + 1
    elif "HTTP_TRANSFER_ENCODING" in environ:
        raise BodyMalformed("a body without a length is not read here")
    else:
        left = 0
    if said and left > most:
        raise BodyTooLarge(f"the body is longer than {most} bytes")
    parts: list[bytes] = []
    while left and (part := source.read(min(left, _PIECE))):
        parts.append(part)
        left -= len(part)
    if said and left:
        raise BodyMalformed("the body is shorter than its length says")
    if not said and environ.get("wsgi.input_terminated") and not left:
        raise BodyTooLarge(f"the body is longer than {most} bytes")
    return b"".join(parts)
