"""Where what must be remembered once across several gateways is kept: the key `state` of `gateway`.

Must not read a secret.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from onbehalf.config_directory import Keys, Reference

__all__ = ["PostgresState", "StateSettings"]


class PostgresState(Keys, frozen=True):
    """One database for all gateways of this resource. `dsn` is the gateway's own role there.

    `connections` are held from the start on; `timeout_seconds` bounds one statement with all its waiting, after which
    what asked for it is refused.
    """

    dsn: Reference
    connections: Annotated[int, Meta(ge=2, le=100)] = 8
    timeout_seconds: Annotated[float, Meta(ge=0.1, le=30)] = 5.0
    insecure_tls_for_tests: bool = False
    """Take a server beyond loopback whose name is not verified. Danger: whoever answers keeps the gateway's memory."""


class StateSettings(Keys, frozen=True):
    """What is remembered together. Without this section everything is in files of the machine."""

    postgres: PostgresState
