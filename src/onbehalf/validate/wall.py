"""The wall inside a PostgreSQL database, as SQL to be read, kept and run by whoever owns the tables.

It knows nothing but tenants, on purpose: a row is of the tenant that a signed claim names, or it is not there. It
stands whatever a statement says, and does not share a line with what decides rows in the gateway. Must not run SQL, nor
say whether a wall stands (wall_standing.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onbehalf.config import PostgresUpstream
from onbehalf.errors import ConfigInvalid
from onbehalf.validate.wall_claim import CLAIM_SETTING, ClaimKey

__all__ = [
    "CLAIMED_BODY",
    "TENANT_BODY",
    "Plan",
    "Walled",
    "claims_sql",
    "key_sql",
    "plan",
    "quoted",
    "restrictive",
    "wall_sql",
]

_MAX_NAME = 63

CLAIMED_BODY = r"""
DECLARE
  form CONSTANT text := '^1\|[0-9a-f]{16}\|[0-9]{1,10}\|[0-9]{1,18}\|[0-9]{1,18}\|'
                        '([0-9a-f]{2})+\|([0-9a-f]{2})*\|[0-9a-f]{64}$';
  claim text := current_setting('@SETTING@', true);
  fields text[];
  pads onbehalf.keys%ROWTYPE;
