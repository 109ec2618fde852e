"""Tools as offered, from configuration and from what an upstream says of itself.

What a tool is gets pinned here: its definition digest covers every word that the model reads and every setting that
decides. Must not hold how arguments are checked (route.py) or what is asked about a tool (questions.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from onbehalf.config import OpenapiToolSettings, ParameterSettings, RowsSettings, ToolSettings, row_attributes
from onbehalf.errors import ConfigInvalid
from onbehalf.model import (
    Bound,
    Digest,
    DryRun,
    Explored,
    Explores,
    Json,
    Lookup,
    Pages,
    Preview,
    Rows,
    Tool,
    canonical,
    digest,
)
from onbehalf.validate import explore, paging
from onbehalf.validate.paging import CURSOR, SIZE
from onbehalf.validate.pushdown_sql import ALIAS, PREFIX, SCOPE_MARK, Dialect
from onbehalf.validate.route import CHANGE, shown_schema

__all__ = ["exploring_tool", "mcp_tool", "require_sound", "sketch", "sql_tool"]

_SCOPE_CHARACTERS = frozenset(map(chr, {0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F)}))
"""RFC 6749 section 3.3: what a scope token is made of."""

_OWN_TYPES = frozenset({"Tool", "User", "Service", "Position", "Group", "Tenant", "Client", "Action"})


def sketch(name: str, upstream: str, settings: ToolSettings, dialect: Dialect | None = None) -> Tool:
    """A tool as far as configuration alone tells: enough to check policies with. `dialect` is that of its database.

    Raises ConfigInvalid.
    """
    for scope in settings.scopes:
        if not scope or not _SCOPE_CHARACTERS.issuperset(scope):
            raise ConfigInvalid(
                f"tool `{name}`: `{scope}` is no scope name", hint="letters, digits and . : / _ - serve"
            )
    if settings.rows is None and settings.resource is None and not settings.writes and not settings.exposed:
        raise ConfigInvalid(
            f"tool `{name}` is not exposed and maps no rows, so nothing can use it", hint="map its rows"
        )
    return Tool(
        name=name,
        title=settings.title,
        description=settings.description,
        upstream=upstream,
        remote=settings.remote or name,
        action=settings.action,
        scopes=frozenset(settings.scopes),
        schema={},
        bound=tuple(_bound(name, parameter, each) for parameter, each in sorted(settings.bound.items())),
        rows=_rows(name, settings),
        lookup=_lookup(settings),
        writes=settings.writes,
        exposed=settings.exposed,
        definition=Digest(""),
        once_s=settings.once_seconds,
        scoped=_scoped(name, settings),
        explores=_explores(name, settings, dialect),
        pages=_pages(name, settings, dialect),
        durability=settings.durability,
    )


def _scoped(name: str, settings: ToolSettings) -> bool:
    if not settings.scoped or not settings.statement:
        return False
    if settings.rows is None:
        raise ConfigInvalid(f"tool `{name}` is scoped and maps no rows", hint="map `rows`")
    marks = settings.statement.count(SCOPE_MARK)
    if settings.writes and (marks != 1 or _NAMED_SCOPED.search(settings.statement) is None):
        raise ConfigInvalid(
            f"tool `{name}` is scoped and writes, and its statement does not say where the condition goes",
            hint=f"call the table `AS {ALIAS}`, and write {SCOPE_MARK} once among its conditions, after an AND",
        )
    if not settings.writes and marks:
        raise ConfigInvalid(f"tool `{name}`: `{SCOPE_MARK}` is for what writes", hint="leave it out; it is added")
    return True


def _explores(name: str, settings: ToolSettings, dialect: Dialect | None) -> Explores | None:
    found = settings.explore
    if found is None:
        return None
    other = (settings.statement, settings.parameters, settings.bound, settings.rows, settings.resource, settings.writes)
    if dialect is None or any(other) or settings.scoped or settings.preview:
        raise ConfigInvalid(
            f"tool `{name}` explores, and has keys of another kind of tool, or is not of a database",
            hint="beside `explore` it has an action, scopes, a title and a description",
        )
    tables: dict[str, Explored] = {}
    for table, each in found.tables.items():
        rows = _mapped(name, each, at=())
        missing = sorted({rows.id, rows.tenant} - set(each.columns))
        if missing:
            raise ConfigInvalid(f"tool `{name}`: `{table}` is mapped by `{missing[0]}`, which is no column of it")
        real = table if isinstance(each.table, msgspec.UnsetType) else each.table
        tables[table] = Explored(rows=rows, table=real, columns=each.columns)
    return Explores(dialect=dialect, tables=tables, max_cost=found.max_cost)


def _pages(name: str, settings: ToolSettings, dialect: Dialect | None) -> Pages | None:
    if settings.page is None:
        return None
    if dialect is None or not settings.statement or settings.rows is None or settings.writes:
        raise ConfigInvalid(f"tool `{name}`: `page` is for a SELECT with `rows`", hint="map `rows`, or remove `page`")
    if {CURSOR, SIZE} & {*settings.parameters, *settings.bound}:
        raise ConfigInvalid(f"tool `{name}`: with pages, `{CURSOR}` and `{SIZE}` are the gateway's own parameters")
    by = [(each.removeprefix("-"), each.startswith("-")) for each in settings.page.by]
    names = [field for field, _ in by]
    if len(set(names)) != len(names) or settings.rows.id in names[:-1]:
        raise ConfigInvalid(f"tool `{name}`: pages go by one field twice, or by more after the id")
    if settings.rows.id not in names:
        by.append((settings.rows.id, False))
    return Pages(by=tuple(by), size=settings.page.size, dialect=dialect)


def exploring_tool(name: str, upstream: str, settings: ToolSettings, dialect: Dialect) -> Tool:
    """A tool that takes a SELECT of the model's. Raises ConfigInvalid."""
    tool = sketch(name, upstream, settings, dialect)
    return _pinned(replace(tool, schema=explore.schema(), description=explore.described(tool)), settings)


