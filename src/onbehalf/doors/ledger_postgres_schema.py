"""The ledger in PostgreSQL, as SQL to be read, kept and run by whoever owns the database.

Tables that nobody may write, and functions that are the only way to write them: they append, and cannot change or
remove what stands. Roles by what they may do. People's keys are ledger_postgres_keys.py's, changes of the log's own
keys ledger_postgres_handover_sql.py's, kept heads ledger_postgres_heads_schema.py's. Must not connect.

Trust: the owner of the schema, and every superuser, can destroy the record or change it. Without `log.key` they cannot
do so unseen by whoever kept a checkpoint.
"""

from __future__ import annotations

from onbehalf.doors.ledger_postgres_handover_sql import HANDOVER_SQL, REKEYED, handover_grants
from onbehalf.doors.ledger_postgres_heads_schema import HEADS_SQL
from onbehalf.doors.ledger_postgres_keys import KEY_GONE, KEYS_SQL, keys_grants
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.checkpoint import NoteSigner

__all__ = ["FENCED", "LOCK_SPACE", "PRESENT", "ROLES", "STOPPED", "schema_sql"]

LOCK_SPACE = 0x6F626C67
"""The first half of the advisory locks by which replicas show that they are there; the second is their number."""
FENCED, _STALE, PRESENT, STOPPED = "OB001", "OB002", "OB003", "OB007"
_LAST = "witness_refused"
ROLES = {
    "writer": "onbehalf_log_writer", "reader": "onbehalf_log_reader", "eraser": "onbehalf_log_eraser",
    "rekeyer": "onbehalf_log_rekeyer",
}  # fmt: skip
_OWNER = "onbehalf_log_owner"

_BEFORE = f"""\
-- The record of onbehalf: tables, the functions that append to them, and roles. It can be run again.
-- Run it as a superuser, or as one who may create roles and schemas in this database.
BEGIN;
SET LOCAL client_min_messages = warning;
DO $$
DECLARE
  role text;
BEGIN
  IF current_setting('server_encoding') <> 'UTF8' THEN
    RAISE EXCEPTION 'the record needs a database in UTF8';
  END IF;
  FOREACH role IN ARRAY ARRAY['{_OWNER}', '{"', '".join(ROLES.values())}'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    END IF;
  END LOOP;
  IF NOT pg_has_role(current_user, '{_OWNER}', 'MEMBER') THEN
    EXECUTE format('GRANT {_OWNER} TO %I', current_user);
  END IF;
END $$;
CREATE SCHEMA IF NOT EXISTS onbehalf_log AUTHORIZATION {_OWNER};
CREATE SCHEMA IF NOT EXISTS onbehalf_keys AUTHORIZATION {_OWNER};
SET LOCAL ROLE {_OWNER};
"""

_TABLES = """
CREATE TABLE IF NOT EXISTS onbehalf_log.leaf(
  idx bigint PRIMARY KEY, event uuid NOT NULL UNIQUE, hash bytea NOT NULL, entry bytea NOT NULL,
  call text NOT NULL, at bigint NOT NULL, replica integer NOT NULL
);
CREATE INDEX IF NOT EXISTS leaf_call ON onbehalf_log.leaf(call COLLATE "C");
CREATE TABLE IF NOT EXISTS onbehalf_log.payload(idx bigint PRIMARY KEY, sealed bytea NOT NULL);
ALTER TABLE onbehalf_log.payload ALTER COLUMN sealed SET STORAGE EXTERNAL;  -- what is sealed does not compress
CREATE TABLE IF NOT EXISTS onbehalf_log.head(
  one boolean PRIMARY KEY CHECK (one), size bigint NOT NULL, root bytea NOT NULL, note text NOT NULL,
  epoch bigint NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE IF NOT EXISTS onbehalf_log.replica(
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, low bigint NOT NULL,
  since timestamptz NOT NULL DEFAULT now(), gone timestamptz
) WITH (fillfactor = 10);
ALTER TABLE onbehalf_log.replica ADD COLUMN IF NOT EXISTS barred boolean NOT NULL DEFAULT false;
"""

