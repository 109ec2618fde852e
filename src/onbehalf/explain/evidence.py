"""What a bundle of evidence says besides leaves: its manifest, and how to check it.

The format is docs/auditors.md; `onbehalf.verifier` reads it and is written apart. Must not read the ledger, or write
files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import orjson

from onbehalf.explain.leaf import Leaf
from onbehalf.model import Json

__all__ = ["FORMAT", "HOW_TO", "Summary", "manifest", "opened_line"]

FORMAT = "onbehalf-evidence-v1"
_LISTED = 1000
HOW_TO = """HOW TO VERIFY THIS BUNDLE

1. Get the log's public key from somebody other than who gave you this bundle: the line in log.pub, as it was published.
2. Install the verifier on a machine of your own. It needs no network and no gateway:

       pip install onbehalf-gateway

3. Check:

       onbehalf-verify BUNDLE.zip --key "<the line>"

   Exit 0: everything holds. 1: something does not. 3: the log shows different people different histories.
   4: no key was given. 5: something was erased. 6: of some calls nobody knows how they ended.
   7: a backend's own record that you gave with --backend does not agree.

4. Keep the file `checkpoint` of this bundle. Next time:

       onbehalf-verify NEXT.zip --key "<the line>" --kept checkpoint

   finds out whether anything that you were shown was taken back.

5. To have the opened decisions made again, by the policies that are here:

       pip install 'onbehalf-gateway[replay]'
       onbehalf-verify BUNDLE.zip --key "<the line>" --replay

What each file says, byte by byte, so that you can check it without our program: docs/auditors.md of the project.
"""


@dataclass(slots=True)
class Summary:
    """What can be told of all leaves of a range at once, taken leaf by leaf."""

    kinds: dict[str, int] = field(default_factory=dict)
    first_at: int | None = None
    last_at: int | None = None
    gap: tuple[int, int] | None = None
    open: dict[int, None] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)

    def take(self, index: int, leaf: Leaf) -> None:
        """The next leaf."""
        self.kinds[leaf.kind] = self.kinds.get(leaf.kind, 0) + 1
        if self.last_at is None:
            self.first_at = leaf.at
        elif self.gap is None or leaf.at - self.last_at > self.gap[0]:
            self.gap = leaf.at - self.last_at, index
        self.last_at = leaf.at
        if leaf.kind == "intent":
            self.open[index] = None
        elif leaf.kind in ("outcome", "unknown"):
            self.open.pop(leaf.of, None)
            if leaf.kind == "unknown":
                self.unknown.append(leaf.of)

    def as_json(self) -> dict[str, Json]:
        gap: Json = None if self.gap is None else {"seconds": self.gap[0], "before": self.gap[1]}
        return {
            "kinds": dict(self.kinds), "first_at": self.first_at, "last_at": self.last_at, "longest_gap": gap,
            "open": [*islice(self.open, _LISTED)], "unknown": [*self.unknown[:_LISTED]],
        }  # fmt: skip


def manifest(
    *, origin: str, size: int, span: tuple[int, int], asked: Mapping[str, str], whole: bool, erased: int,
    summary: Summary, files: Mapping[str, tuple[str, int]],
) -> bytes:  # fmt: skip
    """The manifest. `whole` says that every fact of the range is opened or erased; `files` are SHA-256 and length."""
    said: dict[str, Json] = {
        "format": FORMAT, "origin": origin, "size": size, "range": {"from": span[0], "to": span[1]},
        "asked": dict(asked), "opened": {"whole": whole, "erased": erased}, "summary": summary.as_json(),
        "files": {name: {"sha256": hash_, "bytes": length} for name, (hash_, length) in sorted(files.items())},
    }  # fmt: skip
    return orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def opened_line(index: int, name: str, json: str, salt: str) -> bytes:
    """One opened fact as a line."""
    return orjson.dumps({"index": index, "fact": name, "json": json, "salt": salt}) + b"\n"