def sql_tool(
    name: str,
    upstream: str,
    settings: ToolSettings,
    *,
    used: Sequence[str],
    columns: Sequence[str],
    dialect: Dialect = "sqlite",
    may_write: bool = False,
) -> Tool:
    """A tool that is a statement with the parameters `used` and the result `columns`.

    `may_write` is whether a statement of this kind can change anything, `dialect` its SQL. Raises ConfigInvalid where
    parameters are not declared, or rows are mapped from columns that are not there.
    """
    tool = sketch(name, upstream, settings, dialect)
    _require_sql(name, settings, used, may_write=may_write)
    if tool.rows is not None:
        wanted = {tool.rows.id, tool.rows.tenant, *(field for field, _ in tool.rows.attributes.values())}
        wanted |= {field for field, _ in tool.pages.by} if tool.pages else set()
        lost = sorted(wanted - set(columns))
        if lost:
            raise ConfigInvalid(
                f"tool `{name}`: `rows` needs the column `{lost[0]}`, which the statement does not give",
                hint=f"it gives {', '.join(f'`{column}`' for column in columns)}",
            )
    if tool.scoped and any(parameter.startswith(PREFIX) for parameter in used):
        raise ConfigInvalid(f"tool `{name}`: a parameter begins with `{PREFIX}`", hint="those are the gateway's own")
    preview = _preview(name, settings)
    properties: dict[str, Json] = dict(settings.parameters)
    if preview == "asked":
        properties[CHANGE] = dict(_CHANGE)
    properties |= paging.properties(tool.pages) if tool.pages else {}
    schema: dict[str, Json] = {
        "type": "object",
        "properties": properties,
        "required": [*settings.required],
        "additionalProperties": False,
    }
    return _pinned(replace(tool, schema=schema, preview=preview), settings)


_NAMED_SCOPED = re.compile(rf"\bAS\s+{ALIAS}\b", re.IGNORECASE)

_CHANGE: dict[str, Json] = {
    "type": "string",
    "pattern": "^sha256:[0-9a-f]{64}$",
    "description": "Leave it out to be shown what would change; then send what you were given, to have it changed.",
}


