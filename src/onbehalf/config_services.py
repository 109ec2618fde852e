"""Who calls and is no person: the key `services` of an issuer, and the section `workloads` of `onbehalf.yaml`.

Nothing here is on by itself: without it a program's token is a token of nobody whom the directory knows. Must not read
a file or a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta

from onbehalf.config_directory import Keys
from onbehalf.errors import ConfigInvalid

__all__ = ["ServicesSettings", "SvidAlgorithm", "WorkloadSettings", "require_services", "require_workloads"]

SvidAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]


class ServicesSettings(Keys, frozen=True):
    """How an issuer's tokens say that a program called by itself (RFC 6749 section 4.4), and what it is called here.

    `told_by` is `sub`: the subject is the client itself (RFC 9068 section 2.2); `no_sub`: the issuer, asked about an
    opaque token, names no subject; or `claim`: the claim named by `claim` is exactly `value`. A service is called
    `prefix` and its client id.
    """

    told_by: Literal["sub", "no_sub", "claim"]
    claim: Annotated[str, Meta(max_length=255)] = ""
    value: Annotated[str, Meta(max_length=255)] = ""
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~:-]{0,64}$")] = ""


class WorkloadSettings(Keys, frozen=True):
    """One SPIFFE trust domain whose workloads may call, each as a service of `tenant` that is called by its SPIFFE ID.

    Its keys are in a SPIFFE bundle: at `bundle_url` (https, by the web's certificates) or in `bundle_file`, one of the
    two. `scopes` are what its workloads count as having: a JWT-SVID has none. `outage_seconds` is how long known keys
    are still believed while the bundle cannot be had.
    """

    trust_domain: Annotated[str, Meta(pattern=r"^[a-z0-9._-]{1,255}$")]
    tenant: Annotated[str, Meta(min_length=1, max_length=200)]
    bundle_url: Annotated[str, Meta(pattern=r"^(https?://[^?#\s]+)?$")] = ""
    bundle_file: Annotated[str, Meta(pattern=r"^[^\x00-\x1f]*$")] = ""
    algorithms: Annotated[tuple[SvidAlgorithm, ...], Meta(min_length=1)] = (
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
    )  # fmt: skip
    scopes: tuple[str, ...] = ()
    outage_seconds: Annotated[int, Meta(ge=0, le=7 * 86400)] = 3600


def require_services(told: Sequence[tuple[str, frozenset[str], ServicesSettings, bool]]) -> None:
    """See that a service's name is of one issuer. `told` is, by issuer: its name, its tenants, how services are told,
    and whether it is asked about tokens. Raises ConfigInvalid."""
    for issuer, _, each, asked in told:
        if (each.told_by == "claim") != bool(each.claim and each.value) or (each.told_by != "claim" and each.claim):
            raise ConfigInvalid(
                f"how `{issuer}` tells of services is not clear", hint="`claim` and `value` go with `told_by: claim`"
            )
        if each.told_by == "no_sub" and not asked:
            raise ConfigInvalid(
                f"a JWT of `{issuer}` always has a subject", hint="`told_by: no_sub` is for an issuer that is asked"
            )
    for tenant in {tenant for _, tenants, _, _ in told for tenant in tenants}:
        prefixes = sorted((each.prefix, issuer) for issuer, tenants, each, _ in told if tenant in tenants)
        for (prefix, issuer), (longer, other) in pairwise(prefixes):
            if longer.startswith(prefix):
                raise ConfigInvalid(
                    f"a service of `{tenant}` could be of `{issuer}` and of `{other}`",
                    hint="give each a `prefix` under `services` with which no other's begins",
                )


def require_workloads(workloads: Sequence[WorkloadSettings]) -> Mapping[str, WorkloadSettings]:
    """Workloads by trust domain. Raises ConfigInvalid where one stands twice, or has not one bundle."""
    for each in workloads:
        if bool(each.bundle_url) == bool(each.bundle_file):
            raise ConfigInvalid(
                f"the trust domain `{each.trust_domain}` needs one of `bundle_url` and `bundle_file`",
                hint="say where its bundle is",
            )
    found = {each.trust_domain: each for each in workloads}
    if len(found) != len(workloads):
        raise ConfigInvalid("a trust domain stands twice", hint="one entry per trust domain")
    return found
