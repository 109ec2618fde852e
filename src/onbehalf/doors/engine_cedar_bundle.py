"""A policy bundle made ready to be asked: schema, strict validation, and per action the policies that can speak on it.

All parsing is done here, once. Must not ask a question of a caller's, or know tools.

Trust: as engine_cedar.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy
import orjson

from onbehalf.doors.engine_cedar_values import action_of, checked
from onbehalf.errors import PolicyInvalid
from onbehalf.model import Owed
from onbehalf.validate import bundle, demands
from onbehalf.validate.bundle import Est, Policy, Source

__all__ = ["Part", "Slice", "contextless", "parsed", "schema_of", "slices_for_services", "slices_of", "validate"]

_CONTEXT = re.compile(r"type Context = \{.*?\};", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One policy of an action, with the texts of its conditions."""

    policy: Policy
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """All policies that can speak on one action.

    `probes` holds two permits a condition, `<part>.<condition>.t` for it and `.f` for its negation: where neither
    applies, the condition errs. `schema` is what `policies` are asked under, and `context` whether it has one. `owed`
    holds, by policy, what is demanded of what it permits; a policy that demands nothing is not in it.
    """

    policies: cedarpy.PolicySet
    parts: tuple[Part, ...]
    probes: cedarpy.PolicySet
    schema: cedarpy.Schema
    context: bool
    owed: Mapping[str, Owed]


def schema_of(core: str, schemas: Sequence[Source], *, walls: str = bundle.WALLS) -> cedarpy.Schema:
    """The core's schema with a bundle's own, in which everything can stand behind the walls. Raises PolicyInvalid."""
    named = ", ".join(each.name for each in schemas) or "the core schema"
    try:
        schema = cedarpy.Schema.from_str("\n".join([core, *(each.text for each in schemas)]))
    except ValueError as error:
        raise PolicyInvalid(f"{named}: {error}", hint="core types cannot be declared again") from error
    behind = cedarpy.validate_policies(walls, schema)
    if not behind:
        raise PolicyInvalid(
            f"{named}: a type cannot stand behind the walls: {behind.errors[0].error}",
            hint="every type an action applies to needs `tenant: Tenant`, every principal is a User or a Service",
        )
    return schema


def parsed(source: Source) -> Est:
    """The policies of one file in Cedar's JSON form. Raises PolicyInvalid."""
    try:
        est: Est = orjson.loads(cedarpy.policies_to_json_str(source.text))
    except ValueError as error:
        raise PolicyInvalid(f"{source.name}: {error}", hint="mend the policy text") from error
    return est


def validate(policies: Sequence[Source], schema: cedarpy.Schema) -> None:
    """Strict validation, file by file, so that a message names its file and policy."""
    for source in policies:
        result = cedarpy.validate_policies(source.text, schema)
        if not result:
            ids = result.id_annotations_by_policy_id
            shown = [f"policy `{ids.get(each.policy_id, each.policy_id)}`: {each.error}" for each in result.errors[:5]]
            raise PolicyInvalid(f"{source.name}: {'; '.join(shown)}", hint="policies are validated strictly")


def contextless(core: str, schemas: Sequence[Source]) -> cedarpy.Schema:
    """The schema with an empty context, for policies that do not look at theirs: reading one is half of an answer."""
    bare = _CONTEXT.sub("type Context = {};", core)
    return cedarpy.Schema.from_str("\n".join([bare, *(each.text for each in schemas)]))


def slices_for_services(
    policies: Sequence[Policy], schemas: Mapping[bool, cedarpy.Schema], actions: Sequence[str]
) -> dict[str, Slice]:
    """As `slices_of`, of the actions that the schema lets a Service do, and without the permits that are not for
    services by their scope. So a permit that was written with people in mind never lets a service through."""
    nobody = checked((), schemas[True])
    nothing = cedarpy.PolicySet.from_str("")
    theirs = [
        action
        for action in actions
        if cedarpy.is_authorized(_probe(action, "Service"), nothing, nobody, schema=schemas[True]).decision
        is not cedarpy.Decision.NoDecision
    ]
    return slices_of([each for each in policies if bundle.speaks_to(each, "Service")], schemas, theirs, "Service")


