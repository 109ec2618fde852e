"""Witnesses of the record: the key `witnesses` of `gateway`, and what it owes to tools.

Must not read a file, or know what a policy file says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

from onbehalf.config_directory import Keys, Place
from onbehalf.errors import ConfigInvalid

__all__ = ["WitnessesSettings", "require_witnesses"]


class WitnessesSettings(Keys, frozen=True):
    """Who cosigns heads of the record. `policy` is a C2SP tlog-policy file; witnesses are asked at their URLs in it.

    A call of a `witnessed` tool waits for its quorum at most `wait_seconds`, and is not sent without it. While nothing
    waits, the newest head is cosigned every `every_seconds`.
    """

    policy: Place
    wait_seconds: Annotated[float, Meta(gt=0, le=60)] = 5.0
    every_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 60.0


def require_witnesses(settings: WitnessesSettings | None, witnessed: Iterable[str]) -> None:
    """See that there are witnesses where a tool needs them. Raises ConfigInvalid."""
    for tool in sorted(witnessed):
        if settings is None:
            raise ConfigInvalid(
                f"tool `{tool}` is `witnessed`, and nobody is there to witness it",
                hint="name a policy file under `gateway.witnesses.policy`",
            )
