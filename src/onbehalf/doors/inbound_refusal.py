"""The one file that turns a refusal into HTTP, JSON-RPC and `_meta` form.

Every `OnbehalfError` leaves the gateway through `refusal`. What a client, and so a model, is told is a reason
class and a remedy; the error's own message is for the log. Must not decide, and must not send.

Trust: nothing here is secret; whoever reads a refusal learns which class of check failed and what would help.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onbehalf.doors.mcp_words import MODERN_PROTOCOL_VERSIONS
from onbehalf.errors import (
    ActError,
    ArgumentsRefused,
    BodyMalformed,
    BodyTooLarge,
    BodyTooSlow,
    CredentialsRefused,
    DpopMissing,
    DpopRefused,
    ExplainError,
    HeaderMismatch,
    IdentifyError,
    MethodRefused,
    NonceNeeded,
    OnbehalfError,
    ParametersInvalid,
    RequestRefused,
    ScopeMissing,
    StepUpNeeded,
    TokenMissing,
    UnknownMethod,
    UnknownTool,
    ValidateError,
    VersionUnsupported,
)
from onbehalf.identify import DPOP_ALGORITHMS
from onbehalf.model import Json

__all__ = ["Challenges", "Refusal", "refusal"]

# JSON-RPC 2.0 section 5.1 and MCP 2026-07-28 basic/index. For everything else the code is -(31000 + HTTP status):
# outside the reserved -32768..-32000, where MCP forbids new codes of our own.
_RPC: tuple[tuple[type[OnbehalfError], int, int], ...] = (
    (BodyMalformed, -32700, 400),
    (HeaderMismatch, -32020, 400),
    (VersionUnsupported, -32022, 400),
    (UnknownMethod, -32601, 404),
    (ParametersInvalid, -32602, 400),
    (UnknownTool, -32602, 400),  # never 404: handshake-era clients read that as a lost session
    (ArgumentsRefused, -32602, 400),
)

# A sentence per room, so that no message can carry what only the record may hold.
_CLASSES: tuple[tuple[type[OnbehalfError], str], ...] = (
    (TokenMissing, "an access token is needed"),
    (NonceNeeded, "the proof needs a nonce of this gateway's"),
    (IdentifyError, "who calls is not proven"),
    (StepUpNeeded, "this needs another login"),
    (ScopeMissing, "the access token lacks a scope this needs"),
    (UnknownTool, "there is no such tool for you"),
    (ArgumentsRefused, "the arguments do not fit this tool"),
    (ValidateError, "this is not permitted"),
    (ExplainError, "this cannot be put on record, so it is not done"),
    (ActError, "this could not be done"),
)

_UNQUOTABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenges:
    """How to say where a token comes from: the RFC 9728 metadata URL and the scopes to ask for at first. With
    `dpop_only` no token is taken under another scheme."""

    metadata_url: str
    scopes: Callable[[], frozenset[str]]
    dpop_only: bool = False

    def one(self, error: OnbehalfError, *, dpop: bool = False) -> str:
        """The one `WWW-Authenticate` value for an error (RFC 6750 section 3, RFC 9728 section 5.1).

        There is one challenge in an answer, as many clients read no second: of the scheme that the client used, as
        `dpop` says, or that this error or this gateway demands. Whoever sent no credentials is asked for a bearer token
        where these are taken at all, and finds in the metadata that DPoP is taken too.
        """
        dpop = dpop or self.dpop_only or isinstance(error, DpopMissing | DpopRefused | NonceNeeded)
        scopes = error.scopes if isinstance(error, ScopeMissing) else self.scopes()
        parts = [f'resource_metadata="{_quotable(self.metadata_url)}"']
        if wanted := " ".join(_scope_tokens(scopes)):
            parts.append(f'scope="{wanted}"')
        # RFC 6750 section 3.1: no error code where no credentials were sent
        if not isinstance(error, TokenMissing):
            parts.append(f'error="{_oauth_code(error)}"')
            if isinstance(error, StepUpNeeded):  # RFC 9470 section 3
                parts += [f'acr_values="{_quotable(" ".join(error.acr))}"'] if error.acr else []
                parts += [] if error.max_age is None else [f'max_age="{error.max_age}"']
            if error.hint:
                parts.append(f'error_description="{_quotable(error.hint)}"')
        if dpop:  # RFC 9449 section 7.1
            parts.append(f'algs="{" ".join(DPOP_ALGORITHMS)}"')
        return ("DPoP " if dpop else "Bearer ") + ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal in its three forms. `data` is JSON-RPC's, and `_meta` of a tool result; `headers` are HTTP's.

    With `result` the body is a tool's result: hosts look there for what another login must be.
    """

    status: int
    code: str
    rpc: int
    message: str
    data: dict[str, Json]
    headers: tuple[tuple[bytes, bytes], ...]
    result: bool = False

    def body(self, request_id: Json) -> dict[str, Json]:
        """The JSON-RPC answer: an error object, or a tool result that is an error."""
        if self.result:
            said: list[Json] = [{"type": "text", "text": f"Denied: {self.message}"}]
            told: dict[str, Json] = {"content": said, "isError": True, "_meta": self.data, "resultType": "complete"}
            return {"jsonrpc": "2.0", "id": request_id, "result": told}
        return {
            "jsonrpc": "2.0",
            "id": request_id,
            "error": {"code": self.rpc, "message": self.message, "data": self.data},
        }