_LOCKED = """
-- The head, locked until the transaction ends, for a replica that is not taken for gone, that has the log's keys, and
-- that was not there when a witness disowned the log.
CREATE OR REPLACE FUNCTION onbehalf_log.lock_head(me integer)
RETURNS TABLE(size bigint, root bytea, note text, epoch bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stopped boolean;
BEGIN
  SELECT h.size, h.root, h.note, h.epoch INTO STRICT size, root, note, epoch FROM onbehalf_log.head h FOR UPDATE;
  -- a statement of its own, so that it sees what others committed before they let go of the head
  SELECT r.barred INTO stopped FROM onbehalf_log.replica r WHERE r.id = me AND r.gone IS NULL;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'replica % was taken for gone', me USING ERRCODE = '@FENCED@';
  END IF;
  IF onbehalf_log.former(me) THEN
    RAISE EXCEPTION 'replica % has former keys of the log', me USING ERRCODE = '@REKEYED@';
  END IF;
  IF stopped THEN
    RAISE EXCEPTION 'a witness disowned the log' USING ERRCODE = '@STOPPED@';
  END IF;
  RETURN NEXT;
END $$;
"""

_ENTER = """
-- Leaves, payloads and the new head over them. It appends where the head says that the log ends, and by the head's key,
-- or does nothing. Keys of people are destroyed under the lock on the head, so a key that is there now is there when
-- this commits. A leaf that says that a witness disowned the log is the last one of every replica that is there.
CREATE OR REPLACE FUNCTION onbehalf_log.enter(
  me integer, seen bigint, first bigint, entries bytea[], sealed bytea[], new_root bytea, new_note text, new_low bigint
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was record;
BEGIN
  SELECT size, epoch, note INTO STRICT was FROM onbehalf_log.head FOR UPDATE;
  IF was.size IS DISTINCT FROM first OR was.epoch IS DISTINCT FROM seen
     OR cardinality(entries) IS DISTINCT FROM cardinality(sealed)
     OR split_part(new_note, E'\\n', 2) IS DISTINCT FROM (first + cardinality(entries))::text THEN
    RAISE EXCEPTION 'the log ends at %, not at %', was.size, first USING ERRCODE = '@STALE@';
  END IF;
  IF onbehalf_log.signer(new_note) IS DISTINCT FROM onbehalf_log.signer(was.note) THEN
    RAISE EXCEPTION 'the head is by another key than the one before it' USING ERRCODE = '@REKEYED@';
  END IF;
  IF EXISTS (SELECT FROM unnest(sealed) AS s WHERE substr(s, 1, 1) = '\\x02' AND NOT EXISTS (
             SELECT FROM onbehalf_keys.key k WHERE k.id = substr(s, 2, 16) AND length(k.wrapped) > 0)) THEN
    RAISE EXCEPTION 'a payload is sealed with a key that is not there' USING ERRCODE = '@KEY_GONE@';
  END IF;
  UPDATE onbehalf_log.replica r SET low = new_low WHERE r.id = me AND r.gone IS NULL AND NOT r.barred;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'replica % was taken for gone', me USING ERRCODE = '@FENCED@';
  END IF;
  IF EXISTS (SELECT FROM unnest(entries) AS e WHERE position('"@LAST@"'::bytea IN e) > 0
             AND convert_from(e, 'UTF8')::json ->> 'kind' = '@LAST@') THEN
    UPDATE onbehalf_log.replica r SET barred = true WHERE r.gone IS NULL;
  END IF;
  INSERT INTO onbehalf_log.leaf(idx, event, hash, entry, call, at, replica)
    SELECT first + e.nth - 1, said.id, sha256('\\x00'::bytea || e.entry), e.entry, said.call, said.at, me
    FROM unnest(entries) WITH ORDINALITY AS e(entry, nth),
         json_to_record(convert_from(e.entry, 'UTF8')::json) AS said(id uuid, call text, at bigint);
  INSERT INTO onbehalf_log.payload(idx, sealed)
    SELECT first + s.nth - 1, s.sealed FROM unnest(sealed) WITH ORDINALITY AS s(sealed, nth);
  UPDATE onbehalf_log.head h SET size = first + cardinality(entries), root = new_root, note = new_note;
END $$;
"""

