"""Which witnesses of a policy cosigned a head, by lines that were kept under it. The policy says if they are enough.

Nothing that was kept is believed: a line counts where it verifies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.checkpoint import Head
from onbehalf.explain.cosignature import cosigned
from onbehalf.explain.quorum import Policy

__all__ = ["cosigners"]


def cosigners(policy: Policy, head: Head, lines: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """When each cosigned, and its line, by the witness's name in the policy; `lines` are by that name too."""
    found: dict[str, tuple[int, str]] = {}
    for witness in policy.witnesses:
        with contextlib.suppress(LedgerCorrupt):
            made = cosigned(head.note + lines.get(witness.name, ""), witness.key, head.checkpoint)
            if made is not None:
                found[witness.name] = made
    return found
