"""A PostgreSQL database as an upstream: each tool is one statement that the configuration fixed, its values bound.

One call is one transaction: read-only for a tool that does not write, with a claim for the caller's tenant that the
database's own wall checks, and with bounds on time, rows and bytes that the server keeps. Must not decide which rows
may be shown, nor know configuration files.

Trust: whoever owns this database decides what people read. What a statement forgets to narrow, the wall still does;
the gateway's roles can neither read the wall's key nor pass by it, and no call is made where it does not stand.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import orjson
from psycopg import AsyncConnection, AsyncRawCursor, Error, OperationalError, errors
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests
from psycopg_pool.errors import PoolClosed

from onbehalf.doors.upstream_postgres_statement import Compiled, NotBindable, bound, compile_statement
from onbehalf.doors.wall_postgres import BEGIN_SQL, SETTINGS_SQL, TAG, Wall, WallDown
from onbehalf.errors import ConfigInvalid
from onbehalf.model import CallToken, Done, Failed, Json, Outcome, Predicate, ToolCall, digest
from onbehalf.strict_json import NotStrict, strict_json
from onbehalf.validate.paging import ALIAS as PAGED
from onbehalf.validate.pushdown_sql import ALIAS, SCOPE_MARK
from onbehalf.validate.wall_standing import HINT

__all__ = ["PostgresUpstream", "Role", "Statement"]

_Connection = AsyncConnection[TupleRow]

_MAX_BYTES = 4 * 2**20
_KEPT = 512
"""Texts of scoped statements: one for each way in which what is fixed for a call folds."""
_DEPTH = 64
_WAITING = 256
_GRACE_SECONDS = 0.5
"""How long past its deadline a server may take to stop a statement; then the connection is given up."""
_LIFETIME_SECONDS = 600.0
"""After at most this long a connection is made anew, and the wall looked at again."""
_OPEN_SECONDS = 20.0
_AT = ("rows",)
_UNFIT = frozenset({"22P02", "22P03", "22003", "22007", "22008", "22021", "22023", "22030", "22032"})
"""What PostgreSQL says of text that is no value of a parameter's type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A tool's statement as configured, and whether it changes anything."""

    text: str
    writes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """How the gateway logs in to read or to write. `wall` is None only where none is wanted."""

    dsn: str = field(repr=False)
    wall: Wall | None


class _Refused(Exception):
    """The answer, or an argument, cannot go on; `failed` says why, and nothing has changed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.failed = _failed(code, message)


class _Login:
    """One role's connections. `problem` is why the last one that was made could not be used."""

    def __init__(self, role: Role, *, connections: int, timeout: float) -> None:
        self.wall = role.wall
        self.problem = ""
        self.warnings: tuple[str, ...] = ()
        self.pool: AsyncConnectionPool[_Connection] = AsyncConnectionPool(
            role.dsn,
            connection_class=AsyncConnection[TupleRow],
            kwargs={"autocommit": True, "cursor_factory": AsyncRawCursor},
            min_size=0,
            max_size=connections,
            max_waiting=_WAITING,
            max_lifetime=_LIFETIME_SECONDS,
            timeout=timeout,
            reconnect_timeout=timeout,
            open=False,
            configure=self._configured,
            reset=_reset,
        )

    async def _configured(self, connection: _Connection) -> None:
        """A new connection is looked at before it is used; what is no wall is no connection. Raises WallDown."""
        if self.wall is None:
            return
        try:
            await self.wall.look(connection)
        except WallDown as error:
            self.problem = str(error)
            raise
        self.problem = ""


