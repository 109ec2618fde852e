"""The token service's endpoint: `POST /txn/token`, a token exchange (RFC 8693) for backends alone.

A backend authenticates with its own name and secret (HTTP Basic). Must not verify a token or know who may call whom.

Trust: TLS ends before this; the secret says which backend asks, the call token for whom.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_plus

from onbehalf.act.further import Further
from onbehalf.config import Limits
from onbehalf.doors.inbound_body import read
from onbehalf.doors.inbound_gone import within
from onbehalf.doors.inbound_wire import ClientGone, Receive, Scope, Send, send_json
from onbehalf.errors import OnbehalfError
from onbehalf.further import Furthering, FurtherRefused, digest_in
from onbehalf.model import Json
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["PATH", "TxnApp"]

_log = logging.getLogger(__name__)
PATH = "/txn/"
_LIMITS = Limits(body_bytes=64 * 1024)
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_TXN_TOKEN = "urn:ietf:params:oauth:token-type:txn_token"  # noqa: S105  # a name
_MAX_NAME = 255


class TxnApp:
    """The ASGI app below `/txn/`. `seconds` bounds one request."""

    def __init__(self, furthering: Furthering, *, seconds: float) -> None:
        self._furthering = furthering
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        """Answer one request below PATH whose Host is ours; `headers` by lower-case name."""
        if scope["path"] != f"{PATH}token":
            await send_json(send, 404, {"error": "not_found"})
            return
        if scope["method"] != "POST":
            await send_json(send, 405, {"error": "method_not_allowed"}, ((b"allow", b"POST"),))
            return
        try:
            body = await within(self._seconds, self._answered(scope, receive, headers))
        except ClientGone:
            return
        except FurtherRefused as refused:
            _log.info("a call further was refused with %s: %r", refused.error, refused.message)
            extra = ((b"www-authenticate", b"Basic"),) if refused.http == 401 else ()
            told = {"error": refused.error, "error_description": refused.message}
            await send_json(send, refused.http, told, extra)
        except OnbehalfError as error:
            _log.info("a call further was refused with %s: %r", error.code, error.message)
            status = 503 if error.status >= 500 else 400
            await send_json(send, status, {"error": "temporarily_unavailable" if status == 503 else "invalid_request"})
        except Exception:  # the door's last resort: refuse without details, and log them
            _log.exception("the token service failed")
            await send_json(send, 500, {"error": "server_error"})
        else:
            await send_json(send, 200, body, ((b"pragma", b"no-cache"),))

    async def _answered(self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes]) -> dict[str, Json]:
        name, secret = _basic(headers.get(b"authorization", b"").decode("latin-1"))
        by = self._furthering.workload(name, secret)
        form = _form((await read(receive, dict(headers), _LIMITS)).decode("utf-8", "replace"))
        if form.get("grant_type") != _EXCHANGE:
            raise FurtherRefused("unsupported_grant_type", f"`grant_type` must be `{_EXCHANGE}`")
        for kind in ("subject_token_type", "requested_token_type"):
            if form.get(kind) != _TXN_TOKEN:
                raise FurtherRefused("invalid_request", f"`{kind}` must be `{_TXN_TOKEN}`")
        if "actor_token" in form:
            raise FurtherRefused("invalid_request", "there is no other actor than the backend that asks")
        token, life = await self._furthering.exchanged(by, form.get("subject_token", ""), _asked(by.audience, form))
        return {"access_token": token, "issued_token_type": _TXN_TOKEN, "token_type": "N_A", "expires_in": life}


def _asked(workload: str, form: Mapping[str, str]) -> Further:
    try:
        details = strict_object(form.get("request_details", "").encode(), depth=4)
    except NotStrict as error:
        raise FurtherRefused("invalid_request", f"`request_details` is refused: {error}") from error
    tool, arguments = details.get("tool"), details.get("arguments")
    if not isinstance(tool, str) or not 1 <= len(tool) <= _MAX_NAME or not isinstance(arguments, str):
        raise FurtherRefused("invalid_request", "`request_details` has `tool` and the digest of its `arguments`")
    return Further(
        workload=workload, audience=form.get("audience", ""), tool=tool, arguments=digest_in(arguments),
        scope=form.get("scope", ""),
    )  # fmt: skip


def _basic(header: str) -> tuple[str, str]:
    kind, _, value = header.partition(" ")
    try:
        text = base64.b64decode(value.strip(), validate=True).decode("utf-8") if kind.lower() == "basic" else ""
    except ValueError:
        text = ""
    name, colon, secret = text.partition(":")
    if not colon:
        raise FurtherRefused("invalid_client", "send the backend's name and secret (HTTP Basic)", http=401)
    return unquote_plus(name), unquote_plus(secret)


def _form(encoded: str) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise FurtherRefused("invalid_request", "the parameters cannot be read") from error
    if len(dict(pairs)) != len(pairs):
        raise FurtherRefused("invalid_request", "a parameter stands twice")
    return dict(pairs)
