"""A change of the log's own keys in a record in PostgreSQL, as SQL: a table, and who may write it how.

The function that changes them does so while no replica is there, and bars all that joined before: they have the former
keys in memory. It is for a login of its own, which no gateway has. What replicas append is under a head by the key of
the head before, whoever appends it. Must not connect.

Trust: as ledger_postgres_schema.py. The database compares which key a head names, and cannot check a signature.
"""

from __future__ import annotations

__all__ = ["HANDOVER_SQL", "HAND_OVER", "REKEYED", "handover_grants"]

REKEYED = "OB006"
HAND_OVER = "onbehalf_log.hand_over(bigint, bigint, bytea, bytea, bytea, text, text)"
_ALONE = "onbehalf_log.lock_alone()"

HANDOVER_SQL = """
-- What both keys signed, by the leaf of the change. Replicas up to the number `barred` began with former keys.
CREATE TABLE IF NOT EXISTS onbehalf_log.handover(idx bigint PRIMARY KEY, told text NOT NULL, barred integer NOT NULL);
-- Which key a head is by: the first four bytes of its first signature.
CREATE OR REPLACE FUNCTION onbehalf_log.signer(note text) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT substr(decode(split_part(split_part(note, E'\\n', 5), ' ', 3), 'base64'), 1, 4)
$$;
-- Whether a replica began with keys that are former ones by now.
CREATE OR REPLACE FUNCTION onbehalf_log.former(me integer) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM onbehalf_log.handover h WHERE h.barred >= me)
$$;
-- The head, locked until the transaction ends, while no replica is there and none can join or come again.
CREATE OR REPLACE FUNCTION onbehalf_log.lock_alone() RETURNS TABLE(size bigint, root bytea, note text, epoch bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  here text;
BEGIN
  SELECT h.size, h.root, h.note, h.epoch INTO STRICT size, root, note, epoch FROM onbehalf_log.head h FOR UPDATE;
  LOCK TABLE onbehalf_log.replica IN SHARE ROW EXCLUSIVE MODE;
  SELECT string_agg(format('%s on %s', r.id, r.name), ', ' ORDER BY r.id) INTO here
    FROM (SELECT id, name FROM onbehalf_log.replica WHERE gone IS NULL OFFSET 0) r
    WHERE NOT pg_try_advisory_xact_lock(@SPACE@, r.id);
  IF here IS NOT NULL THEN
    RAISE EXCEPTION 'replicas are there: %', here USING ERRCODE = '@PRESENT@';
  END IF;
  RETURN NEXT;
END $$;
-- The leaf of a change at the end of the log, the new head over it by the new key, and what both keys signed. Open
-- intents of replicas that ended without a word stay theirs: whoever comes next says that they are unknown.
CREATE OR REPLACE FUNCTION onbehalf_log.hand_over(
  seen bigint, first bigint, entry bytea, sealed bytea, new_root bytea, new_note text, told text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was record;
BEGIN
  SELECT a.size, a.note, a.epoch INTO STRICT was FROM onbehalf_log.lock_alone() a;
  IF was.size IS DISTINCT FROM first OR was.epoch IS DISTINCT FROM seen
     OR split_part(new_note, E'\\n', 2) IS DISTINCT FROM (first + 1)::text
     OR onbehalf_log.signer(new_note) IS NOT DISTINCT FROM onbehalf_log.signer(was.note)
     OR convert_from(entry, 'UTF8')::json->>'kind' IS DISTINCT FROM 'key_change'
     OR substr(sealed, 1, 1) IS DISTINCT FROM '\\x01' THEN
    RAISE EXCEPTION 'the log ends at %, not at %, or this is no change of its keys', was.size, first
      USING ERRCODE = '@STALE@';
  END IF;
  INSERT INTO onbehalf_log.leaf(idx, event, hash, entry, call, at, replica)
    SELECT first, said.id, sha256('\\x00'::bytea || entry), entry, said.call, said.at, 0
    FROM json_to_record(convert_from(entry, 'UTF8')::json) AS said(id uuid, call text, at bigint);
  INSERT INTO onbehalf_log.payload(idx, sealed) VALUES (first, sealed);
  INSERT INTO onbehalf_log.handover(idx, told, barred)
    SELECT first, told, coalesce(max(r.id), 0) FROM onbehalf_log.replica r;
  UPDATE onbehalf_log.head h SET size = first + 1, root = new_root, note = new_note, epoch = h.epoch + 1;
END $$;
-- A commit that changes nothing that is shown: once it is durable, so is every change before it.
CREATE OR REPLACE FUNCTION onbehalf_log.settle_handover() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE onbehalf_log.handover h SET barred = h.barred WHERE h.idx = (SELECT max(idx) FROM onbehalf_log.handover)
$$;
"""


def handover_grants(roles: dict[str, str]) -> str:
    """Who may do what with it, of the roles of ledger_postgres_schema.py, after what is granted there."""
    writer, rekeyer = roles["writer"], roles["rekeyer"]
    return f"""
REVOKE ALL ON FUNCTION {_ALONE}, {HAND_OVER} FROM {writer};
GRANT USAGE ON SCHEMA onbehalf_keys TO {rekeyer};
GRANT SELECT ON ALL TABLES IN SCHEMA onbehalf_log TO {rekeyer};
GRANT EXECUTE ON FUNCTION {_ALONE}, {HAND_OVER}, onbehalf_log.settle_handover() TO {rekeyer};
"""