class PostgresUpstream:
    """The Upstream port on one database. Made by `open` on the loop that it serves, ended by `aclose`."""

    def __init__(
        self,
        logins: Mapping[bool, _Login],
        compiled: Mapping[str, tuple[Statement, Compiled]],
        *,
        audience: str,
        timeout: float,
        max_rows: int,
    ) -> None:
        self._logins = dict(logins)  # by whether the tool writes
        self._compiled = dict(compiled)
        self._audience = audience
        self._timeout = timeout
        self._max_rows = max_rows
        self._narrowed: OrderedDict[tuple[str, str, str], Compiled] = OrderedDict()

    @classmethod
    async def open(
        cls,
        reader: Role,
        writer: Role | None,
        *,
        audience: str,
        statements: Mapping[str, Statement],
        timeout: float,  # noqa: ASYNC109  # of each call to come, not of opening
        max_rows: int,
        connections: int = 4,
    ) -> PostgresUpstream:
        """Look at the wall, and try every statement (by the tools' remote names) without running it.

        `timeout` is in seconds, of one call with all its waiting. More than `max_rows` rows, or 4 MiB, are a failure
        and never cut. Tools that write need a `writer`. Raises ConfigInvalid.
        """
        logins: dict[bool, _Login] = {}
        compiled: dict[str, tuple[Statement, Compiled]] = {}
        for writes, role in ((False, reader), (True, writer)):
            own = {name: each for name, each in statements.items() if each.writes == writes}
            if role is None:
                if own:
                    raise ConfigInvalid(
                        f"tool `{min(own)}` writes, and no role may", hint="name the role that writes under `writer`"
                    )
                continue
            logins[writes] = _Login(role, connections=connections, timeout=timeout)
            compiled |= await _tried(role, logins[writes], own, max_rows)
        door = cls(logins, compiled, audience=audience, timeout=timeout, max_rows=max_rows)
        for login in logins.values():
            await login.pool.open()
        return door

    @property
    def audience(self) -> str:
        return self._audience

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a wall that stands still lets through, each a clause for a person."""
        return tuple(each for login in self._logins.values() for each in login.warnings)

    def parameters(self, remote: str) -> tuple[str, ...]:
        """Names of the parameters that this tool's statement uses."""
        return self._compiled[remote][1].parameters

    def columns(self, remote: str) -> tuple[str, ...]:
        """Names of the columns that this tool's statement gives, in their order."""
        return self._compiled[remote][1].columns

    async def send(self, call: ToolCall, token: CallToken) -> Outcome:
        """Run the tool's statement once, in a transaction of its own. `token` stays here: a database cannot check one;
        it gets a claim instead, for the caller's tenant. `unknown` is True only where a commit got no answer."""
        found = self._compiled.get(call.tool.remote)
        if found is None:
            return _failed("unknown_tool", "no statement of that name")
        granted = token.grant.allow.call
        if token.grant.audience != self._audience or (granted.id, granted.digest) != (call.id, call.digest):
            return _failed("wrong_grant", "the call token is not for this call here")
        statement, compiled = found
        if call.tool.pages is not None and (call.page is None or call.page.tail is None):
            return _failed("unpaged", "a tool with pages was called without one")
        if (call.tool.scoped or call.tool.explores is not None) and call.where is None:
            return _failed("unscoped", "a scoped tool was called without its predicate")
        act = _Act(
            call=call, login=self._logins[statement.writes], statement=statement, compiled=compiled,
            narrowed=self._narrowed, timeout=self._timeout, max_rows=self._max_rows,
            tag=f"{TAG}{call.id}.{token.grant.receipt.index}",
        )  # fmt: skip
        outcome = await act.done()
        unfit = isinstance(outcome, Failed) and outcome.code in _UNFIT_QUERY
        return _FAILED_QUERY if call.tool.explores is not None and unfit else outcome

    async def aclose(self) -> None:
        """End all connections; what is running then fails."""
        for login in self._logins.values():
            await login.pool.close(timeout=_GRACE_SECONDS)


