"""For whom an issuer may speak: one tenant, or those it is allowed to name.

Tenants are never read from anything but the issuer's own rule, so that no issuer can speak for another's tenant. Must
not know people.
"""

from __future__ import annotations

from collections.abc import Mapping

from onbehalf.config import IssuerSettings
from onbehalf.errors import ConfigInvalid, TenantRefused
from onbehalf.model import Json

__all__ = ["check_tenants", "tenant_of"]

_MAX_TENANT = 200


def tenant_of(claimed: Mapping[str, Json], rule: IssuerSettings) -> str:
    """The tenant of claims whose signature and issuer are already proven. Raises TenantRefused."""
    if isinstance(rule.tenant, str):
        if not _is_name(rule.tenant):
            raise TenantRefused(f"the issuer `{rule.issuer}` has no usable tenant", hint="name one in its settings")
        return rule.tenant
    named = claimed.get(rule.tenant.claim)
    if not isinstance(named, str) or named not in rule.tenant.allowed or not _is_name(named):
        raise TenantRefused(
            f"the issuer `{rule.issuer}` may not speak for the tenant in claim `{rule.tenant.claim}`",
            hint="list the tenant under `allowed` of this issuer, if it is the issuer's own",
        )
    return named


def check_tenants(rule: IssuerSettings) -> None:
    """Raise ConfigInvalid for a tenant name that no one should have."""
    for tenant in (rule.tenant,) if isinstance(rule.tenant, str) else rule.tenant.allowed:
        if not _is_name(tenant):
            raise ConfigInvalid(
                f"the tenant of issuer `{rule.issuer}` is not a name",
                hint=f"1 to {_MAX_TENANT} printable characters without blanks at the ends and without `/`",
            )


def _is_name(tenant: str) -> bool:
    # `/` ends the tenant in an entity id: tenant `a/b` with person `c` must not meet tenant `a` with person `b/c`.
    return 1 <= len(tenant) <= _MAX_TENANT and tenant.isprintable() and "/" not in tenant and tenant.strip() == tenant
