"""The ledger held to a model of some fifty lines, over any order of entries, kills, restarts and cancelled callers."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from faults.checker import Log, judge, read_log
from faults.fault_house import ORIGIN, Place, quick_place
from onbehalf.doors.ledger_keys import read_ledger_keys
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.model import AuditEntry, Receipt, UnixTime


class Model:
    """What a ledger is: a list of kinds and calls, in which each intent ends once."""

    def __init__(self) -> None:
        self.leaves: list[tuple[str, str, int]] = []

    def add(self, kind: str, call: str, of: int = -1) -> int:
        self.leaves.append((kind, call, of))
        return len(self.leaves) - 1

    def open(self) -> list[int]:
        ended = {of for _, _, of in self.leaves}
        return [i for i, (kind, _, _) in enumerate(self.leaves) if kind == "intent" and i not in ended]

    def restart(self) -> None:
        for index in self.open():
            self.add("unknown", self.leaves[index][1], index)


class LedgerMachine(RuleBasedStateMachine):
    """The ledger and its model, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.root = tempfile.TemporaryDirectory(dir=quick_place())
        self.place = Place.at(Path(self.root.name) / "0")
        self.model = Model()
        self.receipts: dict[int, Receipt] = {}
        self.calls = 0
        self.ledger = self._opened()

    def _opened(self) -> SqliteLedger:
        keys = read_ledger_keys(self.place.directory / "keys", origin=ORIGIN)
        return SqliteLedger.open(self.place.database, keys=keys, origin=ORIGIN, now=lambda: UnixTime(3))

    def _entry(self, kind: str, call: str, of: int = -1) -> AuditEntry:
        intent = {"intent": {"index": of, "leaf": self.receipts[of].leaf}} if of >= 0 else {}
        return AuditEntry(kind=kind, call=call, at=UnixTime(1), facts=intent)  # type: ignore[arg-type]

    @rule(kind=st.sampled_from(["start", "intent", "denial"]), many=st.integers(1, 4))
    def append(self, kind: str, many: int) -> None:
        calls = [f"call_{self.calls + number}" for number in range(many)]
        self.calls += many

        async def both() -> list[Receipt]:
            return list(await asyncio.gather(*(self.ledger.append(self._entry(kind, call)) for call in calls)))

        for call, receipt in zip(calls, self.loop.run_until_complete(both()), strict=True):
            assert receipt.index == self.model.add(kind, call)
            self.receipts[receipt.index] = receipt

    @precondition(lambda self: self.model.open())
    @rule(data=st.data(), waits=st.booleans())
    def outcome(self, data: st.DataObject, waits: bool) -> None:
        of = data.draw(st.sampled_from(self.model.open()))
        entry = self._entry("outcome", self.model.leaves[of][1], of)
        if waits:
            receipt = self.loop.run_until_complete(self.ledger.append(entry))
            assert receipt.index == len(self.model.leaves)
        else:
            self.ledger.follow(entry)
        self.model.add("outcome", self.model.leaves[of][1], of)

    @rule()
    def close_and_start(self) -> None:
        self.ledger.close()
        self.model.restart()
        self.ledger = self._opened()

    @rule()
    def killed_and_started(self) -> None:
        """A copy of the files as a kill would leave them, with all that anybody waits for in them."""
        receipt = self.loop.run_until_complete(self.ledger.append(self._entry("start", "")))
        assert receipt.index == self.model.add("start", "")
        other = self.place.directory.with_name(str(int(self.place.directory.name) + 1))
        shutil.copytree(self.place.directory, other, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        self.ledger.close()
        self.place = Place(other)
        self.model.restart()
        self.ledger = self._opened()

    @invariant()
    def what_was_answered_stays(self) -> None:
        for index, receipt in self.receipts.items():
            assert self.model.leaves[index][0] in ("start", "intent", "denial")
            assert receipt.index == index

    def teardown(self) -> None:
        self.ledger.close()
        log: Log = read_log(self.place.database)
        told = [(leaf["kind"], leaf["call"], leaf.get("of", -1)) for leaf in log.said()]
        leaves = {index: f"sha256:{hash_.hex()}" for index, hash_, _ in log.leaves}
        vkey = self.place.vkey
        seen = self.place.seen()
        seen.acked = [(self.model.leaves[index][1], index, each.leaf) for index, each in self.receipts.items()]
        faults = judge(log, seen, vkey)
        self.loop.close()
        self.root.cleanup()
        assert told == self.model.leaves
        assert {index: each.leaf for index, each in self.receipts.items()}.items() <= leaves.items()
        assert faults == []


LedgerMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
TestTheLedgerIsItsModel = LedgerMachine.TestCase
