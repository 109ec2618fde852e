"""The directory, of which nobody is served whose tenant's required stream of security events is silent.

Without it, somebody could be stopped where they log in and go on here. Must not know how a stream is heard.

Trust: whoever can keep events from us can have a tenant refused, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from onbehalf.errors import SignalsSilent
from onbehalf.model import Caller, Entity, Person
from onbehalf.ports import Directory

__all__ = ["HeardPeople"]


class HeardPeople:
    """The Directory port over another one. `silent` tells which required stream of a tenant is silent, "" for none."""

    def __init__(self, directory: Directory, silent: Callable[[str], str]) -> None:
        self._directory = directory
        self._silent = silent

    async def person(self, caller: Caller) -> Person:
        """As the directory. Raises SignalsSilent too."""
        stream = self._silent(caller.tenant)
        if stream:
            raise SignalsSilent(
                f"the stream `{stream}` was not heard for too long", hint="nothing was done; tell who runs the gateway"
            )
        return await self._directory.person(caller)

    async def people(self, tenant: str, ids: Iterable[str]) -> Sequence[Entity]:
        """As the directory."""
        return await self._directory.people(tenant, ids)
