"""The dry run of an operation: which parameter may ask for one, and what its answer is worth.

Pure. Must not hold how a call is made one that is tried (route.py), or how it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UnsetType

from onbehalf.config import OpenapiToolSettings
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Digest, Done, DryRun, Json, Tool, ToolCall, canonical, digest
from onbehalf.validate import route, rows
from onbehalf.validate.api import Operation, Parameter
from onbehalf.validate.api_request import Unsendable, spelled

__all__ = ["Untold", "dry_run_of", "require_told", "unfit"]

_PLACES = frozenset({"query", "header", "body"})


class Untold(ValueError):
    """An answer does not say what would change. The message holds none of its words."""


def dry_run_of(name: str, settings: OpenapiToolSettings, operation: Operation) -> DryRun | None:
    """How calls of this tool are tried, if they are. Raises ConfigInvalid.

    Checked: 1 the tool writes; 2 the document has the parameter, and once; 3 nothing else sets it; 4 leaving it out is
    no dry run too; 5 its values are what the document takes there; 6 and are told apart. That the API heeds it is not.
    """
    found = settings.dry_run
    if found is None:
        return None
    what = f"tool `{name}`: the dry run's `{found.parameter[:64]}`"
    if not settings.writes:  # 1
        raise ConfigInvalid(f"tool `{name}` has a dry run and writes nothing", hint="say `writes: true`, or no dry run")
    each = _parameter(what, found.parameter, operation)  # 2
    if found.parameter in settings.bound:  # 3
        raise ConfigInvalid(f"{what} is bound too", hint="remove it from `bound`; a dry run sets it by itself")
    off: tuple[Json, ...] = () if isinstance(found.off, UnsetType) else (found.off,)
    _require_json(what, found.value, *off)
    default = [each.schema["default"]] if "default" in each.schema else []
    if not off and (each.required or canonical(default) == canonical([found.value])):  # 4
        why = "is required" if each.required else f"is `{_told(found.value)}` where it is left out"
        raise ConfigInvalid(f"{what} {why}", hint="say under `off` what is sent when the call is done")
    sent = [_sent(what, each, value) for value in (found.value, *off)]  # 5
    if len(set(sent)) != len(sent):  # 6
        raise ConfigInvalid(f"{what} is the same on and `off`", hint="the API could not tell trying from doing")
    return DryRun(parameter=found.parameter, value=found.value, off=off, compare=found.compare)


def unfit(call: ToolCall, arguments: Mapping[str, Json]) -> str:
    """Why a call must not be sent as it is, "" if it may: what is tried has the parameter, what is done was tried.

    The last look before a request that would change something while it is only tried.
    """
    dry_run = call.tool.dry_run
    if dry_run is None:
        return "an HTTP API cannot try a call first" if call.dry or call.expected else ""
    if not call.dry and not call.expected:
        return "a call that has a dry run was not tried first"
    wanted = [dry_run.value] if call.dry else [*dry_run.off]
    found = [arguments[dry_run.parameter]] if dry_run.parameter in arguments else []
    return "" if canonical(found) == canonical(wanted) else "the dry run's parameter is not what it must be"


def require_told(tool: Tool, answer: Json, done: Done) -> Digest:
    """The digest over what a dry run's `answer` says would change. `done` is the same answer as an MCP result.

    No answer is null, and counts where nothing is mapped. Raises Untold for one without a place for the rows that are
    to be decided, without a field that is compared, or with no one spelling.
    """
    if tool.rows is not None and not rows.given(tool.rows, done.content):
        raise Untold("the answer has no rows where they are mapped from")
    compare = tool.dry_run.compare if tool.dry_run else ()
    if compare:
        members = answer if isinstance(answer, dict) else {}
        lost = [field for field in compare if field not in members]
        if lost:
            raise Untold(f"the answer has no `{lost[0][:64]}` to compare")
        answer = {field: members[field] for field in compare}
    try:
        return digest(canonical(answer))
    except ValueError as error:
        raise Untold("the answer has no one spelling in JSON") from error


def _parameter(what: str, name: str, operation: Operation) -> Parameter:
    able = {each.name: each for each in operation.parameters if each.place in _PLACES}
    if name not in able:
        known = ", ".join(f"`{each[:64]}`" for each in sorted(able)[:20]) or "none"
        raise ConfigInvalid(
            f"{what} is no parameter of the operation", hint=f"in query, header and body it has {known}"
        )
    if any(each.name != name and each.name.lower() == name.lower() for each in operation.parameters):
        raise ConfigInvalid(f"{what} stands twice in the document, but for upper and lower case")
    return able[name]


def _require_json(what: str, *values: Json) -> None:
    try:
        canonical([*values])
    except ValueError as error:  # YAML knows dates, sets and bytes
        raise ConfigInvalid(f"{what} is set to what JSON cannot say", hint="a date needs quotes") from error


def _sent(what: str, each: Parameter, value: Json) -> str:
    schema: dict[str, Json] = {"type": "object", "properties": {each.name: dict(each.schema)}}
    if route.prepare(schema).refusals({each.name: value}):
        raise ConfigInvalid(f"{what} does not take `{_told(value)}`", hint="look into the document at what it takes")
    try:
        return spelled(each, value)
    except Unsendable as error:
        raise ConfigInvalid(f"{what} does not take `{_told(value)}`: {error}") from error


def _told(value: Json) -> str:
    return canonical(value).decode()[:64]
