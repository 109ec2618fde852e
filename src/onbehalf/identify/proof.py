"""What a token is bound to (`cnf`, RFC 7800), and whether its issuer's tokens must be.

Of the confirmation methods two are known: `jkt`, a key that DPoP proves (RFC 9449 section 6), and `x5t#S256`, a
client's certificate (RFC 8705 section 3.1). Must not look at a proof (dpop.py, certificate.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from onbehalf.config import IssuerSettings
from onbehalf.errors import DpopMissing, ProofMissing
from onbehalf.model import Json, Proof

__all__ = ["binding", "require_demanded"]

_METHODS: Mapping[str, Proof] = {"jkt": "dpop", "x5t#S256": "mtls"}
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
"""SHA-256 in base64url without padding, in its one spelling."""


def binding(claims: Mapping[str, Json]) -> tuple[Proof, str]:
    """What must be shown with the token, and the thumbprint it must fit; `("bearer", "")` where nothing must.

    A token that is bound in a way that is not known here, or to two things at once, proves nobody: to overlook a
    confirmation is to take what somebody wanted bound for a bearer token. Raises ProofMissing.
    """
    if "cnf" not in claims:
        return "bearer", ""
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or len(confirmation) != 1:
        raise ProofMissing("`cnf` is not an object with one member (RFC 7800 section 3.1)")
    [(method, value)] = confirmation.items()
    if method not in _METHODS:
        raise ProofMissing(
            "the token is bound in a way whose proof is not taken here", hint="use DPoP or a client certificate"
        )
    if not isinstance(value, str) or not _THUMBPRINT.fullmatch(value):
        raise ProofMissing(f"`cnf.{method}` is not a SHA-256 thumbprint in base64url")
    return _METHODS[method], value


def require_demanded(proof: Proof, rule: IssuerSettings) -> None:
    """Raise ProofMissing where the issuer's tokens must be bound, or in one way, and this one is not."""
    if rule.proof == "optional" or rule.proof == proof or (rule.proof == "required" and proof != "bearer"):
        return
    kind = DpopMissing if rule.proof != "mtls" else ProofMissing
    raise kind(
        f"bearer tokens of `{rule.issuer}` are refused, or those that are not bound by what its `proof` names",
        hint="ask the issuer for a token that is bound to a key of the client's",
    )