BEGIN
  -- 1. the form, so that nothing below can fail on what somebody else has set
  IF claim IS NULL OR length(claim) > 4096 OR claim !~ form THEN
    RETURN NULL;
  END IF;
  fields := string_to_array(claim, '|');
  -- 2. this backend, this transaction, and not over
  IF fields[3]::bigint <> pg_backend_pid()
     OR fields[4]::bigint <> (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint
     OR fields[5]::bigint < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint THEN
    RETURN NULL;
  END IF;
  -- 3. the signature; both sides hashed once more, so that comparing them tells nothing by its time
  SELECT * INTO pads FROM onbehalf.keys WHERE id = fields[2];
  IF NOT FOUND OR sha256(decode(fields[8], 'hex')) <> sha256(
    sha256(pads.outer_pad || sha256(pads.inner_pad || convert_to(left(claim, -65), 'UTF8')))
  ) THEN
    RETURN NULL;
  END IF;
  RETURN convert_from(decode(fields[5 + part], 'hex'), 'UTF8');
END
""".replace("@SETTING@", CLAIM_SETTING)
"""What `onbehalf.claimed(part)` does: 1 is the tenant, 2 the person. NULL for every claim that does not hold."""

TENANT_BODY = "SELECT onbehalf.claimed(1)"
_PRINCIPAL_BODY = "SELECT onbehalf.claimed(2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walled:
    """A table: its schema, its name, and the column that names a row's tenant, "" where rows have none."""

    schema: str
    name: str
    tenant: str

    @classmethod
    def of(cls, table: str, tenant: str) -> Walled:
        """From `reviews` or `hr.reviews`; a bare name is in `public`. Raises ConfigInvalid."""
        schema, _, name = table.rpartition(".")
        for word in (schema or "public", name, *filter(None, [tenant])):
            quoted(word)
        return cls(schema=schema or "public", name=name, tenant=tenant)

    @property
    def text(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Whom the wall keeps in, and around what.

    `reader` and `writer` are the gateway's login roles; `writer` is "" where no tool writes. `owner` is a role without
    login that owns the key and the functions. `shared` are tables without tenants that the gateway may read, `own` the
    roles of the company's own programs, which see all rows as before.
    """

    tables: tuple[Walled, ...]
    shared: tuple[Walled, ...] = ()
    own: tuple[str, ...] = ()
    reader: str = "gw_ro"
    writer: str = ""
    owner: str = "onbehalf_owner"

    @property
    def gateway(self) -> tuple[str, ...]:
        return (self.reader, self.writer) if self.writer else (self.reader,)


def plan(settings: PostgresUpstream, *, reader: str = "gw_ro", writer: str = "gw_rw") -> Plan:
    """The wall that the configuration of one upstream asks for. Raises ConfigInvalid.

    The roles are those that its DSNs log in as; `writer` is left out where no tool of it writes.
    """
    writes = any(tool.writes for tool in settings.tools.values())
    tables = tuple(Walled.of(table, tenant) for table, tenant in settings.tables.items())
    shared = tuple(Walled.of(table, "") for table in settings.shared)
    both = sorted({table.text for table in tables} & {table.text for table in shared})
    if both or not tables:
        raise ConfigInvalid(
            f"{both[0]} stands under `tables` and under `shared`" if both else "no table has a tenant column",
            hint="under `tables` stand those of several tenants, each with its tenant column; others under `shared`",
        )
    return Plan(tables=tables, shared=shared, own=settings.own_roles, reader=reader, writer=writer if writes else "")


def quoted(name: str) -> str:
    """A name as SQL says it. Raises ConfigInvalid for what PostgreSQL would cut or cannot hold."""
    if not name or "\0" in name or len(name.encode()) > _MAX_NAME:
        raise ConfigInvalid(f"`{name[:80]}` is no name of a table, column or role", hint="1 to 63 bytes")
    return '"' + name.replace('"', '""') + '"'


def restrictive(tenant: str, own: Iterable[str]) -> str:
    """What must hold for a row whatever else holds, as SQL: its tenant is the claimed one.

    A session that a role of the company's own programs logged in for is let through. It is asked who logged in, not
    who acts now: a view or function of theirs that the gateway reaches gives it nothing.
    """
    rule = f"{quoted(tenant)} = (SELECT onbehalf.tenant())"
    for role in own:
        rule += f" OR (SELECT pg_has_role(session_user, {_text(role)}, 'MEMBER'))"
    return rule


def wall_sql(plan: Plan) -> str:
    """The whole wall as SQL: it can be run again, and holds no secret. Raises ConfigInvalid."""
    parts = [_HEAD, *_roles(plan), _claims(plan)]
    parts += [_walled(plan, table) for table in plan.tables]
    parts += [_shared(plan, table) for table in plan.shared]
    parts += [_TAIL.replace("@OWNER@", quoted(plan.owner))]
    return "\n".join(parts)


def claims_sql(users: Iterable[str], *, owner: str = "onbehalf_owner") -> str:
    """The part of the wall that says which claim holds, and no table of it: for policies of one's own.

    `users` are the roles that set claims; they exist already. Raises ConfigInvalid.
    """
    attributes = "NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT"
    made = _ROLE.format(role=quoted(owner), text=_text(owner), login="NOLOGIN", attributes=attributes)
    plan = Plan(tables=(), owner=owner)
    claims = _claims(plan).replace(_names(plan.gateway), _names(users))
    return "\n".join([_HEAD, made, claims, f"REVOKE {quoted(owner)} FROM CURRENT_USER;", "COMMIT;", ""])


def key_sql(key: ClaimKey) -> str:
    """The statement that makes a key known to the database. It holds the secret: give it to psql, never to a file."""
    return (
        "INSERT INTO onbehalf.keys (id, inner_pad, outer_pad) VALUES "  # noqa: S608  # hex digits, nothing else
        f"('{key.id}', '\\x{key.inner.hex()}', '\\x{key.outer.hex()}') ON CONFLICT (id) DO NOTHING;\n"
    )


def _roles(plan: Plan) -> list[str]:
    attributes = "NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT"
    parts = [_ROLE.format(role=quoted(plan.owner), text=_text(plan.owner), login="NOLOGIN", attributes=attributes)]
    for role in plan.gateway:
        parts.append(_ROLE.format(role=quoted(role), text=_text(role), login="LOGIN", attributes=attributes))
    parts.append(f"ALTER ROLE {quoted(plan.reader)} SET default_transaction_read_only = on;")
    return parts


def _claims(plan: Plan) -> str:
    return (
        _CLAIMS.replace("@OWNER@", quoted(plan.owner))
        .replace("@GATEWAY@", _names(plan.gateway))
        .replace("@CLAIMED@", CLAIMED_BODY)
        .replace("@TENANT@", TENANT_BODY)
        .replace("@PRINCIPAL@", _PRINCIPAL_BODY)
    )


def _walled(plan: Plan, table: Walled) -> str:
    must = restrictive(table.tenant, plan.own)
    may = restrictive(table.tenant, ())
    lines = [
        f"\n-- {table.schema}.{table.name}",
        f"ALTER TABLE {table.text} ENABLE ROW LEVEL SECURITY;",
        f"ALTER TABLE {table.text} FORCE ROW LEVEL SECURITY;",
        f"DROP POLICY IF EXISTS onbehalf_wall ON {table.text};",
        f"CREATE POLICY onbehalf_wall ON {table.text} AS RESTRICTIVE TO PUBLIC",
        f"  USING ({must})\n  WITH CHECK ({must});",
        f"DROP POLICY IF EXISTS onbehalf_rows ON {table.text};",
        f"CREATE POLICY onbehalf_rows ON {table.text} TO {_names(plan.gateway)}",
        f"  USING ({may})\n  WITH CHECK ({may});",
        f"DROP POLICY IF EXISTS onbehalf_own ON {table.text};",
    ]
    if plan.own:
        lines.append(
            f"CREATE POLICY onbehalf_own ON {table.text} TO {_names(plan.own)} USING (true) WITH CHECK (true);"
        )
    lines.append(f"GRANT USAGE ON SCHEMA {quoted(table.schema)} TO {_names(plan.gateway)};")
    lines.append(f"REVOKE ALL ON {table.text} FROM {_names(plan.gateway)};")
    lines.append(f"GRANT SELECT ON {table.text} TO {_names(plan.gateway)};")
    if plan.writer:
        lines.append(f"GRANT INSERT, UPDATE, DELETE ON {table.text} TO {quoted(plan.writer)};")
    return "\n".join(lines)


def _shared(plan: Plan, table: Walled) -> str:
    return (
        f"\n-- {table.schema}.{table.name}: no tenants, read by all\n"
        f"GRANT USAGE ON SCHEMA {quoted(table.schema)} TO {_names(plan.gateway)};\n"
        f"GRANT SELECT ON {table.text} TO {_names(plan.gateway)};"
    )


def _names(roles: Iterable[str]) -> str:
    return ", ".join(quoted(role) for role in roles)


def _text(value: str) -> str:
    quoted(value)
    return "'" + value.replace("'", "''") + "'"


_HEAD = r"""-- The wall of a gateway inside PostgreSQL: a row is there only for the tenant that a signed claim names.
-- Run it as the owner of the tables or a superuser; running it again changes nothing. It holds no secret.
\set ON_ERROR_STOP on
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
"""

_ROLE = """DO $roles$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {text}) THEN
    CREATE ROLE {role} {login} {attributes};
  ELSIF EXISTS (SELECT FROM pg_roles WHERE rolname = {text} AND (rolsuper OR rolbypassrls)) THEN
    RAISE EXCEPTION 'role % passes by every wall: give the gateway another', {text};
  END IF;
END $roles$;"""

_CLAIMS = """
-- The claim: kept by a role that nobody can log in as; the gateway cannot read the key that it is checked with.
GRANT @OWNER@ TO CURRENT_USER;
CREATE SCHEMA IF NOT EXISTS onbehalf AUTHORIZATION @OWNER@;
CREATE TABLE IF NOT EXISTS onbehalf.keys (id text PRIMARY KEY, inner_pad bytea NOT NULL, outer_pad bytea NOT NULL);
ALTER TABLE onbehalf.keys OWNER TO @OWNER@;
REVOKE ALL ON onbehalf.keys FROM PUBLIC, @GATEWAY@;
CREATE OR REPLACE FUNCTION onbehalf.claimed(part integer) RETURNS text
  LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $wall$@CLAIMED@$wall$;
CREATE OR REPLACE FUNCTION onbehalf.tenant() RETURNS text
  LANGUAGE sql STABLE PARALLEL RESTRICTED AS $wall$@TENANT@$wall$;
CREATE OR REPLACE FUNCTION onbehalf.principal() RETURNS text
  LANGUAGE sql STABLE PARALLEL RESTRICTED AS $wall$@PRINCIPAL@$wall$;
ALTER FUNCTION onbehalf.claimed(integer) OWNER TO @OWNER@;
ALTER FUNCTION onbehalf.tenant() OWNER TO @OWNER@;
ALTER FUNCTION onbehalf.principal() OWNER TO @OWNER@;
-- Anybody may ask which claim holds in their own transaction: without one that was signed, none does.
REVOKE ALL ON SCHEMA onbehalf FROM PUBLIC, @GATEWAY@;
GRANT USAGE ON SCHEMA onbehalf TO PUBLIC;
GRANT EXECUTE ON FUNCTION onbehalf.claimed(integer), onbehalf.tenant(), onbehalf.principal() TO PUBLIC;"""

_TAIL = """
REVOKE @OWNER@ FROM CURRENT_USER;
COMMIT;

-- Left to you:
-- 1. passwords:    \\password gw_ro        (and so on; the gateway logs in with them)
-- 2. the key:      onbehalf db wall --key | psql ...
-- 3. views that the gateway may read must be made WITH (security_invoker = true): any other passes by the wall.
-- 4. functions it may run must be neither SECURITY DEFINER nor LEAKPROOF; a function so marked is shown other rows.
-- 5. unique keys should begin with the tenant column: an error about one tells that another tenant's row exists.
-- The gateway looks at all this before it serves, and refuses to where the wall does not stand.
"""
