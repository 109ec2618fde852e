"""Whether an issuer's token is a program's own, and what the service is called.

Only as the issuer's settings say: what is not recognised is a person's token, or nobody's. Must not make a Caller.
"""

from __future__ import annotations

from collections.abc import Mapping

from onbehalf.config import IssuerSettings
from onbehalf.errors import ClaimRefused
from onbehalf.model import Json

__all__ = ["SPIFFE", "is_service", "service_name"]

SPIFFE = "spiffe:"
"""How the names of workloads begin, which no other issuer may give (spiffe.py)."""


def is_service(claims: Mapping[str, Json], rule: IssuerSettings, client: str, *, asked: bool) -> bool:
    """Whether `client` called by itself. `asked` says that these are what the issuer answered about a token."""
    services = rule.services
    if services is None:
        return False
    if services.told_by == "sub":
        # A person could be called like a client; through that very client, it is the client's word either way.
        return claims.get("sub") == client
    if services.told_by == "no_sub":
        return asked and "sub" not in claims
    return claims.get(services.claim) == services.value  # `True == 1` cannot be: the value is a text


def service_name(rule: IssuerSettings, client: str) -> str:
    """What the service is called in its tenant. Raises ClaimRefused."""
    name = f"{rule.services.prefix if rule.services is not None else ''}{client}"
    if name.lower().startswith(SPIFFE):
        raise ClaimRefused(f"a client of `{rule.issuer}` has the name of a SPIFFE workload")
    return name
