"""Policy questions answered by Cedar (cedarpy), with all parsing done once at load.

A bundle is a directory of `*.cedar` and `*.cedarschema` files. It is parsed, validated strictly and linted as a whole;
one fault and nothing of it is used. What comes out is raw: Cedar skips a forbid that errors, so only
validate/decide.py may turn a Judgement into a Decision.
Trust: whoever can write the policy directory decides who may do what within a tenant, but cannot take down the walls.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cedarpy
import orjson

from onbehalf.doors.engine_cedar_files import read
from onbehalf.doors.engine_cedar_scope import Narrowed, Scope, predicate, prepared, rows_table
from onbehalf.doors.engine_cedar_values import action_of, checked, held_of, judgement, unanswered, value_of
from onbehalf.errors import PolicyInvalid
from onbehalf.model import (
    Candidate,
    Conjunct,
    Digest,
    Entity,
    Json,
    Judgement,
    Owed,
    Predicate,
    Question,
    Ref,
    Rows,
    Tool,
)
from onbehalf.validate import bundle, obligations
from onbehalf.validate.bundle import Est, Policy, Source
from onbehalf.validate.pushdown_sql import Dialect
from onbehalf.validate.pushdown_terms import Layout
from onbehalf.validate.questions import absent_people

__all__ = ["CedarEngine"]

_MAX_POLICIES = 2_000
_KEPT_SLICES = 4_096
_CONTEXT = re.compile(r"type Context = \{.*?\};", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One policy of an action, with the texts of its conditions."""

    policy: Policy
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """All policies that can speak on one action.

    `probes` holds two permits a condition, `<part>.<condition>.t` for it and `.f` for its negation: where neither
    applies, the condition errs. `schema` is what `policies` are asked under, and `context` whether it has one. `owed`
    holds, by policy, what is demanded of what it permits; a policy that demands nothing is not in it.
    """

    policies: cedarpy.PolicySet
    parts: tuple[_Part, ...]
    probes: cedarpy.PolicySet
    schema: cedarpy.Schema
    context: bool
    owed: Mapping[str, Owed]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """Entities that several questions in a row are asked over, prepared once. `handle` is None where they are unfit."""

    entities: tuple[Entity, ...]
    known: Mapping[Ref, Entity]
    handle: cedarpy.Entities | None
    fault: str


