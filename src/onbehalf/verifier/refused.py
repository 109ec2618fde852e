"""The one error of the verifier: what was given is no evidence that could be judged."""

from __future__ import annotations

__all__ = ["Unusable"]


class Unusable(Exception):
    """The input is not what it should be, or over a bound. Not a word about whether the record holds."""
