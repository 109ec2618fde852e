"""The Witnesses port: heads of the record cosigned by a policy's quorum, in rounds, as commits are for many calls.

A round takes the newest head, asks all witnesses at once, and ends when enough of them cosigned it, when all have
answered, or when its time is over. Whoever came meanwhile is in the next one. A witness that is slow goes on alone: it
has one request under way, and is asked about the newest head after that. Without calls the newest head is cosigned now
and then. Where somebody else had a larger head of this log cosigned, such as a gateway that shares the record, the
round takes what they kept, or asks again about the newest head. Must not know how a witness is asked (witness_http.py)
or what a file is.

Trust: a quorum of the policy's witnesses, together with who holds `log.key`, can vouch for a second history. One
witness alone can stop the gateway, by saying that it saw another history.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from onbehalf.doors.witness_http import Ahead, Asking, Disowned, WitnessFailed
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable, OnbehalfError, WitnessesUnavailable
from onbehalf.explain.checkpoint import Checkpoint, Head
from onbehalf.explain.cosigners import by_quorum
from onbehalf.explain.quorum import Policy
from onbehalf.model import Receipt, Witnessed

__all__ = ["Heads", "QuorumWitnesses", "Rounds"]

_log = logging.getLogger(__name__)
_HINT = "nothing was sent; see that the witnesses of the policy file are running and know this log's key"


class Heads(Protocol):
    """Where heads come from, and cosignatures go. All block. `recent` are kept heads of more leaves, the newest first,
    with lines by who signed; whose they are is not checked."""

    def newest(self) -> Head: ...
    def begins_with(self, head: Checkpoint) -> bool: ...
    def recent(self, more: int) -> Sequence[tuple[Head, Mapping[str, str]]]: ...
    def keep(self, head: Head, lines: Mapping[str, tuple[int, str]]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How long a call waits for a quorum, how often the newest head is cosigned while none does, in seconds; and who is
    told, once, that a witness disowns this log: after that no entry may be taken."""

    wait_s: float
    every_s: float
    stop: Callable[[str], None]


@dataclass(eq=False, slots=True)
class _Witness:
    """One witness, and that it is asked by one at a time. `said` is what went wrong last; "" where nothing did."""

    name: str
    client: Asking
    said: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(eq=False, slots=True)
class _Waiter:
    index: int
    future: asyncio.Future[Witnessed]


