"""Whether the wall inside a database really stands, as one question to its catalogue, asked as the gateway's own role.

The answer is a row per hole: what it is, in a clause for a person. No row means that the wall stands as wall.py builds
it. What is not looked at: whoever is superuser there, functions of PostgreSQL itself that a superuser marked LEAKPROOF
by hand, and triggers, which run as the role that writes. Must not run SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from onbehalf.validate.wall import CLAIMED_BODY, TENANT_BODY, Walled, quoted

__all__ = ["HINT", "STANDING_SQL", "UNIQUE_SQL", "Standing"]

HINT = "run what `onbehalf db wall` prints as the owner of the tables, and take from the gateway's role what is named"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What to ask: `tables` that must be walled, `shared` ones without tenants, `own` as in wall.Plan, and whether
    the role may write. `values` are the parameters of STANDING_SQL, in order."""

    tables: Sequence[Walled]
    shared: Sequence[Walled]
    own: Sequence[str]
    writes: bool

    @property
    def values(self) -> list[str]:
        tables = [{"schema": each.schema, "name": each.name, "tenant": each.tenant} for each in self.tables]
        shared = [{"schema": each.schema, "name": each.name} for each in self.shared]
        also = "".join(f" OR ( SELECT pg_has_role(SESSION_USER, {_text(role)}::name, 'MEMBER'::text) AS pg_has_role)"
                       for role in self.own)  # fmt: skip
        return [
            orjson.dumps(tables).decode(), orjson.dumps(shared).decode(), also, "true" if self.writes else "false",
            CLAIMED_BODY, TENANT_BODY,
        ]  # fmt: skip


def _text(role: str) -> str:
    quoted(role)
    return "'" + role.replace("'", "''") + "'"


