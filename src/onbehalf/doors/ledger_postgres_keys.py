"""The keys of people for a record in PostgreSQL, as SQL: a schema of its own, whose backups can have a shorter life.

Tables that nobody may write, and functions that are the only way to write them. Whoever appends may add keys and read
them; destroying, holding and deleting are another role's. A key that was destroyed keeps its id, so that nobody can put
it back, and is destroyed under the lock on the head: what was sealed with it is on record by then, or is refused.
Must not connect.

Trust: as ledger_postgres_schema.py. Whoever has `payload.key` and an older copy of this schema can open what was
erased since.
"""

from __future__ import annotations

__all__ = ["HELD", "KEYS_SQL", "KEY_GONE", "keys_grants"]

KEY_GONE, HELD = "OB004", "OB005"

KEYS_SQL = f"""
CREATE TABLE IF NOT EXISTS onbehalf_keys.key(
  id bytea PRIMARY KEY CHECK (length(id) = 16), label bytea, wrapped bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS key_label ON onbehalf_keys.key(label) WHERE label IS NOT NULL;
CREATE TABLE IF NOT EXISTS onbehalf_keys.request(
  seq integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id bytea NOT NULL UNIQUE, kind text NOT NULL,
  state text NOT NULL, said bytea NOT NULL, result text NOT NULL
);
CREATE TABLE IF NOT EXISTS onbehalf_keys.hold(number integer, label bytea, PRIMARY KEY (number, label));
CREATE TABLE IF NOT EXISTS onbehalf_keys.erasing(
  id bytea PRIMARY KEY, next bigint NOT NULL, count bigint NOT NULL, first bigint NOT NULL, last bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS onbehalf_keys.change(
  one boolean PRIMARY KEY CHECK (one), number bigint NOT NULL, destroyed xid8 NOT NULL
) WITH (fillfactor = 10);
INSERT INTO onbehalf_keys.change(one, number, destroyed) VALUES (true, 1, '0') ON CONFLICT DO NOTHING;
-- New keys. One that is there, or was destroyed, stays as it is.
CREATE OR REPLACE FUNCTION onbehalf_keys.keep(ids bytea[], labels bytea[], wrapped bytea[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO onbehalf_keys.key(id, label, wrapped)
    SELECT k.id, k.label, k.wrapped FROM unnest(ids, labels, wrapped) AS k(id, label, wrapped)
    WHERE length(k.label) > 0 AND length(k.wrapped) > 0 ON CONFLICT (id) DO NOTHING
$$;
-- Whoever changes anything but by adding keys comes after whoever did so before.
CREATE OR REPLACE FUNCTION onbehalf_keys.changing() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE onbehalf_keys.change SET number = number + 1
$$;
-- A request, which with labels is a hold on them from now on; its number.
CREATE OR REPLACE FUNCTION onbehalf_keys.ask(request bytea, kind text, said bytea, labels bytea[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  number integer;
BEGIN
  PERFORM onbehalf_keys.changing();
  INSERT INTO onbehalf_keys.request(id, kind, state, said, result) VALUES (request, kind, 'asked', said, '')
    RETURNING seq INTO number;
  INSERT INTO onbehalf_keys.hold(number, label) SELECT number, each FROM unnest(labels) AS each;
  RETURN number;
END $$;
-- The living keys of some labels, in a transaction in which nothing is appended or held any more.
CREATE OR REPLACE FUNCTION onbehalf_keys.dying(labels bytea[]) RETURNS SETOF bytea
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM FROM onbehalf_log.head FOR UPDATE;
  PERFORM onbehalf_keys.changing();
  IF EXISTS (SELECT FROM onbehalf_keys.hold h WHERE h.label = ANY (labels)) THEN
    RAISE EXCEPTION 'a legal hold stands' USING ERRCODE = '{HELD}';
  END IF;
  RETURN QUERY SELECT k.id FROM onbehalf_keys.key k WHERE k.label = ANY (labels) ORDER BY k.id;
END $$;
-- Destroy keys, and say so in the request, within the transaction that saw no hold on them.
CREATE OR REPLACE FUNCTION onbehalf_keys.destroy(request bytea, ids bytea[], told bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM FROM onbehalf_log.head FOR UPDATE;
  PERFORM onbehalf_keys.changing();
  IF EXISTS (SELECT FROM onbehalf_keys.key k JOIN onbehalf_keys.hold h USING (label) WHERE k.id = ANY (ids)) THEN
    RAISE EXCEPTION 'a legal hold stands' USING ERRCODE = '{HELD}';
  END IF;
  UPDATE onbehalf_keys.request r SET state = 'destroyed', said = told WHERE r.id = request AND r.state = 'asked';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'it was not asked for, or was done before';
  END IF;
  UPDATE onbehalf_keys.key k SET wrapped = '', label = NULL WHERE k.id = ANY (ids);
  UPDATE onbehalf_keys.change SET destroyed = pg_current_xact_id();
END $$;
-- Destroy what an erasure on record did, where an older copy of this schema was put back; whether it was.
CREATE OR REPLACE FUNCTION onbehalf_keys.destroy_again(request bytea, of_kind text, ids bytea[], told text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  were boolean;
BEGIN
  PERFORM FROM onbehalf_log.head FOR UPDATE;
  PERFORM onbehalf_keys.changing();
  UPDATE onbehalf_keys.key k SET wrapped = '', label = NULL WHERE k.id = ANY (ids) AND length(k.wrapped) > 0;
  were := FOUND;
  IF were THEN
    UPDATE onbehalf_keys.change SET destroyed = pg_current_xact_id();
  END IF;
  INSERT INTO onbehalf_keys.request(id, kind, state, said, result) VALUES (request, of_kind, 'done', '', told)
    ON CONFLICT (id) DO UPDATE SET state = 'done', said = '', result = excluded.result;
  RETURN were;
END $$;
-- What became of a request. The hold that it lifts, 0 for none, is no more.
CREATE OR REPLACE FUNCTION onbehalf_keys.note(request bytea, now_is text, told bytea, came_to text, lifts integer)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM onbehalf_keys.changing();
  UPDATE onbehalf_keys.request r SET state = now_is, said = told, result = came_to WHERE r.id = request;
  IF lifts <> 0 THEN
    DELETE FROM onbehalf_keys.hold h WHERE h.number = lifts;
    UPDATE onbehalf_keys.request r SET said = '' WHERE r.seq = lifts;
  END IF;
END $$;
-- One step of a retention: delete payloads from `start` on, before `upto`, and count them. None that is held, and while
-- any hold stands none of a call that is sealed with no person's key.
CREATE OR REPLACE FUNCTION onbehalf_keys.erase_payloads(request bytea, start bigint, upto bigint, chosen bigint[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone bigint[];
BEGIN
  PERFORM onbehalf_keys.changing();
  IF EXISTS (SELECT FROM onbehalf_log.payload p JOIN onbehalf_log.leaf l USING (idx)
             LEFT JOIN onbehalf_keys.key k ON k.id = substr(p.sealed, 2, 16) AND substr(p.sealed, 1, 1) = '\\x02'
             WHERE p.idx = ANY (chosen) AND EXISTS (SELECT FROM onbehalf_keys.hold h WHERE h.label = k.label
               OR (substr(p.sealed, 1, 1) <> '\\x02' AND l.call <> ''))) THEN
    RAISE EXCEPTION 'a legal hold stands' USING ERRCODE = '{HELD}';
  END IF;
  INSERT INTO onbehalf_keys.erasing(id, next, count, first, last) VALUES (request, 0, 0, -1, -1) ON CONFLICT DO NOTHING;
  WITH deleted AS (
    DELETE FROM onbehalf_log.payload p WHERE p.idx = ANY (chosen) AND p.idx >= start AND p.idx < upto RETURNING p.idx)
    SELECT array_agg(d.idx) INTO gone FROM deleted d;
  UPDATE onbehalf_keys.erasing e SET next = upto, count = e.count + coalesce(cardinality(gone), 0),
    first = CASE WHEN e.first < 0 THEN coalesce((SELECT min(g) FROM unnest(gone) g), -1) ELSE e.first END,
    last = greatest(e.last, (SELECT max(g) FROM unnest(gone) g)) WHERE e.id = request AND e.next = start;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'another command is at this retention';
  END IF;
END $$;
-- A retention is on record: its count need not be kept.
CREATE OR REPLACE FUNCTION onbehalf_keys.erasing_done(request bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM onbehalf_keys.erasing e WHERE e.id = request
$$;
-- Write the table of keys anew without what was destroyed; whether that is so. It is not while somebody reads it, or
-- began to read before. Nobody waits for it for longer than it takes.
CREATE OR REPLACE FUNCTION onbehalf_keys.scrub() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_stat_activity a, onbehalf_keys.change c WHERE a.pid <> pg_backend_pid()
             AND (a.datname = current_database() OR a.datname IS NULL) AND age(a.backend_xmin) >= age(c.destroyed::xid)
             AND c.destroyed > '0'::xid8) THEN
    RETURN false;
  END IF;
  BEGIN
    LOCK TABLE onbehalf_keys.key IN ACCESS EXCLUSIVE MODE;
  EXCEPTION WHEN lock_not_available THEN
    RETURN false;
  END;
  CLUSTER onbehalf_keys.key USING key_pkey;
  RETURN true;
END $$;
"""  # noqa: S608  # codes of ours


