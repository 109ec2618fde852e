"""The part of `onbehalf check` about witnesses of the record: is the policy file one that this gateway can keep.

No witness is asked. Must not print.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onbehalf.build_witnesses import read_policy
from onbehalf.cli.check_exchange import Said
from onbehalf.config import Settings

__all__ = ["said_of_witnesses"]


def said_of_witnesses(settings: Settings, *, base: Path, keys: Path) -> Iterator[Said]:
    """Everything to be said. `base` is where paths start, `keys` where `log.pub` lies. Raises ConfigInvalid."""
    chosen = settings.gateway.witnesses
    if chosen is None:
        return
    log = keys / "log.pub"
    if not log.exists():
        yield "warning", "witnesses", "this log has no key yet", "`onbehalf serve` makes one at its first start"
        return
    policy = read_policy(chosen, base, log=log.read_text(encoding="utf-8").splitlines())
    count, open_ = len(policy.witnesses), not policy.logs
    yield "ok", "witnesses", f"{count} in `{chosen.policy}`, quorum `{policy.quorum}`", ""
    if open_:
        yield "warning", "witnesses", f"`{chosen.policy}` names no log", "add the line of log.pub: it pins your key"
