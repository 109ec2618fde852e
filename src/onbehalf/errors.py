"""Every way a call can be refused, in one tree.

The branch is the room that failed, `code` never changes, `status` is what an HTTP door answers,
`hint` tells a person what to do next. Messages hold no secret: no token, key or payload.
Must not hold anything that decides, formats for a wire, or logs.
"""

from __future__ import annotations

from typing import ClassVar


class OnbehalfError(Exception):
    """A refusal with a stable `code`, an HTTP `status` and a `hint` for a person."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.call = ""
        """The id of the call on record, where it is on record."""


# --- configuration: the house is not built -------------------------------------------------


class ConfigInvalid(OnbehalfError):
    """`onbehalf.yaml`, a policy bundle or a directory file cannot be used as it is."""

    code = "config_invalid"


class PolicyInvalid(ConfigInvalid):
    """A policy bundle failed to parse, validate or lint; the old one keeps running."""

    code = "policy_invalid"


class DirectoryInvalid(ConfigInvalid):
    """The directory source breaks a constraint: a cycle, a cross-tenant edge, an unknown name."""

    code = "directory_invalid"


class ScimInvalid(DirectoryInvalid):
    """What an identity provider pushed cannot be taken; `kind` is its `scimType` (RFC 7644 section 3.12)."""

    code = "scim_invalid"

    def __init__(self, message: str, *, kind: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.http = 409 if kind == "uniqueness" else 400


# --- the door: bytes that are not a request ------------------------------------------------


class LoginFailed(OnbehalfError):
    """A browser's login at an issuer came to nothing."""

    code = "login_failed"
    status = 403


class SignalsUnavailable(OnbehalfError):
    """A security event could not be kept, so it was not taken."""

    code = "signals_unavailable"
    status = 503


class RequestRefused(OnbehalfError):
    """The bytes are not a request this gateway answers."""

    code = "request_refused"
    status = 400


class BodyTooLarge(RequestRefused):
    code = "body_too_large"
    status = 413


class BodyMalformed(RequestRefused):
    code = "body_malformed"


class BodyTooSlow(RequestRefused):
    code = "body_too_slow"
    status = 408


class HostRefused(RequestRefused):
    code = "host_refused"
    status = 421


class OriginRefused(RequestRefused):
    code = "origin_refused"
    status = 403


class HeaderMismatch(RequestRefused):
    """A mirrored MCP header disagrees with the body (MCP 2026-07-28, -32020)."""

    code = "header_mismatch"


class CredentialsRefused(RequestRefused):
    """More than one Authorization header, or a token in the query string (RFC 6750 section 2.3 is not served)."""

    code = "credentials_refused"


class MethodRefused(RequestRefused):
    """The HTTP method is not served here."""

    code = "method_refused"
    status = 405


class NotAcceptable(RequestRefused):
    """The client does not accept `application/json`."""

    code = "not_acceptable"
    status = 406


class MediaTypeRefused(RequestRefused):
    """The body is not said to be `application/json`."""

    code = "media_type_refused"
    status = 415


class ParametersInvalid(RequestRefused):
    """The JSON-RPC parameters lack something the method needs (-32602)."""

    code = "parameters_invalid"


class UnknownMethod(RequestRefused):
    """The JSON-RPC method is not served (-32601)."""

    code = "unknown_method"
    status = 404