def _preview(name: str, settings: ToolSettings) -> Preview:
    """How a statement is tried before it is done: always where it writes."""
    if settings.preview and not settings.writes:
        raise ConfigInvalid(f"tool `{name}` has a preview and writes nothing", hint="say `writes: true`, or no preview")
    if settings.preview and CHANGE in {*settings.parameters, *settings.bound}:
        raise ConfigInvalid(f"tool `{name}`: with a preview, `{CHANGE}` is the gateway's own parameter")
    if not settings.writes:
        return "none"
    if (
        settings.resource is None
        and not settings.scoped
        and not settings.statement.lstrip().lower().startswith("insert")
    ):
        raise ConfigInvalid(
            f"tool `{name}` changes rows that nobody decided on as they were",
            hint="name under `resource` the reading tool that finds the row, or scope it; an INSERT can do without",
        )
    return "asked" if settings.preview else "checked"


def mcp_tool(
    name: str,
    upstream: str,
    settings: ToolSettings,
    *,
    title: str,
    description: str,
    schema: Mapping[str, Json],
    dry_run: DryRun | None = None,
) -> Tool:
    """A tool that an MCP server, or an API's document, described; words in configuration win over its own.

    `dry_run` is how an API can try it first. Raises ConfigInvalid.
    """
    tool = sketch(name, upstream, settings)
    if settings.statement or settings.parameters or settings.required:
        raise ConfigInvalid(f"tool `{name}`: an MCP tool has the schema of its server", hint="remove the SQL keys")
    if settings.explore is not None or settings.page is not None:
        raise ConfigInvalid(f"tool `{name}`: `explore` and `page` are for databases", hint="remove them")
    if (settings.scoped or settings.preview) and not isinstance(settings, OpenapiToolSettings):
        raise ConfigInvalid(f"tool `{name}`: `scoped` and `preview` are for databases", hint="remove them")
    if settings.preview and dry_run is None:
        raise ConfigInvalid(
            f"tool `{name}` has a preview, and nothing says how its API can try a call first",
            hint="say under `dry_run` by which parameter it does, or remove `preview`",
        )
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    lost = [bound.parameter for bound in tool.bound if bound.parameter not in known]
    if lost:
        raise ConfigInvalid(
            f"tool `{name}`: its server has no parameter `{lost[0]}` to bind", hint=f"it has {_listed(known)}"
        )
    shown = shown_schema(schema, tool.bound, dry_run)
    if settings.preview:
        shown = _changing(name, shown, known)
    preview: Preview = "none" if dry_run is None else "asked" if settings.preview else "checked"
    made = replace(tool, schema=shown, title=settings.title or title, description=settings.description or description)
    told: dict[str, Json] = {"description": description, "schema": dict(schema), "title": title}
    return _pinned(replace(made, preview=preview, dry_run=dry_run), settings, told)


def _changing(name: str, shown: Mapping[str, Json], known: Mapping[str, Json]) -> dict[str, Json]:
    """What the model sees where it must ask for the change that it was shown."""
    if CHANGE in known:
        raise ConfigInvalid(f"tool `{name}`: with a preview, `{CHANGE}` is the gateway's own parameter")
    properties = shown["properties"]
    assert isinstance(properties, dict)  # INVARIANT: shown_schema made it
    return {**shown, "properties": {**properties, CHANGE: dict(_CHANGE)}}


def require_sound(tools: Mapping[str, Tool]) -> None:
    """Check what tools say of one another. Raises ConfigInvalid."""
    if not any(tool.exposed for tool in tools.values()):
        raise ConfigInvalid("no tool is exposed", hint="list one under an upstream's `tools`")
    for tool in tools.values():
        if tool.lookup is None:
            continue
        found = tools.get(tool.lookup.tool)
        if found is None or found.rows is None or found.lookup is not None or found.writes:
            raise ConfigInvalid(
                f"tool `{tool.name}` looks its resource up by `{tool.lookup.tool}`, no reading tool with rows",
                hint="name a tool that maps `rows`, does not write, and has no `resource` of its own",
            )


