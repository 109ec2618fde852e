"""What identity providers may push, as the settings say: where references become secrets.

Must not hold how a push is answered (inbound_scim.py) or becomes people (directory_pushed.py).

Trust: as directory_scim.py; the secrets come from where the configuration refers to.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from onbehalf.config_directory import ClaimsSettings, DirectorySettings, ScimSettings
from onbehalf.doors.directory_pushed import PushedPeople
from onbehalf.doors.directory_scim import ScimStore
from onbehalf.doors.inbound_scim import ScimApp, ScimTenant
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json
from onbehalf.ports import Clock
from onbehalf.validate.people import People
from onbehalf.validate.scim_people import Feed

__all__ = ["open_pushed", "require_alone", "scim_tenants"]

_MIN_SECRET = 32


def scim_tenants(scim: tuple[ScimSettings, ...], *, base: Path) -> list[ScimTenant]:
    """The tenants that are pushed, with what opens each. Raises ConfigInvalid."""
    found: list[ScimTenant] = []
    for each in scim:
        secret = resolved(each.secret, base=base, what="scim.secret")
        if len(secret) < _MIN_SECRET:
            raise ConfigInvalid(
                f"the SCIM secret of `{each.tenant}` has fewer than {_MIN_SECRET} characters",
                hint="make one: openssl rand -hex 32",
            )
        found.append(ScimTenant(tenant=each.tenant, secret=sha256(secret.encode()).digest()))
    if len({each.secret for each in found}) != len(found):
        raise ConfigInvalid("two tenants have one SCIM secret", hint="give each provider its own")
    return found


def require_alone(settings: DirectorySettings, known: People) -> None:
    """See that nobody is told by two sources. Raises ConfigInvalid."""
    told: tuple[ScimSettings | ClaimsSettings, ...] = (*settings.scim, *settings.claims)
    for each in told:
        if each.tenant in known.tenants:
            how = "is pushed by SCIM" if isinstance(each, ScimSettings) else "is told by tokens"
            raise ConfigInvalid(
                f"tenant `{each.tenant}` {how} and stands in people.yaml", hint="take it out of one of them"
            )


def open_pushed(
    scim: tuple[ScimSettings, ...],
    *,
    base: Path,
    file: Path,
    origin: str,
    clock: Clock,
    note: Callable[[str, dict[str, Json]], None],
) -> tuple[PushedPeople, ScimApp] | None:
    """What is kept of pushed people, and the door they come in by; None where nobody is. Raises ConfigInvalid."""
    if not scim:
        return None
    tenants = scim_tenants(scim, base=base)
    feeds = [
        Feed(
            tenant=each.tenant, issuer=each.issuer, person=each.person, login=each.login, attributes=each.attributes
        )
        for each in scim
    ]  # fmt: skip
    pushed = PushedPeople(ScimStore.open(file), feeds, clock=clock, note=note)
    return pushed, ScimApp(tenants, origin=origin, look=pushed.look, make=pushed.make)
