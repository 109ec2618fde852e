"""What every Witnesses promises, asked of the quorum door with a real witness and of the in-memory one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from doors.test_witness_quorum import entry, houses, of, vkey
from house import Doors
from onbehalf.errors import WitnessesUnavailable
from onbehalf.ports import Ledger, Witnesses
from witness_house import policy_text, witnessing

Made = tuple[Ledger, Witnesses, Callable[[], None]]


@asynccontextmanager
async def quorum_of_one(place: Path) -> AsyncIterator[Made]:
    with witnessing(place / "w", log=vkey(place)) as told:

        def broken(_: object) -> object:
            raise OSError("no space is left")

        async with houses(place, policy_text(of(told), quorum="all")) as house:
            yield house.ledger, house.witnesses, lambda: setattr(told, "change", broken)


@asynccontextmanager
async def in_memory(_: Path) -> AsyncIterator[Made]:
    doors = Doors()
    yield doors, doors, lambda: doors.broken.add("witnesses_down")


@pytest.mark.parametrize("made", [quorum_of_one, in_memory])
def test_a_receipt_comes_back_the_same_and_witnessed_or_not_at_all(
    tmp_path: Path, made: Callable[[Path], AbstractAsyncContextManager[Made]]
) -> None:
    async def walk() -> None:
        async with made(tmp_path) as (ledger, witnesses, break_it):
            receipt = await ledger.append(entry(1))
            found = await witnesses.cosigned(receipt)
            assert (found.index, found.leaf) == (receipt.index, receipt.leaf)
            assert receipt.witnessed is None
            assert found.witnessed is not None
            assert found.witnessed.size > receipt.index
            assert found.witnessed.by
            break_it()
            later = await ledger.append(entry(2))
            with pytest.raises(WitnessesUnavailable):
                await witnesses.cosigned(later)

    asyncio.run(walk())