def refusal(error: OnbehalfError, challenges: Challenges, *, dpop: bool = False) -> Refusal:
    """How an error leaves the gateway; `dpop` says that the request came under that scheme."""
    rpc, status = next(((rpc, status) for kind, rpc, status in _RPC if isinstance(error, kind)), (0, error.status))
    if not rpc:
        rpc = -32603 if status == 500 else -32600 if status == 400 else -(31000 + status)
    denial: dict[str, Json] = {"code": error.code, "call": error.call, "remedy": error.hint}
    data: dict[str, Json] = {"onbehalf/denial": denial}
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, VersionUnsupported):
        data.update(supported=list(MODERN_PROTOCOL_VERSIONS), requested=error.requested)
    if _login_helps(error):
        challenge = challenges.one(error, dpop=dpop)
        headers.append((b"www-authenticate", challenge.encode("ascii")))
        data["mcp/www_authenticate"] = [challenge]
    if isinstance(error, NonceNeeded):
        headers.append((b"dpop-nonce", error.nonce.encode("ascii")))
    if status == 503:
        headers.append((b"retry-after", b"1"))
    if isinstance(error, MethodRefused):
        headers.append((b"allow", b"POST"))
    if isinstance(error, BodyTooLarge | BodyTooSlow):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    return Refusal(
        status=status,
        code=error.code,
        rpc=rpc,
        message=_said(error),
        data=data,
        headers=tuple(headers),
        result=isinstance(error, ScopeMissing),
    )


def _login_helps(error: OnbehalfError) -> bool:
    if isinstance(error, IdentifyError):
        return error.status == 401
    return isinstance(error, ScopeMissing | CredentialsRefused)


def _oauth_code(error: OnbehalfError) -> str:
    if isinstance(error, StepUpNeeded) and (error.acr or error.max_age is not None):
        return "insufficient_user_authentication"
    if isinstance(error, ScopeMissing):
        return "insufficient_scope"
    if isinstance(error, NonceNeeded):
        return "use_dpop_nonce"
    if isinstance(error, DpopRefused):
        return "invalid_dpop_proof"
    return "invalid_request" if isinstance(error, CredentialsRefused) else "invalid_token"


def _said(error: OnbehalfError) -> str:
    """What the client reads. A refused request is told in full, since its message speaks only of its own bytes."""
    if isinstance(error, RequestRefused):
        said = error.message
    else:
        said = next((text for kind, text in _CLASSES if isinstance(error, kind)), "internal error")
    return f"{said}; {error.hint}" if error.hint else said


def _quotable(text: str) -> str:
    """Text that cannot leave a quoted-string or its header line (RFC 6750 section 3 charset)."""
    return _UNQUOTABLE.sub("'", text)[:500]


def _scope_tokens(scopes: Iterable[str]) -> list[str]:
    return sorted(scope for scope in scopes if _SCOPE.fullmatch(scope))
