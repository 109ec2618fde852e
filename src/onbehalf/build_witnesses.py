"""Opens what signs heads of the record beside its writer: the log's second key, and the witnesses of a policy file.

Must not hold a rule.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onbehalf.config import Settings, WitnessesSettings
from onbehalf.doors.clock_system import now
from onbehalf.doors.inbound_seen import Watched
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_seen import SeenCheckpoints
from onbehalf.doors.ledger_signing import HeadSigning
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.witness_http import WitnessClient, address
from onbehalf.doors.witness_quorum import QuorumWitnesses, Rounds
from onbehalf.errors import ConfigInvalid
from onbehalf.explain import quorum
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, Json
from onbehalf.places import Paths
from onbehalf.ports import House

if TYPE_CHECKING:
    from onbehalf.doors.ledger_postgres import PostgresLedger

__all__ = ["Heads", "open_heads", "open_watched", "open_witnesses", "read_policy"]

_MAX_BYTES = 262_145


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The ledger's heads, and the second signature under them; None where this installation has no ML-DSA-44."""

    heads: LedgerHeads
    signing: HeadSigning | None


def read_policy(settings: WitnessesSettings, base: Path, *, log: Collection[str]) -> quorum.Policy:
    """The policy file, fit for the log with these vkeys: it lists one if it lists any, and its quorum can be asked for.

    Raises ConfigInvalid.
    """
    path = base / settings.policy
    try:
        with path.open("rb") as file:
            policy = quorum.parse(file.read(_MAX_BYTES))
    except OSError as error:
        raise ConfigInvalid(f"the witness policy `{path}` cannot be read: {error.strerror}") from error
    if policy.logs and not set(policy.logs) & set(log):
        raise ConfigInvalid(
            f"the witness policy `{path}` lists logs, and this one is none of them", hint="add the line of log.pub"
        )
    asked = [each for each in policy.witnesses if each.url]
    for each in asked:
        address(each.url)
    if policy.met(()) or not policy.met({each.name for each in asked}):
        raise ConfigInvalid(
            f"the quorum `{policy.quorum}` of `{path}` needs nobody, or witnesses without an address",
            hint="name a witness or a group under `quorum`, and write each witness's URL behind its key",
        )
    return policy


async def open_heads(
    heads: LedgerHeads, stack: contextlib.AsyncExitStack, *, ledger: SqliteLedger | PostgresLedger, keys: LedgerKeys
) -> Heads:
    """The heads of an open ledger, signed from now on, at last when it is closed; then they are closed too.

    Raises LedgerCorrupt where one that was signed is no beginning of the log, LedgerUnavailable.
    """
    signing = HeadSigning(heads, keys.heads, clock=now) if keys.heads is not None else None

    async def end() -> None:
        heads.release()  # the last one to close the ledger is to be its writer, who leaves one whole file
        await asyncio.to_thread(ledger.close)
        if signing is not None and ledger.head:
            signing.last(ledger.head)
        heads.close()

    stack.push_async_callback(end)
    await asyncio.to_thread(heads.require_continued)
    if signing is not None:
        stack.push_async_callback(_cancelled, asyncio.create_task(signing.run()))
    return Heads(heads=heads, signing=signing)


async def open_watched(
    house: House, heads: LedgerHeads, stack: contextlib.AsyncExitStack, *, ledger: SqliteLedger | PostgresLedger,
    count: Callable[[str], None],
) -> House:  # fmt: skip
    """The house whose answers carry checkpoints, and which looks at those that clients bring back. `heads` is its own,
    and closed at the end."""
    stack.callback(heads.close)

    def alarm(facts: dict[str, Json]) -> None:
        ledger.follow(AuditEntry(kind="split_view", call="", at=now(), facts=facts))

    seen = SeenCheckpoints(heads, count=count, alarm=alarm)
    stack.push_async_callback(_cancelled, asyncio.create_task(seen.run()))
    return Watched(house, newest=lambda: ledger.head, offer=seen.offer)


async def open_witnesses(
    settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, *, ledger: SqliteLedger | PostgresLedger,
    keys: LedgerKeys, heads: LedgerHeads,
) -> QuorumWitnesses | None:  # fmt: skip
    """The witnesses, asked from now on; None where none are configured. Raises ConfigInvalid."""
    chosen = settings.gateway.witnesses
    if chosen is None:
        return None
    policy = read_policy(chosen, places.config.resolve().parent, log=keys.vkeys)

    def stop(why: str) -> None:
        ledger.stop(AuditEntry(kind="witness_refused", call="", at=now(), facts={"reason": why}), why)

    clients = {
        each.name: WitnessClient(each, seconds=chosen.wait_seconds, proof=heads.proof)
        for each in policy.witnesses
        if each.url
    }
    rounds = Rounds(wait_s=chosen.wait_seconds, every_s=chosen.every_seconds, stop=stop)
    made = QuorumWitnesses(policy, clients, heads, rounds)
    stack.push_async_callback(made.aclose)
    stack.push_async_callback(_cancelled, asyncio.create_task(made.run()))
    return made


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