@dataclass(slots=True, kw_only=True)
class _Act:
    """One call on its way through the database. `committing` from when its effect may be there without an answer."""

    call: ToolCall
    login: _Login
    statement: Statement
    compiled: Compiled
    narrowed: OrderedDict[tuple[str, str, str], Compiled]
    timeout: float
    max_rows: int
    tag: str
    committing: bool = False

    async def done(self) -> Outcome:
        try:
            async with asyncio.timeout(self.timeout + _GRACE_SECONDS):
                async with self.login.pool.connection(timeout=self.timeout) as connection:
                    lines = await self._run(connection)
            return _answer(lines, self.call.tool.rows.at if self.call.tool.rows is not None else _AT)
        except _Refused as error:
            return error.failed
        except NotBindable as error:
            return _failed("arguments_refused", str(error))
        except ConfigInvalid as error:
            return _failed("upstream_error", f"the predicate does not fit the tables: {error.message}")
        except (PoolTimeout, TooManyRequests, PoolClosed) as error:
            return self._unreached(error)
        except TimeoutError:
            return self._lost("upstream_timed_out", "the statement took too long and was stopped")
        except Error as error:
            here = asyncio.current_task()
            if here is not None and here.cancelling():  # the driver tells of a cancelled statement in its own words
                raise asyncio.CancelledError from error
            return self._mishap(error)
        except Exception as error:  # whatever nobody thought of is a failure on record, not a call without outcome
            return self._lost("upstream_error", f"the statement failed: {type(error).__name__}")

    async def _run(self, connection: _Connection) -> list[str]:
        """The rows as JSON texts, committed, or for a dry call taken back. Raises _Refused, NotBindable, ConfigInvalid,
        psycopg.Error; the pool then rolls back."""
        call, writes = self.call, self.statement.writes
        arguments = cast(dict[str, Json], orjson.loads(call.arguments))
        compiled = await self._on(connection) if call.where or call.page else self.compiled
        own = {} if call.tool.explores is not None else arguments  # of which the model's SELECT is none to bind
        tail = call.page.tail if call.page is not None else None
        values = bound(compiled, {**own, **_bound_by(call.where), **_bound_by(tail)})
        # one journey for both: a simple query may hold two statements, which must not be prepared
        mode = "READ WRITE" if writes else "READ ONLY"
        begun = await connection.execute(f"BEGIN {mode}; {BEGIN_SQL}", prepare=False)
        begun.nextset()
        pid, started = await begun.fetchone() or (0, 0)
        settings = [self._claim(pid, started), f"{int(self.timeout * 1000)}ms", self.tag]
        await connection.execute(SETTINGS_SQL, settings)
        await self._require_cheap(connection, compiled, values)
        lines = await (await connection.execute(compiled.text, values)).fetchall()
        if len(lines) > self.max_rows:
            raise _Refused("too_many_rows", f"more than {self.max_rows} rows; nothing is cut off silently")
        if lines and lines[-1][0] is None:
            raise _Refused("result_too_large", f"more than {_MAX_BYTES} bytes; nothing is cut off silently")
        found = [line[0] for line in lines]
        if call.expected and _changed(found) != call.expected:
            raise _Refused("change_stale", "something else would change than what was tried; nothing was done")
        self.committing = writes and not call.dry
        await connection.execute("ROLLBACK" if call.dry else "COMMIT")
        self.committing = False
        return found

    async def _require_cheap(self, connection: _Connection, compiled: Compiled, values: Sequence[str | None]) -> None:
        """What a model wrote must not cost more than its tool allows, as far as PostgreSQL can tell before."""
        explores = self.call.tool.explores
        if explores is None or explores.max_cost == 0:
            return
        told = await connection.execute(f"EXPLAIN (FORMAT JSON) {compiled.text}", values, prepare=False)
        plan = (await told.fetchone() or ([],))[0]
        if not plan or float(plan[0]["Plan"]["Total Cost"]) > explores.max_cost:
            raise _Refused("query_too_costly", "the query would take too much work")

    async def _on(self, connection: _Connection) -> Compiled:
        """The statement on the rows that are let through, or on a page; the server looks at each text of it once."""
        where, page = self.call.where, self.call.page
        key = (self.call.tool.remote, where.sql if where else "", page.tail.sql if page and page.tail else "")
        found = self.narrowed.get(key)
        if found is None:
            body = self.statement.text.rstrip().rstrip(";")
            text = body
            if where is not None and self.call.tool.explores is not None:
                text = where.sql
            elif where is not None and self.statement.writes:
                text = body.replace(SCOPE_MARK, f"({where.sql})")
            elif where is not None:
                text = f"SELECT * FROM (\n{body}\n) AS {ALIAS} WHERE {where.sql}"  # noqa: S608  # no values in it
            if page is not None and page.tail is not None:
                text = f"SELECT * FROM (\n{text}\n) AS {PAGED} {page.tail.sql}"  # noqa: S608  # as above
            asked = Statement(text=text, writes=self.statement.writes)
            found = await asyncio.to_thread(_compiled, connection, self.call.tool.name, asked, self.max_rows)
            self.narrowed[key] = found
            if len(self.narrowed) > _KEPT:
                self.narrowed.popitem(last=False)
        return found

    def _claim(self, pid: int, started: int) -> str:
        wall = self.login.wall
        if wall is None:
            return ""
        tenant = self.call.caller.tenant
        principal = self.call.person.own_id  # of a service no person's, so that no row policy takes it for one
        seconds = self.timeout + _GRACE_SECONDS
        return wall.claim(tenant=tenant, principal=principal, pid=pid, started=started, seconds=seconds)

    def _unreached(self, error: Exception) -> Failed:
        if self.login.problem:
            return _failed("wall_down", self.login.problem)
        if isinstance(error, PoolTimeout):
            return _failed("upstream_unavailable", "no connection to the database came free in time")
        return _failed("upstream_busy", "closed, or too many calls waiting")

    def _mishap(self, error: Error) -> Failed:
        """What went wrong without a word of the server's own: its messages quote data, and name keys of other rows."""
        state = error.sqlstate or ""
        if isinstance(error, errors.QueryCanceled):
            return _failed("upstream_timed_out", "the statement took too long and was stopped")
        if state.startswith("23") or isinstance(error, errors.InsufficientPrivilege):
            return _failed("upstream_refused", "the database refuses this change or this read")
        if state in _UNFIT:
            return _failed("arguments_refused", f"a value does not fit the statement ({state})")
        if not state or isinstance(error, OperationalError):
            return self._lost("upstream_unavailable", f"the database cannot be reached ({state or 'connection lost'})")
        return _failed("upstream_error", f"the statement failed ({state})")

    def _lost(self, code: str, message: str) -> Failed:
        return Failed(code=code, message=message[:300], unknown=self.committing)


