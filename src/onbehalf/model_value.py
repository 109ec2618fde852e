"""What a value made on each call is built on: frozen, by keyword, and silent about its secrets.

Must not hold a word of its own.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

__all__ = ["Value"]


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen value that is cheap to make: a struct of msgspec's, of which `hidden` fields are not shown.

    A type says `frozen=True, kw_only=True` itself, for keywords are not inherited. `hidden` is what `repr=False` is to
    a dataclass. Nothing is checked when one is made, as with a dataclass.
    """

    hidden: ClassVar[frozenset[str]] = frozenset()

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # Any is msgspec's own word here
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in self.hidden]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__qualname__}({shown})"