def slices_of(
    policies: Sequence[Policy],
    schemas: Mapping[bool, cedarpy.Schema],
    actions: Sequence[str],
    principal: str = "User",
) -> dict[str, Slice]:
    """For each action the policies that can speak on it. `schemas` are those with and without a context, `principal`
    is who asks."""
    probes = _scope_probes(policies)
    texts = {policy.id: tuple(_text(part) for part in bundle.conditions(policy.est)) for policy in policies}
    slices: dict[str, Slice] = {}
    for action in actions:
        silent = _silent(_probe(action, principal), probes, schemas[True])
        chosen = [policy for policy in policies if orjson.dumps(policy.est["action"]) not in silent]
        pairs: dict[str, Est] = {}
        for number, policy in enumerate(chosen):
            for place, part in enumerate(bundle.conditions(policy.est)):
                pairs[f"{number}.{place}.t"] = bundle.permit(part)
                pairs[f"{number}.{place}.f"] = bundle.permit(part, "unless")
        context = any(map(_looks_at_context, chosen)) or not _takes_no_context(
            _probe(action, principal), schemas[False]
        )
        slices[action] = Slice(
            policies=_policy_set({policy.id: policy.est for policy in chosen}),
            parts=tuple(Part(policy=policy, texts=texts[policy.id]) for policy in chosen),
            probes=_policy_set(pairs),
            schema=schemas[context],
            context=context,
            owed=_owed(chosen),
        )
    return slices


def _owed(policies: Sequence[Policy]) -> dict[str, Owed]:
    return {
        policy.id: Owed(policy=policy.id, obligations=policy.obligations)
        for policy in policies
        if policy.obligations != demands.NONE
    }


def _looks_at_context(policy: Policy) -> bool:
    # in Cedar's JSON a variable is spelled so and a text never is, for in a text the quotes are escaped
    return b'{"Var":"context"}' in orjson.dumps(policy.est)


def _takes_no_context(probe: Mapping[str, Any], schema: cedarpy.Schema) -> bool:
    """Whether an action's context is the core's; one of its own has attributes that must be there."""
    request = {key: value for key, value in probe.items() if key != "context"}  # as a call of it is asked
    asked = cedarpy.is_authorized(request, cedarpy.PolicySet.from_str(""), checked((), schema), schema=schema)
    return asked.decision is not cedarpy.Decision.NoDecision


def _scope_probes(policies: Sequence[Policy]) -> dict[bytes, cedarpy.PolicySet]:
    """For each distinct action scope, a policy set that allows exactly the actions in it."""
    scopes = {orjson.dumps(policy.est["action"]): policy.est["action"] for policy in policies}
    return {key: _policy_set({"scope": bundle.covering(scope)}) for key, scope in scopes.items()}


def _silent(request: dict[str, Any], probes: Mapping[bytes, cedarpy.PolicySet], schema: cedarpy.Schema) -> set[bytes]:
    """The action scopes that the engine itself says do not cover this action; a group may, so names are no measure."""
    nobody = checked((), schema)
    asked = {key: cedarpy.is_authorized(request, probe, nobody, schema=schema) for key, probe in probes.items()}
    return {key for key, result in asked.items() if result.decision is cedarpy.Decision.Deny}


def _probe(action: str, principal: str) -> dict[str, Any]:
    return {
        "principal": {"type": principal, "id": "t/p"},
        "action": action_of(action),
        "resource": {"type": "Tool", "id": "t"},
        "context": '{"client":{"__entity":{"type":"Client","id":"c"}},"scopes":[],"now":0}',
    }


def _document(policies: Mapping[str, Est]) -> str:
    return orjson.dumps({"templates": {}, "staticPolicies": policies, "templateLinks": []}).decode()


def _policy_set(policies: Mapping[str, Est]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_json_str(_document(policies))


def _text(condition: Est) -> str:
    written: str = cedarpy.policies_from_json_str(_document({"p": bundle.permit(condition)}))
    return bundle.tidy(written[written.index("when {") + 6 : written.rindex("}")])