class CedarEngine:
    """One loaded bundle. Made by `load`; never changes."""

    def __init__(self, *, policy: Digest, schema: cedarpy.Schema, slices: Mapping[str, _Slice]) -> None:
        self._policy = policy
        self._schema = schema
        self._slices = slices
        self._scopes: dict[tuple[str, str], Scope] = {}
        self._shared: _Shared | None = None
        self._kept: OrderedDict[tuple[object, ...], tuple[cedarpy.Entities, tuple[Entity, ...]]] = OrderedDict()

    @classmethod
    def load(
        cls, directory: Path, *, tools: Sequence[Tool], narrowed: Mapping[str, Narrowed] | None = None
    ) -> CedarEngine:
        """A bundle from its directory, checked against these tools. Raises PolicyInvalid naming the file.

        `narrowed` says, for each scoped tool by name, where what its policies look at lies.
        """
        policies, schemas = read(directory, ".cedar"), read(directory, ".cedarschema")
        if not policies:
            raise PolicyInvalid(f"`{directory}` holds no .cedar file", hint="`onbehalf init` writes an example")
        core = resources.files("onbehalf.doors").joinpath("core.cedarschema").read_text("utf-8")
        schema = _schema(core, schemas)
        try:
            parsed = [(each.name, _parsed(each)) for each in policies]
            bundle.require_clean(parsed)
            walls = bundle.policies_of(_parsed(Source(name="walls", text=bundle.WALLS)))
            own = [policy for _, est in parsed for policy in bundle.policies_of(est)]
            if len(own) > _MAX_POLICIES:
                raise PolicyInvalid(f"a bundle has at most {_MAX_POLICIES} policies, this one has {len(own)}")
            _validate(policies, schema)
            schemas_by_context = {True: schema, False: _contextless(core, schemas)}
            slices = _slices((*walls, *own), schemas_by_context, sorted({tool.action for tool in tools}))
            policy = bundle.digest_of(policies, schemas, core=core)
        except RecursionError as error:
            raise PolicyInvalid(f"a condition in `{directory}` is nested too deep", hint="split it") from error
        except ValueError as error:
            raise PolicyInvalid(f"`{directory}` cannot be prepared: {error}") from error
        engine = cls(policy=policy, schema=schema, slices=slices)
        for tool in tools:
            engine._require_tool(tool, tools)
            if tool.scoped and tool.rows is not None:
                engine._scopes[tool.name, ""] = engine._scope(tool.action, tool.rows, (narrowed or {})[tool.name])
            for table, each in tool.explores.tables.items() if tool.explores else ():
                engine._require_plain(tool)
                scope = engine._scope(tool.action, each.rows, (narrowed or {})[tool.name])
                engine._scopes[tool.name, table] = scope
        return engine

    @property
    def policy(self) -> Digest:
        """Digest of the bundle in force."""
        return self._policy

    @property
    def purposes(self) -> frozenset[str]:
        """The scopes by which a person states a purpose that some policy demands."""
        owed = (each for slice_ in self._slices.values() for each in slice_.owed.values())
        return frozenset(scope for each in owed for scope in obligations.purpose_scopes(each.obligations))

    @property
    def asking(self) -> frozenset[str]:
        """The policies that demand an approval."""
        owed = (each for slice_ in self._slices.values() for each in slice_.owed.values())
        return frozenset(each.policy for each in owed if each.obligations.approve)

    def judge(self, question: Question) -> Judgement:
        """What Cedar says. Whatever a question holds, the answer is a Judgement."""
        slice_ = self._slices.get(question.action)
        if slice_ is None:
            return unanswered(f"no tool has the action `{question.action}`")
        try:
            result = self._asked(question, slice_.policies, slice_)
            about_row = question.resource.type != "Tool"
            absent = absent_people(question, self._prepared(question).known) if about_row else ()
            return judgement(result, absent, slice_.owed)
        except Exception as error:  # hostile values end in many exception types; each denies and is in the record
            return unanswered(f"{type(error).__name__}: {error}"[:500])

    def candidates(self, question: Question) -> tuple[Candidate, ...]:
        """Every policy of the action, condition by condition, walls first, then in bundle order. For denials only."""
        slice_ = self._slices.get(question.action)
        if slice_ is None:
            return ()
        try:
            held = frozenset(self._asked(question, slice_.probes, slice_).diagnostics.reasons)
        except Exception:  # as in judge, whose Judgement says what went wrong; here no condition can be told
            held = frozenset()
        return tuple(
            Candidate(
                policy=part.policy.id,
                effect=part.policy.est["effect"],
                doc=part.policy.doc,
                remedy=part.policy.remedy,
                conjuncts=tuple(
                    Conjunct(text=text, holds=held_of(held, f"{number}.{place}"))
                    for place, text in enumerate(part.texts)
                ),
            )
            for number, part in enumerate(slice_.parts)
        )

    def scope(self, action: str, type_: str, layout: Layout, dialect: Dialect) -> Scope:
        """The policies of an action as a predicate on rows of `type_`. Raises PolicyInvalid for what has none."""
        return prepared([part.policy for part in self._slices[action].parts], type_, layout, dialect)

    def predicate(self, scope: Scope, question: Question) -> Predicate:
        """The predicate for the caller of a question about a tool. Where the engine does not answer, no row fits."""
        slice_ = self._slices[question.action]
        return predicate(scope, question, lambda probes: self._asked(question, probes, slice_))

    def narrowing(self, tool: Tool, question: Question) -> Predicate:
        """The condition on a scoped tool's rows for the caller of `question`, which is about that tool."""
        return self.predicate(self._scopes[tool.name, ""], question)

    def exploring(self, tool: Tool, question: Question) -> Mapping[str, Predicate]:
        """The condition on each table that an exploring tool may be asked about."""
        return {
            table: self.predicate(scope, question)
            for (name, table), scope in self._scopes.items()
            if name == tool.name and table
        }

    def _asked(self, question: Question, policies: cedarpy.PolicySet, slice_: _Slice) -> cedarpy.AuthzResult:
        request = {
            "principal": {"type": question.principal.type, "id": question.principal.id},
            "action": action_of(question.action),
            "resource": {"type": question.resource.type, "id": question.resource.id},
            "context": "{}",
        }
        if slice_.context:
            request["context"] = orjson.dumps(
                {key: value_of(value) for key, value in question.context.items()}
            ).decode()
        return cedarpy.is_authorized(request, policies, self._entities(question), schema=slice_.schema)

    def _entities(self, question: Question) -> cedarpy.Entities:
        """The question's entities, schema-checked. Those about a tool are kept: a person asks about many tools.

        INVARIANT: entities are frozen values, and a kept slice holds on to its own, so within the cache an id() stands
        for one content. The tool's entity is made afresh for each question and so is told by its content.
        """
        stable, last = question.entities[:-1], question.entities[-1:]
        if question.resource.type != "Tool" or not last or last[0].ref is not question.resource:
            prepared = self._prepared(question)
            if prepared.handle is None:
                raise ValueError(prepared.fault)
            return prepared.handle
        about = last[0]
        key = (*map(id, stable), about.ref.id, *about.attributes.items(), about.parents)
        kept = self._kept.get(key)
        if kept is None:
            kept = (checked(question.entities, self._schema), stable)
            self._kept[key] = kept
            if len(self._kept) > _KEPT_SLICES:
                self._kept.popitem(last=False)
        return kept[0]

    def _prepared(self, question: Question) -> _Shared:
        """The question's entities, schema-checked; those of the question before, if it is asked over the same tuple."""
        shared = self._shared
        if shared is None or shared.entities is not question.entities:
            handle, fault = None, ""
            try:
                handle = checked(question.entities, self._schema)
            except (ValueError, TypeError) as error:
                fault = f"{type(error).__name__}: {error}"
            known = {entity.ref: entity for entity in question.entities}
            shared = _Shared(entities=question.entities, known=known, handle=handle, fault=fault)
            self._shared = shared
        return shared

    def _require_plain(self, tool: Tool) -> None:
        """Of what a model counts and sums nobody can say which permit let it through: none of rows may demand more."""
        for part in self._slices[tool.action].parts:
            about = part.policy.est.get("resource", {})
            of_tools = about.get("op") == "is" and about.get("entity_type") == "Tool"
            if part.policy.obligations != obligations.NONE and not of_tools:
                raise PolicyInvalid(
                    f"tool `{tool.name}` explores, and `{part.policy.id}` demands more of rows than the condition says",
                    hint="give exploring an action of its own, with permits on rows without obligations",
                )

    def _scope(self, action: str, rows: Rows, where: Narrowed) -> Scope:
        """The predicate on rows. What the schema demands of them is found by leaving it out."""
        sample = _sample(rows)
        required: dict[str, bool] = {}
        for name in rows.attributes:
            without = {key: value for key, value in sample.attributes.items() if key != name}
            try:
                checked((Entity(ref=sample.ref, attributes=without, parents=()),), self._schema)
                required[name] = False
            except ValueError:
                required[name] = True
        return self.scope(action, rows.type, rows_table(rows, where.layout, required), where.dialect)

    def _require_tool(self, tool: Tool, tools: Sequence[Tool]) -> None:
        """The action exists and applies to Tool and to what the tool's calls are decided on."""
        shapes = [tool.rows] if tool.rows else []
        shapes += [each.rows for each in tool.explores.tables.values()] if tool.explores else []
        shapes += [each.rows for each in tools if tool.lookup and each.name == tool.lookup.tool and each.rows]
        for type_ in ("Tool", *(shape.type for shape in shapes)):
            context: dict[str, Json | Ref] = {"client": Ref(type="Client", id="c"), "scopes": [], "now": 0}
            user, resource = Ref(type="User", id="t/p"), Ref(type=type_, id="t/r")
            probe = Question(principal=user, action=tool.action, resource=resource, context=context, entities=())
            judgement = self.judge(probe)
            if not judgement.validated:
                raise PolicyInvalid(
                    f"tool `{tool.name}`: action `{tool.action}` cannot be asked about {type_}: {judgement.errors[0]}",
                    hint="declare it: appliesTo { principal: User, resource: [Tool, ...], context: Context }",
                )
        for shape in shapes:
            try:
                checked((_sample(shape),), self._schema)
            except ValueError as error:
                kinds = {name: kind for name, (_, kind) in shape.attributes.items()} | {"tenant": "Tenant"}
                named = ", ".join(f"{name}: {kind}" for name, kind in sorted(kinds.items()))
                raise PolicyInvalid(
                    f"tool `{tool.name}`: rows of {{{named}}} do not fit type `{shape.type}`: {error}"
                ) from error


