"""Every command teaches: what it does, and an example or what comes next, fit for 100 columns."""

from __future__ import annotations

import pytest

from company import said

COMMANDS = [
    "", "init", "demo", "serve", "check", "tools", "explain",
    "audit", "audit verify", "audit open", "audit list", "audit proof",
    "audit query", "audit send",
    "keys", "keys show", "keys rotate", "keys rotate-log", "db", "db wall",
    "people", "people load", "people pull", "people show", "people status", "people release",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_within_100_columns(command: str) -> None:
    told = said(*command.split(), "--help")
    assert (told.code, told.err) == (0, "")
    assert max(map(len, told.out.splitlines())) <= 100
    words = told.out.partition("─ Options")[0]
    if command in ("audit", "keys", "db", "people"):
        assert "Commands" in told.out
    else:
        assert "Example" in words or "onbehalf init" in words


@pytest.mark.parametrize("command", COMMANDS)
def test_short_help_fits_one_line_of_the_list(command: str) -> None:
    *before, name = ["", *command.split()]
    if name:
        listed = said(*[word for word in before if word], "--help").out
        (line,) = [line for line in listed.splitlines() if line.startswith(f"│ {name} ")]
        assert line.rstrip(" │").endswith(".")


def test_a_wrong_option_is_answered_on_stderr_with_2() -> None:
    for arguments in (["chekc"], ["check", "--nothing"], ["audit", "list", "-n", "0"], ["audit", "proof", "-1"]):
        told = said(*arguments)
        assert (told.code, told.out) == (2, ""), told
        assert "Usage" in told.err


def test_the_version_is_told() -> None:
    assert said("--version").out.startswith("onbehalf 0.")
