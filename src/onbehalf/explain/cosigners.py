"""Heads that enough witnesses of a policy cosigned, by lines that were kept under them.

Nothing that was kept is believed: a line counts where it verifies. Whether the log continues a head is not looked at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.checkpoint import Head
from onbehalf.explain.cosignature import cosigned
from onbehalf.explain.quorum import Policy

__all__ = ["by_quorum"]


def by_quorum(
    policy: Policy, kept: Iterable[tuple[Head, Mapping[str, str]]]
) -> Iterator[tuple[Head, dict[str, tuple[int, str]]]]:
    """Those of the kept heads that a quorum cosigned, in their order: with when each did, and its line, by the
    witness's name in the policy. The lines of a kept head are by that name too."""
    for head, lines in kept:
        found = _cosigners(policy, head, lines)
        if policy.met(found):
            yield head, found


def _cosigners(policy: Policy, head: Head, lines: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for witness in policy.witnesses:
        with contextlib.suppress(LedgerCorrupt):
            made = cosigned(head.note + lines.get(witness.name, ""), witness.key, head.checkpoint)
            if made is not None:
                found[witness.name] = made
    return found
