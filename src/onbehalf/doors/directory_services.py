"""The directory, in which a service is known by its proof alone: no login, no groups, nobody above it.

Must not know a person, or what a service may do.

Trust: as whoever proved the caller; a service is whatever its issuer or trust domain says, within its tenant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onbehalf.config import Settings
from onbehalf.model import Caller, Entity, Json, Person, Ref
from onbehalf.ports import Directory

__all__ = ["ServicesToo", "service_of", "with_services"]


def with_services(directory: Directory, settings: Settings) -> Directory:
    """The directory, for services as well where the settings let any call."""
    if not settings.workloads and not any(each.services for each in settings.issuers):
        return directory
    return ServicesToo(directory)


class ServicesToo:
    """The Directory port over another one, which is asked about people only."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def person(self, caller: Caller) -> Person:
        """The caller's own slice. Raises what the directory does, for a person."""
        if caller.kind == "person":
            return await self._directory.person(caller)
        return service_of(caller)

    async def people(self, tenant: str, ids: Iterable[str]) -> Sequence[Entity]:
        """Of others: only people are ever named. Raises DirectoryUnavailable."""
        return await self._directory.people(tenant, ids)


def service_of(caller: Caller) -> Person:
    """The slice of a service: its Service and its Tenant."""
    tenant = Ref(type="Tenant", id=caller.tenant)
    ref = Ref(type="Service", id=f"{caller.tenant}/{caller.service}")
    attributes: dict[str, Json | Ref] = {
        "tenant": tenant, "name": caller.service, "active": True, "issuer": caller.evidence.issuer,
    }  # fmt: skip
    entities = (Entity(ref=ref, attributes=attributes, parents=()), Entity(ref=tenant, attributes={}, parents=()))
    return Person(
        ref=ref, tenant=caller.tenant, name=caller.service, active=True, attributes={}, entities=entities, revision=0
    )
