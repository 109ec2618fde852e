"""What gateways remember together, as SQL to be read, kept and run by whoever owns the database.

The tables are the owner's, and the gateway's role may only read and write their rows: of revocations it may not even
delete one. Must not run SQL, nor know what a row means (the doors whose names end in `_postgres`).
"""

from __future__ import annotations

from onbehalf.validate.wall import quoted

__all__ = ["VERSION", "state_sql"]

VERSION = 2
"""Of the tables. A gateway runs on its own version only."""

_TABLES = """
CREATE TABLE IF NOT EXISTS onbehalf_state.version (number integer NOT NULL);
INSERT INTO onbehalf_state.version SELECT @VERSION@ WHERE NOT EXISTS (SELECT FROM onbehalf_state.version);
DO $same$
BEGIN
  IF EXISTS (SELECT FROM onbehalf_state.version WHERE number NOT IN (1, @VERSION@)) THEN
    RAISE EXCEPTION 'there are tables of another release, expected version @VERSION@';
  END IF;
  UPDATE onbehalf_state.version SET number = @VERSION@;  -- what is new is made below
END
$same$;

-- proofs of clients (RFC 9449) that were used; names are digests
CREATE TABLE IF NOT EXISTS onbehalf_state.proof (
  name bytea PRIMARY KEY, key text NOT NULL, until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS proof_key ON onbehalf_state.proof (key, until);
CREATE INDEX IF NOT EXISTS proof_until ON onbehalf_state.proof (until);

-- writing calls that were begun and done, and change sets that were shown; digests only
CREATE TABLE IF NOT EXISTS onbehalf_state.once (
  key text PRIMARY KEY, call text NOT NULL, arguments text NOT NULL, at bigint NOT NULL, until bigint NOT NULL,
  done boolean NOT NULL
);
CREATE INDEX IF NOT EXISTS once_until ON onbehalf_state.once (until);
CREATE TABLE IF NOT EXISTS onbehalf_state.shown (change text PRIMARY KEY, until bigint NOT NULL);
CREATE INDEX IF NOT EXISTS shown_until ON onbehalf_state.shown (until);

-- the sign-in broker: clients that registered, grants, codes and refresh tokens (digests), assertions that were used
CREATE TABLE IF NOT EXISTS onbehalf_state.client (
  id text PRIMARY KEY, metadata bytea NOT NULL, at bigint NOT NULL, used bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS client_used ON onbehalf_state.client (used);
CREATE TABLE IF NOT EXISTS onbehalf_state.granted (
  family text PRIMARY KEY, client text NOT NULL, subject text NOT NULL, tenant text NOT NULL, resource text NOT NULL,
  scope text NOT NULL, at bigint NOT NULL, until bigint NOT NULL, told bytea NOT NULL, key text NOT NULL,
  ended text NOT NULL DEFAULT '', ended_in xid8
);
CREATE INDEX IF NOT EXISTS granted_until ON onbehalf_state.granted (until);
CREATE INDEX IF NOT EXISTS granted_ended ON onbehalf_state.granted (ended_in) WHERE ended_in IS NOT NULL;
CREATE TABLE IF NOT EXISTS onbehalf_state.code (
  digest bytea PRIMARY KEY, family text NOT NULL REFERENCES onbehalf_state.granted ON DELETE CASCADE,
  until bigint NOT NULL, redirect_uri text NOT NULL, challenge text NOT NULL, key text NOT NULL, used boolean NOT NULL
);
CREATE INDEX IF NOT EXISTS code_family ON onbehalf_state.code (family);
CREATE TABLE IF NOT EXISTS onbehalf_state.refresh (
  digest bytea PRIMARY KEY, family text NOT NULL REFERENCES onbehalf_state.granted ON DELETE CASCADE,
  used boolean NOT NULL
);
CREATE INDEX IF NOT EXISTS refresh_family ON onbehalf_state.refresh (family);
CREATE TABLE IF NOT EXISTS onbehalf_state.assertion (
  name bytea PRIMARY KEY, until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS assertion_until ON onbehalf_state.assertion (until);

-- what people were asked to approve; what a call is about is sealed
CREATE TABLE IF NOT EXISTS onbehalf_state.approval (
  id text PRIMARY KEY, binding text NOT NULL, tenant text NOT NULL, person text NOT NULL, call text NOT NULL,
  approvers text NOT NULL, at bigint NOT NULL, until bigint NOT NULL,
  state text NOT NULL CHECK (state IN ('open', 'refused', 'used')), about bytea NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS approval_binding ON onbehalf_state.approval (binding) WHERE state <> 'used';
CREATE INDEX IF NOT EXISTS approval_person ON onbehalf_state.approval (tenant, person);
CREATE INDEX IF NOT EXISTS approval_until ON onbehalf_state.approval (until);
CREATE TABLE IF NOT EXISTS onbehalf_state.vote (
  approval text NOT NULL REFERENCES onbehalf_state.approval ON DELETE CASCADE, person text NOT NULL,
  at bigint NOT NULL, PRIMARY KEY (approval, person)
);

-- people's own logins at upstreams, sealed
CREATE TABLE IF NOT EXISTS onbehalf_state.account (
  tenant text NOT NULL, person text NOT NULL, upstream text NOT NULL, sealed bytea NOT NULL,
  renewing bigint NOT NULL DEFAULT 0, PRIMARY KEY (tenant, person, upstream)
);

-- who is stopped; a revocation is lifted, never removed
CREATE TABLE IF NOT EXISTS onbehalf_state.revocation (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('person', 'client', 'tenant', 'login')), tenant text NOT NULL CHECK (tenant <> ''),
  name text NOT NULL CHECK ((name = '') = (kind = 'tenant')), at bigint NOT NULL, blocks boolean NOT NULL,
  by text NOT NULL, reason text NOT NULL, lifted bigint, lifted_by text NOT NULL DEFAULT '',
  noted integer NOT NULL DEFAULT 0, changed_in xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX IF NOT EXISTS revocation_changed ON onbehalf_state.revocation (changed_in);

-- security events: until when tokens ended, one row for each whom a stream ever named; which events came; the streams
CREATE TABLE IF NOT EXISTS onbehalf_state.signalled (
  kind text NOT NULL CHECK (kind IN ('person', 'tenant', 'login')), tenant text NOT NULL CHECK (tenant <> ''),
  name text NOT NULL CHECK ((name = '') = (kind = 'tenant')), stream text NOT NULL,
  ended bigint NOT NULL DEFAULT 0, account bigint NOT NULL DEFAULT 0,
  changed_in xid8 NOT NULL DEFAULT pg_current_xact_id(), PRIMARY KEY (kind, tenant, name, stream)
);
CREATE INDEX IF NOT EXISTS signalled_changed ON onbehalf_state.signalled (changed_in);
CREATE TABLE IF NOT EXISTS onbehalf_state.signal (
  stream text NOT NULL, id text NOT NULL, until bigint NOT NULL, facts bytea NOT NULL,
  noted boolean NOT NULL DEFAULT false, claimed bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp())::bigint,
  PRIMARY KEY (stream, id)
);
CREATE INDEX IF NOT EXISTS signal_until ON onbehalf_state.signal (stream, until);
CREATE INDEX IF NOT EXISTS signal_open ON onbehalf_state.signal (claimed) WHERE NOT noted;
CREATE TABLE IF NOT EXISTS onbehalf_state.stream (
  name text PRIMARY KEY, heard bigint NOT NULL, status text NOT NULL DEFAULT 'enabled', asked text NOT NULL DEFAULT ''
);
"""
_TAKE_SIGNAL = """
-- Whether an event is new; then all that it comes to is done, with the rights of whoever calls this. One that is older
-- than another about the same account does not undo it. An account that was purged is not the one that is enabled.
CREATE OR REPLACE FUNCTION onbehalf_state.take_signal(
  stream_ text, id_ text, until_ bigint, facts_ bytea, now_ bigint, effects_ jsonb
) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $take$
DECLARE
  each jsonb; kind_ text; tenant_ text; name_ text; does_ text; what_ text; at_ bigint; ended_ bigint; account_ bigint;
  by_ text := 'signal ' || stream_;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('onbehalf signal ' || stream_, 0));
  INSERT INTO onbehalf_state.signal (stream, id, until, facts) VALUES (stream_, id_, until_, facts_)
  ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  FOR each IN SELECT value FROM jsonb_array_elements(effects_) WITH ORDINALITY AS told(value, n) ORDER BY n LOOP
    kind_ := each ->> 'kind'; tenant_ := each ->> 'tenant'; name_ := each ->> 'name';
    does_ := each ->> 'does'; what_ := each ->> 'what'; at_ := (each ->> 'at')::bigint;
    ended_ := 0; account_ := 0;
    SELECT s.ended, s.account INTO ended_, account_ FROM onbehalf_state.signalled s
    WHERE s.kind = kind_ AND s.tenant = tenant_ AND s.name = name_ AND s.stream = stream_;
    ended_ := coalesce(ended_, 0); account_ := coalesce(account_, 0);
    CONTINUE WHEN does_ IN ('block', 'let_go') AND at_ < account_;
    IF does_ = 'block' THEN
      INSERT INTO onbehalf_state.revocation (kind, tenant, name, at, blocks, by, reason)
      SELECT kind_, tenant_, name_, at_, true, by_, what_ || ' ' || id_
      WHERE NOT EXISTS (SELECT FROM onbehalf_state.revocation r
        WHERE r.kind = kind_ AND r.tenant = tenant_ AND r.name = name_ AND r.by = by_ AND r.blocks
        AND r.lifted IS NULL AND starts_with(r.reason, what_ || ' '));
    ELSIF does_ = 'let_go' THEN
      UPDATE onbehalf_state.revocation r SET lifted = now_, lifted_by = by_, changed_in = pg_current_xact_id()
      WHERE r.kind = kind_ AND r.tenant = tenant_ AND r.name = name_ AND r.by = by_ AND r.blocks
      AND r.lifted IS NULL AND r.at <= at_ AND starts_with(r.reason, 'account-disabled ');
    END IF;
    ended_ := CASE does_ WHEN 'let_go' THEN ended_ ELSE greatest(ended_, at_) END;
    account_ := CASE WHEN does_ IN ('block', 'let_go') THEN at_ ELSE account_ END;
    INSERT INTO onbehalf_state.signalled AS kept (kind, tenant, name, stream, ended, account)
    VALUES (kind_, tenant_, name_, stream_, ended_, account_)
    ON CONFLICT (kind, tenant, name, stream) DO UPDATE
    SET ended = excluded.ended, account = excluded.account, changed_in = pg_current_xact_id();
  END LOOP;
  RETURN true;
END
$take$;
"""
_TAKES = "onbehalf_state.take_signal(text, text, bigint, bytea, bigint, jsonb)"
_ROWS = (
    "proof", "once", "shown", "client", "granted", "code", "refresh", "assertion", "approval", "vote", "account",
    "signal",
)  # fmt: skip


