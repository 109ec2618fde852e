"""Names that look as if they chose a person or a tenant. Must not know arguments, or what is done about such a name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from onbehalf.model import Json

__all__ = ["identity_like"]

_IDENTITY_PARTS = frozenset(
    {"actor", "behalf", "caller", "email", "employee", "impersonate", "login", "org", "organisation", "organization"}
    | {"person", "principal", "requester", "sub", "subject", "tenant", "uid", "user", "userid", "username", "whoami"}
)


def identity_like(schema: Mapping[str, Json]) -> tuple[str, ...]:
    """Shown parameters whose names suggest that they choose a person or tenant. A guess, for warnings only."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return ()
    return tuple(name for name in properties if not _IDENTITY_PARTS.isdisjoint(_parts(name)))


def _parts(name: str) -> list[str]:
    """`userId`, `user-id`, `user.id` and `user_id` are `user` and `id`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^0-9A-Za-z]", "_", name).lower().split("_")