_REPLICAS = """
-- A new replica's number.
CREATE OR REPLACE FUNCTION onbehalf_log.join_log(called text) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO onbehalf_log.replica(name, low) SELECT left(called, 200), h.size FROM onbehalf_log.head h RETURNING id
$$;
-- From where on to look for what a replica left open, which from now on may write nothing more; NULL if that was done
-- before. Only of one whose session has ended, or of oneself.
CREATE OR REPLACE FUNCTION onbehalf_log.fence(me integer, other integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  since bigint;
BEGIN
  PERFORM onbehalf_log.lock_head(me);
  IF NOT pg_try_advisory_xact_lock(@SPACE@, other) THEN
    RAISE EXCEPTION 'replica % is there', other USING ERRCODE = '@PRESENT@';
  END IF;
  UPDATE onbehalf_log.replica r SET gone = now() WHERE r.id = other AND r.gone IS NULL RETURNING r.low INTO since;
  UPDATE onbehalf_log.head SET epoch = epoch + 1;
  RETURN since;
END $$;
-- A commit that changes nothing that is shown: once it is durable, so is all that was committed before it.
CREATE OR REPLACE FUNCTION onbehalf_log.settle(me integer) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE onbehalf_log.replica r SET low = r.low WHERE r.id = me
$$;
"""

_GRANTS = f"""
REVOKE ALL ON ALL TABLES IN SCHEMA onbehalf_log FROM PUBLIC, {", ".join(ROLES.values())};
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA onbehalf_log FROM PUBLIC, {", ".join(ROLES.values())};
GRANT USAGE ON SCHEMA onbehalf_log TO {", ".join(ROLES.values())};
GRANT SELECT ON ALL TABLES IN SCHEMA onbehalf_log TO {ROLES["writer"]}, {ROLES["reader"]};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA onbehalf_log TO {ROLES["writer"]};
{keys_grants(ROLES)}{handover_grants(ROLES)}RESET ROLE;
COMMIT;
-- Afterwards, a login for the gateways, one for audit commands where they shall not be able to write, one to erase, and
-- one to change the log's keys with, for as long as that takes:
--   CREATE ROLE gw_log LOGIN PASSWORD '...' IN ROLE {ROLES["writer"]};
--   CREATE ROLE gw_audit LOGIN PASSWORD '...' IN ROLE {ROLES["reader"]};
--   CREATE ROLE gw_erase LOGIN PASSWORD '...' IN ROLE {ROLES["eraser"]};
--   CREATE ROLE gw_rekey LOGIN PASSWORD '...' IN ROLE {ROLES["rekeyer"]};
"""


def schema_sql(signer: NoteSigner) -> str:
    """The SQL that makes an empty record, whose head is signed, so that an emptied record cannot pass for a new one."""
    empty = checkpoint.Checkpoint(origin=signer.name, size=0, root=tree.EMPTY_ROOT)
    note = checkpoint.write(empty, signer).replace("'", "''")
    head = (
        "INSERT INTO onbehalf_log.head(one, size, root, note, epoch)\n"  # noqa: S608  # made here, of the log's own name
        f"  VALUES (true, 0, '\\x{empty.root.hex()}', '{note}', 0) ON CONFLICT DO NOTHING;\n"
    )
    functions = HANDOVER_SQL + _LOCKED + _ENTER + _REPLICAS + HEADS_SQL
    marks = {"FENCED": FENCED, "STALE": _STALE, "PRESENT": PRESENT, "SPACE": str(LOCK_SPACE), "KEY_GONE": KEY_GONE}
    marks |= {"REKEYED": REKEYED, "STOPPED": STOPPED, "LAST": _LAST}
    for mark, said in marks.items():
        functions = functions.replace(f"@{mark}@", said)
    return _BEFORE + _TABLES + head + KEYS_SQL + functions + _GRANTS
