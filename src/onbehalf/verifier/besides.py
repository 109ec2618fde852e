"""What is checked besides the record itself, where it is asked for: decisions made again, and what backends kept, their
own records and call tokens.

Must not know how any of it is done (replay.py, complete.py, tokens.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onbehalf.verifier.backend_rows import BackendRecord
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.replay import Replay, engine
from onbehalf.verifier.tokens import CallTokens

__all__ = ["NOTHING_BESIDES", "Besides", "Under"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Besides:
    """Whether decisions are to be made again, the file of call tokens, if one was given, and backends' own records."""

    replay: bool = False
    tokens: Path | None = None
    backends: Sequence[BackendRecord] = ()

    def begin(self, bundle: Callable[[str], bytes | None]) -> Under | None:
        """A check under way, None where nothing is asked for. `bundle` gives a policy bundle by its digest.

        Raises Unusable without the engine.
        """
        if not self.replay and self.tokens is None:
            return None
        return Under(
            replay=Replay(engine(), bundle) if self.replay else None,
            tokens=CallTokens(self.tokens) if self.tokens is not None else None,
        )


NOTHING_BESIDES = Besides()


@dataclass(slots=True, kw_only=True)
class Under:
    """One check under way. What is found are pairs of a code and a text."""

    replay: Replay | None
    tokens: CallTokens | None

    def keys(self, jwks: object, start: int, end: int) -> Iterator[tuple[str, str]]:
        """The keys of call tokens, and the range of leaves: before the first leaf. Raises Unusable."""
        if self.tokens is not None:
            yield from self.tokens.read(jwks, start, end)

    def take(
        self, index: int, leaf: Leaf, hash_: bytes, said: dict[str, Any], *, erased: bool
    ) -> Iterator[tuple[str, str]]:
        """The next leaf, and its facts as far as they were opened and hold."""
        if self.replay is not None:
            code, text = self.replay.take(leaf, said, erased=erased)
            if code:
                yield code, text
        if self.tokens is not None:
            yield from self.tokens.take(index, leaf, hash_, said)

    def told(self) -> tuple[dict[str, object] | None, dict[str, int] | None]:
        """What was counted, after the last leaf."""
        replay = None
        if self.replay is not None:
            replay = {**self.replay.counts, "engine": self.replay.name, "recorded_engines": self.replay.engines}
        return replay, self.tokens.counts if self.tokens is not None else None