class VersionUnsupported(RequestRefused):
    """The MCP revision asked for is not served (-32022)."""

    code = "version_unsupported"

    def __init__(self, message: str, *, requested: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.requested = requested


class Busy(RequestRefused):
    """More calls under way than this gateway admits; nothing was done."""

    code = "busy"
    status = 503


class SessionForeign(RequestRefused):
    """A legacy MCP session belongs to another issuer, subject or client."""

    code = "session_foreign"
    status = 404


# --- room 1, identify: who calls is not proven ---------------------------------------------


class IdentifyError(OnbehalfError):
    """Who calls is not proven."""

    code = "invalid_token"
    status = 401


class TokenMissing(IdentifyError):
    code = "token_missing"


class TokenMalformed(IdentifyError):
    code = "token_malformed"


class TokenTooLarge(TokenMalformed):
    code = "token_too_large"


class AlgorithmRefused(IdentifyError):
    code = "algorithm_refused"


class UnknownIssuer(IdentifyError):
    code = "unknown_issuer"


class UnknownKey(IdentifyError):
    code = "unknown_key"


class SignatureMismatch(IdentifyError):
    code = "signature_mismatch"


class WrongType(IdentifyError):
    code = "wrong_token_type"


class WrongAudience(IdentifyError):
    code = "wrong_audience"


class ClaimRefused(IdentifyError):
    """A required claim is missing or has the wrong shape."""

    code = "claim_refused"


class StateRefused(ClaimRefused):
    """A verification event does not have the `state` that was asked for (SSF 1.0)."""

    code = "state_refused"


class TokenExpired(IdentifyError):
    code = "token_expired"


class TokenRevoked(IdentifyError):
    """The token was issued before its person, client or tenant was revoked."""

    code = "token_revoked"


class TokenNotYetValid(IdentifyError):
    code = "token_not_yet_valid"


class TenantRefused(IdentifyError):
    """The issuer spoke for a tenant that is not its own."""

    code = "tenant_refused"


class ProofMissing(IdentifyError):
    """The token is bound to a key (`cnf`, RFC 7800) and no proof of it was shown, or a proof is demanded of all."""

    code = "proof_missing"


class DpopMissing(ProofMissing):
    """A proof by DPoP is needed, and the token came without (RFC 9449 section 7.2)."""

    code = "dpop_missing"


class DpopRefused(IdentifyError):
    """The proof by DPoP is none, or not of this request, this token and its key (RFC 9449 section 4.3)."""

    code = "dpop_refused"


class NonceNeeded(IdentifyError):
    """The proof by DPoP has to hold a nonce of this server's; `nonce` is one (RFC 9449 section 8)."""

    code = "dpop_nonce_needed"

    def __init__(self, message: str, *, nonce: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.nonce = nonce


class ProofsUnavailable(IdentifyError):
    """It cannot be kept which proofs were used, so none is taken."""

    code = "proofs_unavailable"
    status = 503


class TokenInactive(IdentifyError):
    """The issuer says that the token is not, or no longer, one of its own (RFC 7662 section 2.2)."""

    code = "token_inactive"


class IssuerUnavailable(IdentifyError):
    """The issuer cannot be asked: for its keys, of which none young enough are kept, or about a token."""

    code = "issuer_unavailable"
    status = 503


class AnswerRefused(IssuerUnavailable):
    """What the issuer said about a token cannot be believed: not signed, for another client, old, or misshapen."""

    code = "answer_refused"


# --- room 2, validate: they may not --------------------------------------------------------


class ValidateError(OnbehalfError):
    """The call cannot be decided, so it is denied.

    `protocol` says that the client must see an error of the protocol, where else a tool result tells the model.
    """

    code = "not_permitted"
    status = 403
    protocol: ClassVar[bool] = False


class UnknownTool(ValidateError):
    code = "unknown_tool"
    status = 404
    protocol = True


class ArgumentsRefused(ValidateError):
    """The arguments do not fit the tool's schema."""

    code = "arguments_refused"
    status = 400


class BoundParameter(ArgumentsRefused):
    """The client sent a parameter that only the gateway sets."""

    code = "bound_parameter"


class ScopeMissing(ValidateError):
    """The token lacks a scope the tool asks for (RFC 6750 section 3.1, `insufficient_scope`)."""

    code = "insufficient_scope"
    protocol = True

    def __init__(self, message: str, *, scopes: frozenset[str], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.scopes = scopes


class StepUpNeeded(ScopeMissing):
    """A policy asks for more of the token or the login: scopes, one of some `acr`, at most `max_age` seconds since it
    (RFC 9470)."""

    code = "step_up_needed"

    def __init__(
        self, message: str, *, scopes: frozenset[str], acr: tuple[str, ...], max_age: int | None, hint: str = ""
    ) -> None:
        super().__init__(message, scopes=scopes, hint=hint)
        self.acr = acr
        self.max_age = max_age


class PersonUnknown(ValidateError):
    """The token is good, and the directory has no such person."""

    code = "person_unknown"


class Blocked(ValidateError):
    """The person, the client or the tenant is stopped."""

    code = "blocked"


class SignalsSilent(ValidateError):
    """Nothing was heard for too long of who must be stopped, from a stream without which nobody is let in."""

    code = "signals_silent"
    status = 503
    protocol = True


class ClaimsUnusable(ValidateError):
    """The token is good, and what it says of its person cannot be taken over."""

    code = "claims_unusable"


class DirectoryUnavailable(ValidateError):
    code = "directory_unavailable"
    status = 503
    protocol = True


class DirectoryStale(ValidateError):
    """The feed of this person's tenant has not said for too long how things are, and the call would write."""

    code = "directory_stale"
    status = 503


class ResourceUnavailable(ValidateError):
    """The one resource a call is about could not be looked up, so nothing could be decided."""

    code = "resource_unavailable"
    status = 503


class Repeated(ValidateError):
    """The same effect was asked for before and is not brought about again."""

    code = "done_before"
    status = 409


class KeyReused(ValidateError):
    """An idempotency key came again with other arguments."""

    code = "key_reused"
    status = 409


class ChangeStale(ValidateError):
    """What would change is not what the client was shown, or it was shown too long ago, or to somebody else."""

    code = "change_stale"
    status = 409


class OnceUnavailable(ValidateError):
    """Whether the same was done before cannot be told."""

    code = "once_unavailable"
    status = 503


class CursorInvalid(ValidateError):
    """A cursor is another person's, client's, tool's or call's, was made under other policies, or is too old."""

    code = "cursor_invalid"
    status = 400


class ApprovalGone(ValidateError):
    """The approval was used by another call, refused or over in the moment it was to be used."""

    code = "approval_gone"
    status = 409


class ApprovalsUnavailable(ValidateError):
    """What was approved cannot be told."""

    code = "approvals_unavailable"
    status = 503


class TooManyApprovals(ValidateError):
    """More of one person's calls wait for approval than may."""

    code = "too_many_approvals"
    status = 429


class ApprovalUnknown(ValidateError):
    """There is no such approval for whoever asks: absent, over, or not theirs to see, which is one answer."""

    code = "approval_unknown"
    status = 404


class VaultUnavailable(ValidateError):
    """People's own logins at upstreams cannot be read or kept; what needs one is not done."""

    code = "vault_unavailable"
    status = 503


class ConnectionUnknown(ValidateError):
    """Nothing that this person is asked to connect: it is not there, over, or another person's."""

    code = "connection_unknown"
    status = 404


class PolicyUnavailable(ValidateError):
    code = "policy_unavailable"
    status = 503


# --- room 3, act: it could not be done -----------------------------------------------------


class ActError(OnbehalfError):
    """Allowed and recorded, but it could not be sent."""

    code = "act_failed"
    status = 502


class CallTimedOut(ActError):
    """The call took longer than `call_seconds`; whether it was done is for the record to say."""

    code = "call_timed_out"
    status = 504


class UpstreamUnavailable(ActError):
    """An upstream cannot say what tools it has."""

    code = "upstream_unavailable"
    status = 503


class SignerUnavailable(ActError):
    code = "signer_unavailable"
    status = 503


class CallTokenRefused(ActError):
    """A backend refuses a call token: not one of this gateway's, for another audience, or misshapen."""

    code = "call_token_refused"
    status = 401


class CallTokenMissing(CallTokenRefused):
    """A backend was asked for something that needs exactly one call token, and got none or several."""

    code = "call_token_missing"


class CallTokenExpired(CallTokenRefused):
    """The call token's time is over, has not begun, or is too long."""

    code = "call_token_expired"


class CallTokenMismatch(CallTokenRefused):
    """The call token is for another tool or other arguments than the request."""

    code = "call_token_mismatch"


class CallTokenReplayed(CallTokenRefused):
    """The call token was used before."""

    code = "call_token_replayed"


class ReplayUnknown(CallTokenRefused):
    """Whether the call token was used before cannot be told, so it counts as used."""

    code = "replay_unknown"


class CallKeysUnavailable(CallTokenRefused):
    """The gateway's public keys cannot be had."""

    code = "call_keys_unavailable"


# --- room 4, explain: it could not be recorded, so it is not done --------------------------


class ExplainError(OnbehalfError):
    code = "explain_failed"


class LedgerUnavailable(ExplainError):
    """The record cannot be made durable; nothing is done."""

    code = "ledger_unavailable"
    status = 503


class WitnessesUnavailable(ExplainError):
    """Too few witnesses cosigned the record of a call in time; it is not sent."""

    code = "witnesses_unavailable"
    status = 503


class LedgerCorrupt(ExplainError):
    """The log does not verify; the message says where."""

    code = "ledger_corrupt"


class RecordMissing(ExplainError):
    """No such call or record."""

    code = "record_missing"
    status = 404


class ErasureRefused(ExplainError):
    """Nothing was erased, and nothing will be by this request."""

    code = "erasure_refused"
    status = 409


class SinkUnavailable(ExplainError):
    """A sink does not take records now; they are sent again."""

    code = "sink_unavailable"
    status = 503


class SinkRefused(ExplainError):
    """A sink will not take records as they are sent; nothing is left out, so none after them is sent."""

    code = "sink_refused"
    status = 502


class QueryFailed(ExplainError):
    """A question to the record is none, or takes too long or answers too much."""

    code = "query_failed"
    status = 400


class ReceiptRefused(ExplainError):
    """What a backend sent as its receipt of a call is none of this call."""

    code = "receipt_refused"
    status = 502
