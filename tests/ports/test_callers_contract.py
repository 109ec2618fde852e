"""What every Callers promises, asked of the door over HTTP and of the in-memory one of the house's tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from doors.issuer_house import issuing
from house import Doors
from identify.minting import NOW, RESOURCE
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.errors import IdentifyError
from onbehalf.model import Presented
from onbehalf.ports import Callers

Made = Callable[[], contextlib.AbstractAsyncContextManager[tuple[Callers, str]]]


@contextlib.asynccontextmanager
async def over_http() -> AsyncIterator[tuple[Callers, str]]:
    with issuing() as issuer:
        callers = IssuerCallers([issuer.rule()], resource=RESOURCE)
        try:
            yield callers, issuer.token()
        finally:
            await callers.aclose()


@contextlib.asynccontextmanager
async def in_memory() -> AsyncIterator[tuple[Callers, str]]:
    yield Doors(), "bob"


@pytest.mark.parametrize("made", [over_http, in_memory])
def test_a_proven_caller_has_a_tenant_a_subject_and_evidence_and_is_the_same_each_time(made: Made) -> None:
    async def prove() -> None:
        async with made() as (callers, token):
            first = await callers.prove(Presented(token=token), now=NOW)
            again = await callers.prove(Presented(token=token), now=NOW)
            assert first == again
            assert first.tenant == "acme"
            assert first.subject
            assert first.evidence.issuer
            assert token not in repr(first) or made is in_memory

    asyncio.run(prove())


@pytest.mark.parametrize("made", [over_http, in_memory])
@pytest.mark.parametrize("text", ["", "nonsense", "a.b.c", "Bearer x", "\N{SNOWMAN}"])
def test_what_proves_nobody_is_an_error_and_never_an_empty_caller(made: Made, text: str) -> None:
    async def prove() -> None:
        async with made() as (callers, _):
            with pytest.raises(IdentifyError):
                await callers.prove(Presented(token=text), now=NOW)

    asyncio.run(prove())
