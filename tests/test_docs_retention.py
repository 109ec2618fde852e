"""docs/retention.md is followed as it stands: its commands are run, in their order, on a record of some people."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from pathlib import Path
from unittest import mock

import pytest

from company import company, said
from onbehalf.app import building
from onbehalf.model import Presented, ToolRequest

PAGE = (Path(__file__).parents[1] / "docs" / "retention.md").read_text(encoding="utf-8")
TEN_YEARS = 10 * 366 * 86_400


def lines(section: str) -> list[list[str]]:
    """The commands of a section, as they stand."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = [line for block in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]
    return [shlex.split(each)[1:] for each in found]


def test_the_page_is_followed_from_the_first_command_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with company(tmp_path / "it") as made:
        monkeypatch.setenv("ONBEHALF_CONFIG", str(made.config))

        async def calls(ago: int) -> None:
            issued = int(time.time()) - ago - 5
            async with building(made.config) as app:
                for subject in ("alice-at-login", "bob-at-login"):
                    request = ToolRequest(tool="notes_list", arguments={}, protocol="2026-07-28", agent="tests/1")
                    token = made.token(subject, iat=issued, exp=issued + 600)
                    await app.gateway.call(Presented(token=token), request)

        with mock.patch("onbehalf.app.now", return_value=int(time.time()) - TEN_YEARS):
            asyncio.run(calls(TEN_YEARS))
        asyncio.run(calls(0))
        add, listed, lift = lines("Legal hold")
        [erase], [old] = lines("Erase what is said of a person"), lines("Erase what is too old")
        assert said(*add).code == 0
        assert "acme/alice" in said(*listed).out
        assert said(*erase, "--yes").code == 2
        told = said(*old, "--yes")
        assert (told.code, "payloads from before" in told.out) == (0, True), told.err
        assert said(*lift).code == 0
        told = said(*erase, "--yes")
        assert (told.code, "payloads of acme/alice" in told.out) == (0, True), told.err
        verified = said("audit", "verify")
        assert verified.code == 0, verified.out
        assert "payloads of one person were erased" in verified.out