_SAMPLES: Mapping[str, Json] = {"String": "x", "Long": 0, "Bool": False}


def _sample(shape: Rows) -> Entity:
    kinds = {name: kind for name, (_, kind) in shape.attributes.items()} | {"tenant": "Tenant"}
    attributes = {name: _SAMPLES.get(kind, Ref(type=kind, id="t/x")) for name, kind in kinds.items()}
    return Entity(ref=Ref(type=shape.type, id="t/r"), attributes=attributes, parents=())


# --- loading -------------------------------------------------------------------------------


def _schema(core: str, schemas: Sequence[Source]) -> cedarpy.Schema:
    named = ", ".join(each.name for each in schemas) or "the core schema"
    try:
        schema = cedarpy.Schema.from_str("\n".join([core, *(each.text for each in schemas)]))
    except ValueError as error:
        raise PolicyInvalid(f"{named}: {error}", hint="core types cannot be declared again") from error
    walls = cedarpy.validate_policies(bundle.WALLS, schema)
    if not walls:
        raise PolicyInvalid(
            f"{named}: a type cannot stand behind the walls: {walls.errors[0].error}",
            hint="every type an action applies to needs the attribute `tenant: Tenant`, every principal is a User",
        )
    return schema


def _parsed(source: Source) -> Est:
    try:
        est: Est = orjson.loads(cedarpy.policies_to_json_str(source.text))
    except ValueError as error:
        raise PolicyInvalid(f"{source.name}: {error}", hint="mend the policy text") from error
    return est


