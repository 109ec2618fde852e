"""Signed and cosigned heads of a record in PostgreSQL, as SQL: tables that nobody may write, a function that adds.

All replicas keep them together: what one of them had cosigned, the others show and need not ask for. A head that is
there is never changed, nor the first line of somebody under it; the oldest make room. Must not connect.

Trust: as ledger_postgres_schema.py. Whoever may append can add lines that do not verify, and so many heads that the
older ones are gone; not make a line that verifies.
"""

from __future__ import annotations

from onbehalf.doors.ledger_heads_kept import KEPT_HEADS

__all__ = ["HEADS_SQL"]

HEADS_SQL = f"""
CREATE TABLE IF NOT EXISTS onbehalf_log.kept_head(size bigint PRIMARY KEY, note text NOT NULL);
CREATE TABLE IF NOT EXISTS onbehalf_log.cosignature(
  size bigint NOT NULL, name text NOT NULL, at bigint NOT NULL, line text NOT NULL, PRIMARY KEY (size, name)
);
ALTER TABLE onbehalf_log.cosignature ALTER COLUMN line SET STORAGE EXTERNAL;  -- a signature does not compress
-- Keep a head of this log with lines under it: the first one of each name stays.
CREATE OR REPLACE FUNCTION onbehalf_log.keep_head(
  of_size bigint, of_note text, names text[], ats bigint[], lines text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  over bigint;
BEGIN
  IF split_part(of_note, E'\\n', 2) IS DISTINCT FROM of_size::text OR length(of_note) > 8192
     OR of_size > (SELECT h.size FROM onbehalf_log.head h) OR cardinality(names) > 64
     OR EXISTS (SELECT FROM unnest(names, lines) AS each(name, line) WHERE length(name) > 1000 OR length(line) > 16384)
  THEN
    RAISE EXCEPTION 'this is no head of the log with signatures' USING ERRCODE = '@STALE@';
  END IF;
  INSERT INTO onbehalf_log.kept_head(size, note) VALUES (of_size, of_note) ON CONFLICT DO NOTHING;
  IF NOT EXISTS (SELECT FROM onbehalf_log.kept_head k WHERE k.size = of_size AND k.note = of_note) THEN
    RAISE EXCEPTION 'another head of % leaves is kept', of_size USING ERRCODE = '@STALE@';
  END IF;
  INSERT INTO onbehalf_log.cosignature(size, name, at, line)
    SELECT of_size, each.name, each.at, each.line FROM unnest(names, ats, lines) AS each(name, at, line)
    ON CONFLICT DO NOTHING;
  SELECT k.size INTO over FROM onbehalf_log.kept_head k ORDER BY k.size DESC OFFSET {KEPT_HEADS} LIMIT 1;
  IF FOUND THEN
    DELETE FROM onbehalf_log.cosignature c WHERE c.size <= over;
    DELETE FROM onbehalf_log.kept_head k WHERE k.size <= over;
  END IF;
END $$;
"""  # noqa: S608  # a number of ours
