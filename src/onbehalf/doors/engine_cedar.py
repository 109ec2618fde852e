"""Policy questions answered by Cedar (cedarpy), with all parsing done once at load.

A bundle is a directory of `*.cedar` and `*.cedarschema` files. It is parsed, validated strictly and linted as a whole;
one fault and nothing of it is used. What comes out is raw: Cedar skips a forbid that errors, so only
validate/decide.py may turn a Judgement into a Decision.
Trust: whoever can write the policy directory decides who may do what within a tenant, but cannot take down the walls.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cedarpy
import orjson

from onbehalf.doors.engine_cedar_bundle import (
    Slice,
    contextless,
    parsed,
    schema_of,
    slices_for_services,
    slices_of,
    validate,
)
from onbehalf.doors.engine_cedar_files import core_schema, read
from onbehalf.doors.engine_cedar_scope import Narrowed, Scope, predicate, prepared, rows_table
from onbehalf.doors.engine_cedar_values import (
    action_of,
    checked,
    engine_name,
    held_of,
    judgement,
    unanswered,
    value_of,
)
from onbehalf.errors import PolicyInvalid
from onbehalf.model import (
    Candidate,
    Conjunct,
    Digest,
    Entity,
    Json,
    Judgement,
    Predicate,
    Question,
    Ref,
    Rows,
    Tool,
    digest,
)
from onbehalf.validate import bundle, demands, obligations
from onbehalf.validate.bundle import Source
from onbehalf.validate.pushdown_sql import Dialect
from onbehalf.validate.pushdown_terms import Layout
from onbehalf.validate.questions import absent_people

__all__ = ["CedarEngine"]

_MAX_POLICIES = 2_000
_KEPT_SLICES = 4_096
_KEPT_REPLAYED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """Entities that several questions in a row are asked over, prepared once. `handle` is None where they are unfit."""

    entities: tuple[Entity, ...]
    known: Mapping[Ref, Entity]
    handle: cedarpy.Entities | None
    fault: str


class CedarEngine:
    """One loaded bundle. Made by `load`; never changes."""

    def __init__(
        self, *, spelled: bytes, schema: cedarpy.Schema, slices: Mapping[str, Slice], services: Mapping[str, Slice]
    ) -> None:
        """`spelled` is the bundle, `slices` are what people are judged by, by action, `services` what services are."""
        self._spelled = spelled
        self._policy = digest(spelled)
        self._schema = schema
        self._slices = slices
        self._services = services
        self._scopes: dict[tuple[str, str], Scope] = {}
        self._shared: _Shared | None = None
        self._most = _KEPT_SLICES
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
        spelled = bundle.spelled(policies, schemas, core=core_schema())
        try:
            engine = cls._of(spelled, actions=sorted({tool.action for tool in tools}))
        except RecursionError as error:
            raise PolicyInvalid(f"a condition in `{directory}` is nested too deep", hint="split it") from error
        except ValueError as error:
            raise PolicyInvalid(f"`{directory}` cannot be prepared: {error}") from error
        for tool in tools:
            engine._require_tool(tool, tools)
            if (tool.scoped or tool.explores is not None) and engine.services_do(tool):
                raise PolicyInvalid(
                    f"tool `{tool.name}` narrows its rows in SQL, which is not done for services",
                    hint="let services use another tool, whose rows are decided one by one, with an action of its own",
                )
            if tool.scoped and tool.rows is not None:
                engine._scopes[tool.name, ""] = engine._scope(tool.action, tool.rows, (narrowed or {})[tool.name])
            for table, each in tool.explores.tables.items() if tool.explores else ():
                engine._require_plain(tool)
                scope = engine._scope(tool.action, each.rows, (narrowed or {})[tool.name])
                engine._scopes[tool.name, table] = scope
        return engine

    @classmethod
    def recorded(cls, spelled: bytes, *, actions: Sequence[str]) -> CedarEngine:
        """A bundle that was in force once, for questions of that time about these actions. Raises PolicyInvalid."""
        try:
            engine = cls._of(spelled, actions=actions)
        except (ValueError, RecursionError) as error:
            raise PolicyInvalid(f"policies of another time cannot be prepared: {error}") from error
        engine._most = _KEPT_REPLAYED
        return engine

    @classmethod
    def _of(cls, spelled: bytes, *, actions: Sequence[str]) -> CedarEngine:
        """A bundle as spelled, validated. Raises PolicyInvalid, ValueError, RecursionError."""
        read_ = bundle.unspelled(spelled)
        schema = schema_of(read_.core, read_.schemas, walls=read_.walls)
        files = [(each.name, parsed(each)) for each in read_.policies]
        bundle.require_clean(files)
        walls = bundle.policies_of(parsed(Source(name="walls", text=read_.walls)))
        own = [policy for _, est in files for policy in bundle.policies_of(est)]
        if len(own) > _MAX_POLICIES:
            raise PolicyInvalid(f"a bundle has at most {_MAX_POLICIES} policies, this one has {len(own)}")
        validate(read_.policies, schema)
        schemas_by_context = {True: schema, False: contextless(read_.core, read_.schemas)}
        people = [each for each in own if bundle.speaks_to(each, "User")]
        slices = slices_of((*walls, *people), schemas_by_context, actions)
        services = slices_for_services((*walls, *own), schemas_by_context, actions)
        return cls(spelled=spelled, schema=schema, slices=slices, services=services)

    @property
    def spelled(self) -> bytes:
        """The bundle in force, as its digest is over it."""
        return self._spelled

    @property
    def policy(self) -> Digest:
        """Digest of the bundle in force."""
        return self._policy

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that some policy demands, or by which a person states a purpose that one demands."""
        owed = (each for slice_ in self._all() for each in slice_.owed.values())
        return frozenset(scope for each in owed for scope in obligations.demanded_scopes(each.obligations))

    @property
    def asking(self) -> frozenset[str]:
        """The policies that demand an approval."""
        owed = (each for slice_ in self._all() for each in slice_.owed.values())
        return frozenset(each.policy for each in owed if each.obligations.approve)

    def judge(self, question: Question) -> Judgement:
        """What Cedar says. Whatever a question holds, the answer is a Judgement."""
        slice_ = self._slice(question)
        if slice_ is None and question.principal.type == "Service" and question.action in self._slices:
            # an action that is no service's to do
            return Judgement(allowed=False, policies=(), errors=(), validated=True, engine=engine_name())
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
        slice_ = self._slice(question)
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
        if question.principal.type != "User":  # in SQL an id is a text, and a service's could be a person's
            return _NO_ROW
        return self.predicate(self._scopes[tool.name, ""], question)

    def exploring(self, tool: Tool, question: Question) -> Mapping[str, Predicate]:
        """The condition on each table that an exploring tool may be asked about."""
        people = question.principal.type == "User"
        return {
            table: self.predicate(scope, question) if people else _NO_ROW
            for (name, table), scope in self._scopes.items()
            if name == tool.name and table
        }

    def services_do(self, tool: Tool) -> bool:
        """Whether some permit is there by which a service could do this tool's action."""
        slice_ = self._services.get(tool.action)
        return slice_ is not None and any(part.policy.est["effect"] == "permit" for part in slice_.parts)

    def _slice(self, question: Question) -> Slice | None:
        """What the one who asks is judged by."""
        return (self._services if question.principal.type == "Service" else self._slices).get(question.action)

    def _all(self) -> tuple[Slice, ...]:
        return (*self._slices.values(), *self._services.values())

    def _asked(self, question: Question, policies: cedarpy.PolicySet, slice_: Slice) -> cedarpy.AuthzResult:
        request: dict[str, object] = {
            "principal": {"type": question.principal.type, "id": question.principal.id},
            "action": action_of(question.action),
            "resource": {"type": question.resource.type, "id": question.resource.id},
        }
        if slice_.context:  # none is an empty one, which need not be read
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
            if len(self._kept) > self._most:
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
            if part.policy.obligations != demands.NONE and not of_tools:
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
            resource = Ref(type=type_, id="t/r")
            askers = ["User", "Service"] if tool.action in self._services else ["User"]
            said = [
                self.judge(
                    Question(
                        principal=Ref(type=kind, id="t/p"), action=tool.action, resource=resource, context=context,
                        entities=(),
                    )
                )
                for kind in askers
            ]  # fmt: skip
            judgement = said[0]
            if not any(each.validated for each in said):
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


_NO_ROW = Predicate(sql="1 = 0", parameters={})
_SAMPLES: Mapping[str, Json] = {"String": "x", "Long": 0, "Bool": False}


def _sample(shape: Rows) -> Entity:
    kinds = {name: kind for name, (_, kind) in shape.attributes.items()} | {"tenant": "Tenant"}
    attributes = {name: _SAMPLES.get(kind, Ref(type=kind, id="t/x")) for name, kind in kinds.items()}
    return Entity(ref=Ref(type=shape.type, id="t/r"), attributes=attributes, parents=())
