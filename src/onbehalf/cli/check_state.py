"""The part of `onbehalf check` about what several gateways remember together: can it be used, and does it last.

Must not print, or change a row.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from onbehalf.build_state import state_dsn
from onbehalf.cli.check_exchange import Said
from onbehalf.config import Settings

__all__ = ["said_of_state"]


async def said_of_state(settings: Settings, *, base: Path) -> AsyncIterator[Said]:
    """Everything to be said. `base` is where references start. Raises ConfigInvalid."""
    if settings.gateway.state is None:
        return
    # with it comes a client library, which a gateway without such a database does without
    from onbehalf.doors.state_postgres import State, StateDown

    rules = settings.gateway.state.postgres
    state = await State.open(state_dsn(rules, base=base), connections=1, seconds=rules.timeout_seconds)
    try:
        ((synced,),) = await state.run("SELECT current_setting('fsync')::boolean")
    except StateDown as error:
        yield "problem", "state", f"the database cannot be used: {error}", "look at its server"
        return
    finally:
        await state.aclose()
    yield "ok", "state", "the database of what gateways remember together is there, and its role has no more rights", ""
    if not synced:
        text = "its server has `fsync` off: with its machine it loses what may happen only once"
        yield "warning", "state", text, "turn it on in postgresql.conf"