async def _tried(
    role: Role, login: _Login, statements: Mapping[str, Statement], max_rows: int
) -> dict[str, tuple[Statement, Compiled]]:
    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            async with await AsyncConnection.connect(
                role.dsn, autocommit=True, cursor_factory=AsyncRawCursor
            ) as connection:
                if role.wall is not None:
                    await role.wall.look(connection)
                    login.warnings = await role.wall.warnings(connection)
                return {
                    name: (each, await asyncio.to_thread(_compiled, connection, name, _everywhere(each), max_rows))
                    for name, each in statements.items()
                }
    except WallDown as error:
        raise ConfigInvalid(str(error), hint=HINT) from error
    except (Error, TimeoutError) as error:
        raise ConfigInvalid(
            f"the database cannot be read: {type(error).__name__}",
            hint="look at its DSN, its server and the role's password",
        ) from error


def _everywhere(statement: Statement) -> Statement:
    """A statement with the place for its condition filled by none: for being tried, never for a call."""
    return Statement(text=statement.text.replace(SCOPE_MARK, "TRUE"), writes=statement.writes)


def _compiled(connection: _Connection, name: str, statement: Statement, max_rows: int) -> Compiled:
    return compile_statement(
        connection.pgconn, name, statement.text, writes=statement.writes, max_rows=max_rows, max_bytes=_MAX_BYTES
    )


async def _reset(connection: _Connection) -> None:
    """What a statement set beyond its transaction must not meet the next caller."""
    await connection.execute("RESET ALL")


def _answer(lines: list[str], at: tuple[str, ...]) -> Outcome:
    """The rows as an MCP result, at the place where the tool's row mapping looks for them; by default under `rows`."""
    try:
        value: Json = strict_json(("[" + ",".join(lines) + "]").encode(), depth=_DEPTH)
        for key in reversed(at):
            value = {key: value}
        text = orjson.dumps(value).decode()
    except (NotStrict, UnicodeError, TypeError) as error:
        raise _Refused(
            "result_refused", "a column holds JSON that could be read in two ways, or is too deep"
        ) from error
    content: dict[str, Json] = {"content": [{"type": "text", "text": text}], "structuredContent": value}
    return Done(content=content | {"isError": False}, digest=_changed(lines))


def _changed(lines: list[str]) -> str:
    """The digest over what a statement wrote, as it says itself."""
    return digest("\n".join(lines).encode())


def _bound_by(part: Predicate | None) -> Mapping[str, Json]:
    return {} if part is None else part.parameters


def _failed(code: str, message: str) -> Failed:
    return Failed(code=code, message=message[:300], unknown=False)


_UNFIT_QUERY = frozenset({"upstream_error", "upstream_refused", "arguments_refused", "result_refused"})
_FAILED_QUERY = _failed("query_failed", "the database did not take the query as it is, or could not compute it")
"""One sentence for all: what the database says, and which of its errors it is, could be about what it read."""
