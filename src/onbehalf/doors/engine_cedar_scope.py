"""The engine's side of a predicate: what is fixed in a call is answered by Cedar, with probes made at load.

Must not know how a predicate is said (validate/pushdown_sql.py) or when one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cedarpy
import orjson

from onbehalf.doors.engine_cedar_values import held_of
from onbehalf.model import Predicate, Question, Rows
from onbehalf.validate import bundle
from onbehalf.validate.bundle import Est, Policy
from onbehalf.validate.pushdown import read
from onbehalf.validate.pushdown_sql import Dialect, Pushdown
from onbehalf.validate.pushdown_terms import Column, Layout, Table

__all__ = ["Narrowed", "Scope", "predicate", "prepared", "rows_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """Where a scoped tool's rows and the people that they name lie: all tables but the rows' own."""

    layout: Layout
    dialect: Dialect


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The policies of an action on rows of one type. `probes` ask for what is fixed in a call, None if nothing is."""

    pushdown: Pushdown
    probes: cedarpy.PolicySet | None


def prepared(policies: Sequence[Policy], type_: str, layout: Layout, dialect: Dialect) -> Scope:
    """The policies of an action as a predicate on rows of `type_`. Raises PolicyInvalid for what has none."""
    found = read(policies, layout, type_)
    pairs: dict[str, Est] = {}
    for at, est in enumerate(found.truths):
        pairs |= {f"{at}.t": bundle.permit(est), f"{at}.f": bundle.permit(est, "unless")}
    document = {"templates": {}, "staticPolicies": pairs, "templateLinks": []}
    probes = cedarpy.PolicySet.from_json_str(orjson.dumps(document).decode()) if pairs else None
    return Scope(pushdown=Pushdown(found, dialect), probes=probes)


def predicate(scope: Scope, question: Question, asked: Callable[[cedarpy.PolicySet], cedarpy.AuthzResult]) -> Predicate:
    """The predicate for the caller of a question about a tool. Where the engine does not answer, no row fits."""
    held: frozenset[str] = frozenset()
    if scope.probes is not None:
        try:
            held = frozenset(asked(scope.probes).diagnostics.reasons)
        except Exception:  # hostile values end in many types; unanswered is an error in every policy that asked
            held = frozenset()
    truths = [held_of(held, str(at)) for at in range(len(scope.pushdown.read.truths))]
    return scope.pushdown.predicate(truths, question)


def rows_table(shape: Rows, layout: Layout, required: Mapping[str, bool]) -> Layout:
    """The layout with the rows that a tool maps: what its statement gives, under the mapping's own names."""
    attributes = {
        name: Column(name=column, kind=kind, required=required[name])
        for name, (column, kind) in shape.attributes.items()
    }
    own = Table(name="", id=shape.id, tenant=shape.tenant, attributes=attributes)
    return replace(layout, tables={**layout.tables, shape.type: own})