STANDING_SQL = r"""
WITH given AS (
  SELECT $1::text::jsonb AS tables, $2::text::jsonb AS shared, $3::text AS also, $4::text::boolean AS writes,
         $5::text AS claimed_body, $6::text AS tenant_body
), me AS (SELECT * FROM pg_roles WHERE rolname = current_user),
asked AS (
  SELECT a.schema, a.name, a.tenant, format('%I.%I', a.schema, a.name) AS shown, c.oid, c.relkind, c.relhasrules,
         c.relrowsecurity, c.relforcerowsecurity, t.attname, t.atttypid, k.collisdeterministic
    FROM given, jsonb_to_recordset(tables) AS a(schema text, name text, tenant text)
    LEFT JOIN pg_namespace n ON n.nspname = a.schema
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = a.name AND c.relkind IN ('r', 'p')
    LEFT JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = a.tenant AND NOT t.attisdropped
    LEFT JOIN pg_collation k ON k.oid = t.attcollation
), rule AS (
  SELECT asked.*, format(CASE WHEN atttypid = 'varchar'::regtype THEN '((%I)::text' ELSE '(%I' END, attname)
         || ' = ( SELECT onbehalf.tenant() AS tenant))' AS may
    FROM asked WHERE attname IS NOT NULL
), rules AS (
  SELECT rule.*, CASE WHEN also = '' THEN may ELSE '(' || may || also || ')' END AS must FROM rule, given
), policies AS (
  SELECT polrelid, polpermissive, polcmd, polroles, pg_get_expr(polqual, polrelid) AS qual,
         coalesce(pg_get_expr(polwithcheck, polrelid), pg_get_expr(polqual, polrelid)) AS written FROM pg_policy
), reached AS (
  SELECT c.oid, c.relkind, c.reloptions, format('%I.%I', n.nspname, c.relname) AS shown,
         n.nspname AS schema, c.relname AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
     AND n.nspname !~ '^pg_(toast|temp)'
     AND (has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
          OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE'))
     AND has_schema_privilege(n.oid, 'USAGE')
), run AS (
  SELECT p.*, format('%I.%I', n.nspname, p.proname) AS shown
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE p.oid >= 16384 AND has_function_privilege(p.oid, 'EXECUTE')
), claims AS (
  SELECT p.*, r.rolcanlogin OR r.rolsuper OR r.rolbypassrls AS weak, r.rolname
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles r ON r.oid = p.proowner
   WHERE n.nspname = 'onbehalf'
)
SELECT format('role %I is a superuser, whom no wall stops', rolname) FROM me WHERE rolsuper
UNION ALL SELECT format('role %I has BYPASSRLS', rolname) FROM me WHERE rolbypassrls
UNION ALL SELECT format('role %I may make roles, databases or replicas', rolname) FROM me
  WHERE rolcreaterole OR rolcreatedb OR rolreplication
UNION ALL SELECT format('the session logged in as %I and acts as %I', session_user, current_user)
  WHERE session_user <> current_user
UNION ALL SELECT format('role %I is a member of %s', current_user, m.roleid::regrole)
  FROM pg_auth_members m JOIN me ON m.member = me.oid
UNION ALL SELECT format('role %I owns %s', current_user, c.oid::regclass) FROM pg_class c JOIN me ON c.relowner = me.oid
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384 AND c.relnamespace <> pg_my_temp_schema()
UNION ALL SELECT format('role %I owns the schema %s', current_user, n.oid::regnamespace)
  FROM pg_namespace n JOIN me ON n.nspowner = me.oid WHERE n.nspname !~ '^pg_(toast_)?temp'
UNION ALL SELECT format('role %I owns the database', current_user) FROM pg_database d JOIN me ON d.datdba = me.oid
  WHERE d.datname = current_database()
UNION ALL SELECT format('the table %s is not there', shown) FROM asked WHERE oid IS NULL
UNION ALL SELECT format('the table %s has rewrite rules, which act as its owner', shown) FROM asked WHERE relhasrules
UNION ALL SELECT format('the table %s has no column %I', shown, tenant) FROM asked
  WHERE oid IS NOT NULL AND attname IS NULL
UNION ALL SELECT format('the column %I of %s is no text that is compared byte by byte', attname, shown) FROM asked
  WHERE attname IS NOT NULL AND (atttypid NOT IN ('text'::regtype, 'varchar'::regtype) OR NOT collisdeterministic)
UNION ALL SELECT format('row level security of %s is not enabled', shown) FROM asked WHERE NOT relrowsecurity
UNION ALL SELECT format('row level security of %s is not forced', shown) FROM asked WHERE NOT relforcerowsecurity
UNION ALL SELECT format('the table %s has no restrictive policy as the wall makes it', shown) FROM rules
  WHERE NOT EXISTS (SELECT FROM policies p WHERE p.polrelid = rules.oid AND NOT p.polpermissive AND p.polcmd = '*'
                    AND p.polroles = '{0}' AND p.qual = must AND p.written = must)
UNION ALL SELECT format('the table %s has no permissive policy for %I', shown, current_user) FROM rules, me
  WHERE NOT EXISTS (SELECT FROM policies p WHERE p.polrelid = rules.oid AND p.polpermissive AND p.polcmd = '*'
                    AND me.oid = ANY (p.polroles) AND p.qual = may AND p.written = may)
UNION ALL SELECT format('role %I may truncate %s, or lay triggers or references on it, past every policy',
                        current_user, shown)
  FROM asked WHERE oid IS NOT NULL AND has_table_privilege(oid, 'TRUNCATE, TRIGGER, REFERENCES')
UNION ALL SELECT format('role %I may write %s, and no tool of it does', current_user, shown) FROM asked, given
  WHERE oid IS NOT NULL AND NOT writes
    AND (has_table_privilege(oid, 'INSERT, UPDATE, DELETE') OR has_any_column_privilege(oid, 'INSERT, UPDATE'))
UNION ALL SELECT CASE WHEN relkind = 'v'
    THEN format('the view %s is not security_invoker, so it shows what its owner sees', shown)
    ELSE format('role %I reaches %s, which is neither under `tables` nor under `shared`', current_user, shown) END
  FROM reached, given
 WHERE oid NOT IN (SELECT oid FROM asked WHERE oid IS NOT NULL)
   AND NOT (relkind = 'v' AND EXISTS (
     SELECT FROM pg_options_to_table(reloptions)
      WHERE option_name = 'security_invoker' AND option_value IN ('true', 'on', '1', 'yes')))
   AND NOT EXISTS (SELECT FROM jsonb_to_recordset(shared) AS s(schema text, name text)
                    WHERE s.schema = reached.schema AND s.name = reached.name)
UNION ALL SELECT format('role %I may write %I.%I, which is shared by all tenants', current_user, s.schema, s.name)
  FROM given, jsonb_to_recordset(shared) AS s(schema text, name text), reached
 WHERE s.schema = reached.schema AND s.name = reached.name
   AND has_table_privilege(reached.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
UNION ALL SELECT format('role %I may run %s, which acts as its owner (SECURITY DEFINER)', current_user, shown)
  FROM run
  WHERE prosecdef AND oid NOT IN (SELECT oid FROM claims WHERE proname = 'claimed')
UNION ALL SELECT format('role %I may run %s, which is marked LEAKPROOF and so shown rows before the wall',
                        current_user, shown)
  FROM run WHERE proleakproof
UNION ALL SELECT 'there is no function onbehalf.claimed as the wall makes it' FROM given
  WHERE NOT EXISTS (SELECT FROM claims JOIN pg_language l ON l.oid = prolang
    WHERE proname = 'claimed' AND pronargs = 1 AND proargtypes[0] = 'integer'::regtype AND prorettype = 'text'::regtype
      AND lanname = 'plpgsql' AND prosrc = claimed_body AND prosecdef AND provolatile = 's' AND NOT weak
      AND proconfig = ARRAY['search_path=pg_catalog, pg_temp'])
UNION ALL SELECT 'there is no function onbehalf.tenant as the wall makes it' FROM given
  WHERE NOT EXISTS (SELECT FROM claims JOIN pg_language l ON l.oid = prolang
    WHERE proname = 'tenant' AND pronargs = 0 AND lanname = 'sql' AND prosrc = tenant_body AND prosqlbody IS NULL
      AND NOT prosecdef AND provolatile = 's' AND NOT weak AND proconfig IS NULL)
UNION ALL SELECT format('%I, which the claims belong to, may log in or passes by walls', rolname) FROM claims
  WHERE weak AND proname = 'claimed'
UNION ALL SELECT format('role %I may make things in the schema onbehalf', current_user)
  WHERE EXISTS (SELECT FROM pg_namespace WHERE nspname = 'onbehalf' AND has_schema_privilege(oid, 'CREATE'))
LIMIT 50
"""
"""One column of text, a row per hole. To be asked with the search path set to `pg_catalog`."""

UNIQUE_SQL = r"""
SELECT format('an error about the unique key %s of %I.%I tells that another tenant''s row exists',
              i.indexrelid::regclass, a.schema, a.name)
  FROM jsonb_to_recordset($1::text::jsonb) AS a(schema text, name text, tenant text)
  JOIN pg_namespace n ON n.nspname = a.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = a.name
  JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = a.tenant
  JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique AND NOT t.attnum = ANY (i.indkey::int2[])
 WHERE has_table_privilege(c.oid, 'INSERT, UPDATE')
 ORDER BY 1
"""
"""One column of text, a row per unique key that spans tenants, where the role may write. Takes `values[0]`."""
