"""Text from outside made fit to be shown, and what an error means to the shell."""

from __future__ import annotations

from onbehalf.errors import LedgerCorrupt, OnbehalfError

__all__ = ["exit_code", "plain"]


def plain(text: str) -> str:
    """Text from outside without control characters, which a terminal would obey. Line ends stay."""
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)


def exit_code(error: OnbehalfError) -> int:
    """1 where what was looked at does not hold, 2 where the command could not do its work."""
    return 1 if isinstance(error, LedgerCorrupt) else 2
