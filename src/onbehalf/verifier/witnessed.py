"""What outcomes say of their calls: that a head with the intent was cosigned before the call was sent."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["LISTED", "Witnessed"]

LISTED = 1000
_MOST_SIZES = 1_000_000


@dataclass(slots=True)
class Witnessed:
    """What opened outcomes say: by the size of a head, the intents that it was cosigned for."""

    intents: dict[int, list[int]] = field(default_factory=dict)
    count: int = 0

    def take(self, intent: int, said: object) -> str:
        """Take note of a fact `witnessed`; what is wrong with it, or ""."""
        size = said.get("size") if isinstance(said, dict) else None
        if type(size) is not int or size < 0:
            return "its fact `witnessed` names no head"
        if size <= intent:
            return f"its fact `witnessed` names a head of {size} leaves, which has not its intent {intent}"
        self.count += 1
        if size not in self.intents and len(self.intents) >= _MOST_SIZES:
            return "its fact `witnessed` names another head than a million before it"
        found = self.intents.setdefault(size, [])
        if len(found) < LISTED:
            found.append(intent)
        return ""