def _validate(policies: Sequence[Source], schema: cedarpy.Schema) -> None:
    """Strict validation, file by file, so that a message names its file and policy."""
    for source in policies:
        result = cedarpy.validate_policies(source.text, schema)
        if not result:
            ids = result.id_annotations_by_policy_id
            shown = [f"policy `{ids.get(each.policy_id, each.policy_id)}`: {each.error}" for each in result.errors[:5]]
            raise PolicyInvalid(f"{source.name}: {'; '.join(shown)}", hint="policies are validated strictly")


def _contextless(core: str, schemas: Sequence[Source]) -> cedarpy.Schema:
    """The schema with an empty context, for policies that do not look at theirs: reading one is half of an answer."""
    bare = _CONTEXT.sub("type Context = {};", core)
    return cedarpy.Schema.from_str("\n".join([bare, *(each.text for each in schemas)]))


def _slices(
    policies: Sequence[Policy], schemas: Mapping[bool, cedarpy.Schema], actions: Sequence[str]
) -> dict[str, _Slice]:
    probes = _scope_probes(policies)
    texts = {policy.id: tuple(_text(part) for part in bundle.conditions(policy.est)) for policy in policies}
    slices: dict[str, _Slice] = {}
    for action in actions:
        silent = _silent(action, probes, schemas[True])
        chosen = [policy for policy in policies if orjson.dumps(policy.est["action"]) not in silent]
        pairs: dict[str, Est] = {}
        for number, policy in enumerate(chosen):
            for place, part in enumerate(bundle.conditions(policy.est)):
                pairs[f"{number}.{place}.t"] = bundle.permit(part)
                pairs[f"{number}.{place}.f"] = bundle.permit(part, "unless")
        context = any(map(_looks_at_context, chosen)) or not _takes_no_context(action, schemas[False])
        slices[action] = _Slice(
            policies=_policy_set({policy.id: policy.est for policy in chosen}),
            parts=tuple(_Part(policy=policy, texts=texts[policy.id]) for policy in chosen),
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
        if policy.obligations != obligations.NONE
    }


def _looks_at_context(policy: Policy) -> bool:
    # in Cedar's JSON a variable is spelled so and a text never is, for in a text the quotes are escaped
    return b'{"Var":"context"}' in orjson.dumps(policy.est)


def _takes_no_context(action: str, schema: cedarpy.Schema) -> bool:
    """Whether an action's context is the core's; one of its own has attributes that must be there."""
    request = {**_probe(action), "context": "{}"}
    asked = cedarpy.is_authorized(request, cedarpy.PolicySet.from_str(""), checked((), schema), schema=schema)
    return asked.decision is not cedarpy.Decision.NoDecision


def _scope_probes(policies: Sequence[Policy]) -> dict[bytes, cedarpy.PolicySet]:
    """For each distinct action scope, a policy set that allows exactly the actions in it."""
    scopes = {orjson.dumps(policy.est["action"]): policy.est["action"] for policy in policies}
    return {key: _policy_set({"scope": bundle.covering(scope)}) for key, scope in scopes.items()}


def _silent(action: str, probes: Mapping[bytes, cedarpy.PolicySet], schema: cedarpy.Schema) -> set[bytes]:
    """The action scopes that the engine itself says do not cover this action; a group may, so names are no measure."""
    nobody = checked((), schema)
    asked = {key: cedarpy.is_authorized(_probe(action), probe, nobody, schema=schema) for key, probe in probes.items()}
    return {key for key, result in asked.items() if result.decision is cedarpy.Decision.Deny}


def _probe(action: str) -> dict[str, Any]:
    return {
        "principal": {"type": "User", "id": "t/p"},
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