class QuorumWitnesses:
    """The witnesses of one policy. Used on one event loop; nothing is cosigned but while `run` runs."""

    def __init__(self, policy: Policy, clients: Mapping[str, Asking], heads: Heads, rounds: Rounds) -> None:
        """`clients` are those of the policy's witnesses that can be asked, by name."""
        self._policy = policy
        self._witnesses = [_Witness(name, client) for name, client in clients.items()]
        self._heads = heads
        self._rounds = rounds
        self._waiting: list[_Waiter] = []
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[tuple[str, int] | None]] = set()
        self._newest = -1
        """The size of the head that was last asked about."""
        self._found: Witnessed | None = None
        """The newest head that a quorum cosigned."""
        self._overtaken = False
        """Whether a witness cosigned a larger head of this log, in the round that is under way."""
        self._stopped = ""

    def problems(self) -> dict[str, str]:
        """What went wrong last, by witness; nothing of one that cosigned since."""
        return {each.name: each.said for each in self._witnesses if each.said}

    @property
    def size(self) -> int:
        """The size of the newest head that a quorum cosigned; -1 for none since the start."""
        return self._found.size if self._found is not None else -1

    async def cosigned(self, receipt: Receipt) -> Receipt:
        """As the port says. What waits here when a round begins is in it."""
        if self._stopped:
            raise LedgerUnavailable(self._stopped)
        if self._found is not None and receipt.index < self._found.size:  # a round that is over had it already
            return replace(receipt, witnessed=self._found)
        waiter = _Waiter(receipt.index, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._wanted.set()
        try:
            async with asyncio.timeout(self._rounds.wait_s):
                found = await waiter.future
        except TimeoutError as error:
            raise WitnessesUnavailable(f"too few witnesses cosigned in time{self._why()}", hint=_HINT) from error
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
        return replace(receipt, witnessed=found)

    async def run(self) -> None:
        """Rounds, until cancelled. The first one at once: a log that was put back is found when the gateway starts."""
        while not self._stopped:
            try:
                await self._round()
            except Exception as error:  # whatever it is, what waits is not witnessed, and the next round is another try
                self._refuse([*self._waiting], "no head can be had")
                _log.error("no head can be cosigned: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rounds.every_s):
                    await self._wanted.wait()
            self._wanted.clear()

    async def aclose(self) -> None:
        """Ask nobody any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for witness in self._witnesses:
            await witness.client.aclose()

    async def _round(self) -> None:
        head = await asyncio.to_thread(self._heads.newest)
        until = asyncio.get_running_loop().time() + self._rounds.wait_s
        while await self._tried(head, until):
            if asyncio.get_running_loop().time() >= until:  # who still waits has a time of their own, and another round
                self._wanted.set()
                return
            head = await asyncio.to_thread(self._heads.newest)

    async def _tried(self, head: Head, until: float) -> bool:
        """Have the newest head cosigned; whether that is to be tried again, for somebody else was faster."""
        mine = [each for each in self._waiting if each.index < head.size]
        if head.size <= self.size and not mine:
            return False
        self._newest, self._overtaken = head.size, False
        by = await self._gathered(head, until)
        if self._stopped:
            return False
        if self._policy.met(by):
            self._witnessed(Witnessed(size=head.size, by=tuple(sorted(by.items()))))
            return False
        if not self._overtaken:
            self._refuse(mine, f"too few witnesses cosigned{self._why()}")
            return False
        if mine and (others := await asyncio.to_thread(self._by_others, mine)) is not None:
            self._witnessed(others)
        return not all(each.future.done() for each in mine)

    def _witnessed(self, found: Witnessed) -> None:
        """Answer whom this head covers."""
        if found.size > self.size:
            self._found = found
        for each in self._waiting:
            if each.index < found.size and not each.future.done():
                each.future.set_result(found)

    def _by_others(self, waiting: Sequence[_Waiter]) -> Witnessed | None:
        """The newest head that a quorum cosigned for somebody else and that covers one of these. Blocks.

        Raises LedgerCorrupt where the log is no continuation of it.
        """
        for head, by in by_quorum(self._policy, self._heads.recent(min(each.index for each in waiting))):
            if not self._heads.begins_with(head.checkpoint):
                raise LedgerCorrupt(f"a quorum cosigned a head of {head.size} leaves that is none of this log")
            return Witnessed(size=head.size, by=tuple(sorted((name, at) for name, (at, _) in by.items())))
        return None

    async def _gathered(self, head: Head, until: float) -> dict[str, int]:
        """Who cosigned this head, and when, as soon as that is enough, or somebody cosigned a larger one."""
        asked = {asyncio.create_task(self._one(each, head)) for each in self._witnesses}
        self._tasks |= asked
        for task in asked:
            task.add_done_callback(self._tasks.discard)
        by: dict[str, int] = {}
        loop = asyncio.get_running_loop()
        pending = asked
        while pending and not self._stopped and not (by and self._policy.met(by)) and not self._overtaken:
            left = max(0.0, until - loop.time())
            ended, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                break
            by.update(found for task in ended if (found := task.result()) is not None)
        return by

    async def _one(self, witness: _Witness, head: Head) -> tuple[str, int] | None:
        """Ask one witness about a head and keep what it signs; None where it did not. Raises nothing."""
        async with witness.lock:
            if head.size < self._newest or self._stopped:  # another round began while an earlier request was under way
                return None
            try:
                at, line = await witness.client.ask(head)
                await asyncio.to_thread(self._heads.keep, head, {witness.name: (at, line)})
            except Disowned as error:
                self._stop(witness, str(error))
            except Ahead as error:
                await self._ahead(witness, error)
            except (WitnessFailed, OnbehalfError) as error:
                self._failed(witness, str(error))
            else:
                witness.said = ""
                return witness.name, at
        return None

    async def _ahead(self, witness: _Witness, error: Ahead) -> None:
        """It saw more than it was asked about: a head that was signed since, or one that is no longer here."""
        try:
            now = await asyncio.to_thread(self._heads.newest)
        except OnbehalfError as unreadable:
            self._failed(witness, unreadable.message)
            return
        if error.size > now.size:
            self._stop(witness, f"{error}, and this log has {now.size}: it was put back to an older state")
        else:
            self._overtaken = True

    def _failed(self, witness: _Witness, said: str) -> None:
        if witness.said != said:
            _log.warning("witness `%s` did not cosign: %s", witness.name, said)
        witness.said = said

    def _stop(self, witness: _Witness, said: str) -> None:
        """The log is not what it was. Nothing more may be recorded, so nothing more is done."""
        witness.said = said
        if self._stopped:
            return
        self._stopped = f"witness `{witness.name}`: {said}"
        _log.critical("the record is stopped: %s", self._stopped)
        for each in self._waiting:
            if not each.future.done():
                each.future.set_exception(LedgerUnavailable(self._stopped, hint="keep the ledger and keys as they are"))
        self._rounds.stop(self._stopped)

    def _refuse(self, waiting: list[_Waiter], why: str) -> None:
        for each in waiting:
            if not each.future.done():
                each.future.set_exception(WitnessesUnavailable(why, hint=_HINT))

    def _why(self) -> str:
        told = [f"`{name}`: {said}" for name, said in self.problems().items()]
        return f" ({'; '.join(told)})"[:500] if told else ""
