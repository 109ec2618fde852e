"""What a call token says: the claims of a Transaction Token for one grant.

Names are those of draft-ietf-oauth-transaction-tokens (`scope`, `req_wl`, `tctx`, `rctx`). One thing is narrower than
the draft: `aud` is the one upstream and not the whole trust domain, so that a backend cannot use a token at another.
Must not sign, read a clock, or hold the arguments themselves or the caller's own token.
"""

from __future__ import annotations

from onbehalf.model import Grant, Json

__all__ = ["KIND", "SERVICE", "claims"]

KIND = "txntoken+jwt"
"""The `typ` header, by which no other token is taken for a call token (RFC 8725 section 3.11)."""

SERVICE = "service:"
"""How the `sub` of a service begins; what follows is its tenant and name."""


def claims(grant: Grant, *, issuer: str) -> dict[str, Json]:
    """The claims for one grant. `issuer` is the trust domain that signs.

    `txn` is the call, which may send more than once (a lookup first); `jti` is one sending, by its place in the record.
    `tctx` is what may be done and never changes on the way, with its place in the record and, under `channel` and `n`,
    in the count of all sendings to this upstream; `rctx` is where the request came from. `tctx.arguments`
    is the digest of the canonical arguments: who gets the token learns nothing that the call does not hold.
    """
    allow, receipt = grant.allow, grant.receipt
    call = allow.call
    record: dict[str, Json] = {"index": receipt.index, "leaf": receipt.leaf}
    if receipt.channel:
        record |= {"channel": receipt.channel, "n": receipt.number}
    told: dict[str, Json] = {"sub": call.person.ref.id}
    if call.person.kind == "service":
        # Whoever knows people only finds a `sub` here that is not of the tenant in `tctx`, and refuses it.
        told = {"sub": f"{SERVICE}{call.person.ref.id}", "sub_profile": "service"}
    return {
        "iss": issuer,
        "iat": grant.issued_at,
        "exp": grant.expires_at,
        "aud": grant.audience,
        "txn": call.id,
        "jti": f"{call.id}.{receipt.index}",
        **told,
        "scope": call.tool.action,
        "req_wl": issuer,
        "tctx": {
            "tenant": call.person.tenant,
            "tool": call.tool.remote,
            "action": call.tool.action,
            "arguments": call.digest,
            "resource": {"type": allow.resource.type, "id": allow.resource.id},
            "record": record,
        },
        "rctx": {
            "issuer": call.caller.evidence.issuer,
            "subject": call.caller.subject,
            "client": call.caller.client,
            "agent": call.agent,
        },
    }
