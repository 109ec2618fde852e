"""A backend that calls further: a call token for another backend, for the same person and call, and never for more.

The exchange of one Transaction Token for another (draft-ietf-oauth-transaction-tokens section "Replacement", RFC 8693):
`txn`, `sub`, tenant, scope and where the request came from stay; the audience is one that the first backend may call;
`req_wl` says which one asks; it ends when the first token does. What is asked of the next backend, its tool and
arguments, is the first one's word. Must not verify, sign or record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onbehalf.errors import ActError
from onbehalf.model import Digest, Json, Receipt, UnixTime

__all__ = ["Further", "further_claims", "require_granted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Further:
    """What one backend asks for: to call `tool` at `audience` with arguments of this digest. `workload` is who asks."""

    workload: str
    audience: str
    tool: str
    arguments: Digest
    scope: str = ""


def require_granted(proven: Mapping[str, Json], asked: Further) -> None:
    """Raise ActError where more is asked than the first call token granted."""
    if asked.scope not in ("", proven.get("scope")):
        raise ActError(f"the call was granted `{proven.get('scope')}` and nothing else")


def further_claims(
    proven: Mapping[str, Json], asked: Further, *, issuer: str, receipt: Receipt, now: UnixTime
) -> dict[str, Json]:
    """The claims of the next token. `proven` are those of the first one: its signature, type and times were checked,
    and that no more is asked."""
    context = proven["tctx"]
    assert isinstance(context, dict)  # INVARIANT: this gateway signed it as a call token
    kind: dict[str, Json] = {"sub_profile": proven["sub_profile"]} if "sub_profile" in proven else {}
    return {
        "iss": issuer, "iat": now, "exp": proven["exp"], "aud": asked.audience, "txn": proven["txn"],
        "jti": f"{proven['txn']}.{receipt.index}", "sub": proven["sub"], **kind, "scope": proven["scope"],
        "req_wl": asked.workload,
        "tctx": {
            **context, "tool": asked.tool, "arguments": asked.arguments,
            "record": {"index": receipt.index, "leaf": receipt.leaf},
        },
        "rctx": proven["rctx"],
    }  # fmt: skip