def keys_grants(roles: dict[str, str]) -> str:
    """Who may do what with it, of the roles of ledger_postgres_schema.py."""
    writer, reader, eraser = roles["writer"], roles["reader"], roles["eraser"]
    everybody = f"PUBLIC, {writer}, {reader}, {eraser}"
    erasing = ("ask(bytea, text, bytea, bytea[])", "dying(bytea[])", "destroy(bytea, bytea[], bytea)",
               "destroy_again(bytea, text, bytea[], text)", "note(bytea, text, bytea, text, integer)",
               "erase_payloads(bytea, bigint, bigint, bigint[])", "erasing_done(bytea)", "scrub()")  # fmt: skip
    return f"""
REVOKE ALL ON ALL TABLES IN SCHEMA onbehalf_keys FROM {everybody};
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA onbehalf_keys FROM {everybody};
GRANT USAGE ON SCHEMA onbehalf_keys TO {writer}, {reader}, {eraser};
GRANT SELECT ON ALL TABLES IN SCHEMA onbehalf_keys TO {writer}, {reader};
GRANT SELECT (id, label) ON onbehalf_keys.key TO {eraser};
GRANT SELECT ON onbehalf_keys.request, onbehalf_keys.hold, onbehalf_keys.erasing, onbehalf_keys.change TO {eraser};
GRANT EXECUTE ON FUNCTION onbehalf_keys.keep(bytea[], bytea[], bytea[]) TO {writer};
GRANT EXECUTE ON FUNCTION {", ".join(f"onbehalf_keys.{each}" for each in erasing)} TO {eraser};
"""