def state_sql(*, role: str) -> str:
    """The script for psql that makes the tables and the role which the gateway's DSN names. It can be run again.

    Raises ConfigInvalid for what is no name of a role.
    """
    name = quoted(role)
    literal = "'" + role.replace("'", "''") + "'"
    tables = ", ".join(f"onbehalf_state.{each}" for each in _ROWS)
    return f"""\\set ON_ERROR_STOP on
BEGIN;
DO $made$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal}) THEN
    CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
  END IF;
END
$made$;
CREATE SCHEMA IF NOT EXISTS onbehalf_state;
REVOKE ALL ON SCHEMA onbehalf_state FROM PUBLIC;
{_TABLES.replace("@VERSION@", str(VERSION)).strip()}
{_TAKE_SIGNAL.rstrip()}

REVOKE ALL ON ALL TABLES IN SCHEMA onbehalf_state FROM PUBLIC, {name};
GRANT USAGE ON SCHEMA onbehalf_state TO {name};
GRANT SELECT ON onbehalf_state.version TO {name};
GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {name};
GRANT SELECT, INSERT, UPDATE (lifted, lifted_by, noted, changed_in) ON onbehalf_state.revocation TO {name};
GRANT SELECT, INSERT, UPDATE (ended, account, changed_in) ON onbehalf_state.signalled TO {name};
GRANT SELECT, INSERT, UPDATE (heard, status, asked) ON onbehalf_state.stream TO {name};
REVOKE ALL ON FUNCTION {_TAKES} FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {_TAKES} TO {name};
COMMIT;
"""  # noqa: S608  # a quoted name and our own words
