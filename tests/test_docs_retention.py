"""docs/retention.md is followed as it stands: its commands are run, in their order, on a record of some people."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from unittest import mock

import pytest

from company import company, said

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
        with mock.patch("onbehalf.app.now", return_value=int(time.time()) - TEN_YEARS):
            made.notes_listed("alice-at-login", "bob-at-login", ago=TEN_YEARS)
        made.notes_listed("alice-at-login", "bob-at-login")
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
