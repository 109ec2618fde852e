"""The policies that were ever in force here, ready to be asked again, and words for what cannot be asked."""

from __future__ import annotations

from functools import lru_cache

from onbehalf.doors import policies_kept
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.engine_cedar_files import policies_in
from onbehalf.errors import PolicyInvalid
from onbehalf.model import digest
from onbehalf.places import Paths
from onbehalf.replaying import Bundles

__all__ = ["bundles_of", "why_not"]

_KEPT_BUNDLES = 8
_KEPT_ENGINES = 64
_WHY_NOT = {
    "erased": "erased",
    "not_decided": "refused before or after policies had a say",
    "not_on_record": "of a release that did not record what was asked",
    "too_large": "of a slice of the directory too large to be on record",
    "left_out": "of a question that could not be spelled",
    "no_such_action": "of an action that no tool of onbehalf.yaml has any more",
    "unreadable": "of a form that this release does not read",
}


def bundles_of(places: Paths) -> Bundles:
    """The policies that were ever in force here, by digest; of an older release only those that still are."""

    @lru_cache(maxsize=_KEPT_BUNDLES)
    def spelled(named: str) -> bytes | None:
        if (kept := policies_kept.find(places.kept, named)) is not None:
            return kept
        try:
            found = policies_in(places.policies)
        except PolicyInvalid:
            return None
        return found if digest(found) == named else None

    @lru_cache(maxsize=_KEPT_ENGINES)
    def bundle(named: str, action: str) -> CedarEngine | None:
        try:
            found = spelled(named)
            return CedarEngine.recorded(found, actions=[action]) if found is not None else None
        except PolicyInvalid:
            return None

    return bundle


def why_not(reason: str) -> str:
    """Why a decision cannot be made again, as the end of a sentence."""
    return _WHY_NOT.get(reason, reason)