def _require_sql(name: str, settings: ToolSettings, used: Sequence[str], *, may_write: bool) -> None:
    declared, bound = set(settings.parameters), set(settings.bound)
    both = declared & bound
    if both:
        raise ConfigInvalid(
            f"tool `{name}`: `{min(both)}` is both a parameter and bound",
            hint="what is bound must not be in `parameters`",
        )
    if settings.writes and not may_write:
        raise ConfigInvalid(f"tool `{name}`: a statement cannot write", hint="write through an MCP server")
    missing = sorted(set(used) - declared - bound)
    if missing:
        raise ConfigInvalid(
            f"tool `{name}`: the statement uses `:{missing[0]}`, which nothing gives",
            hint="declare it under `parameters`, or set it under `bound`",
        )
    idle = sorted((declared | bound) - set(used))
    if idle:  # above all a bound one: a filter that was meant and is not there
        raise ConfigInvalid(f"tool `{name}`: the statement does not use `:{idle[0]}`", hint="use it, or remove it")
    unknown = sorted(set(settings.required) - declared)
    if unknown:
        raise ConfigInvalid(f"tool `{name}`: required `{unknown[0]}` is not among its parameters")


def _bound(tool: str, parameter: str, settings: ParameterSettings) -> Bound:
    constant = settings.constant is not msgspec.UNSET
    if sum((bool(settings.principal), settings.tenant, constant)) != 1:
        raise ConfigInvalid(
            f"tool `{tool}`: bound `{parameter}` needs exactly one source",
            hint="one of `principal: <attribute>`, `tenant: true`, `constant: <value>`",
        )
    if settings.principal:
        return Bound(parameter=parameter, source="principal", name=settings.principal)
    if settings.tenant:
        return Bound(parameter=parameter, source="tenant")
    value: Json = settings.constant  # type: ignore[assignment]  # YAML gave it, and it is not UNSET
    try:
        canonical({"constant": value})
    except ValueError as error:  # YAML knows dates, sets and bytes
        raise ConfigInvalid(
            f"tool `{tool}`: bound `{parameter}` is set to what JSON cannot say",
            hint='a date needs quotes: "2026-01-31"',
        ) from error
    return Bound(parameter=parameter, source="constant", value=value)


def _lookup(settings: ToolSettings) -> Lookup | None:
    found = settings.resource
    if found is None:
        return None
    return Lookup(tool=found.tool, argument=found.argument, parameter=found.parameter or found.argument)


def _rows(name: str, settings: ToolSettings) -> Rows | None:
    rows = settings.rows
    if rows is None:
        return None
    at = tuple(part for part in rows.at.split(".") if part)
    if settings.statement:
        at = ("rows",)  # where a statement's rows always are
    return _mapped(name, rows, at=at)


def _mapped(name: str, rows: RowsSettings, *, at: tuple[str, ...]) -> Rows:
    if rows.type in _OWN_TYPES:
        raise ConfigInvalid(f"tool `{name}`: `{rows.type}` is the gateway's own type", hint="name your own")
    return Rows(type=rows.type, at=at, id=rows.id, tenant=rows.tenant, attributes=row_attributes(rows))


def _pinned(tool: Tool, settings: ToolSettings, upstream: Mapping[str, Json] | None = None) -> Tool:
    """The tool with its definition's digest, which must be the pinned one where one is pinned. Raises ConfigInvalid."""
    own = msgspec.to_builtins(settings)
    own.pop("pin")
    if own["durability"] == "durable":  # the default says nothing new: a digest that is pinned stays as it is
        own.pop("durability")
    try:
        found = digest(canonical({"name": tool.name, "settings": own, "upstream": dict(upstream or {})}))
    except ValueError as error:
        raise ConfigInvalid(f"tool `{tool.name}` cannot be pinned: {error}") from error
    if settings.pin and settings.pin != found:
        raise ConfigInvalid(
            f"tool `{tool.name}` is not as pinned: its definition is `{found}`",
            hint="look at what its server says now; if it is right, write this digest under `pin`",
        )
    return replace(tool, definition=found)


def _listed(names: Mapping[str, Json]) -> str:
    return ", ".join(f"`{name[:64]}`" for name in sorted(names)[:20]) or "none"  # an upstream's own words: bounded
