"""`python -m onbehalf.verifier`: the same as `onbehalf-verify`."""

from __future__ import annotations

from onbehalf.verifier.command import entry

entry()
