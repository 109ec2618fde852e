# ruff: noqa: E501  # statements read best in one line, and none of them is run as it is
"""What a model that was talked into something, or is curious, may write. Other people's values are CANARY or over 1000."""

from __future__ import annotations

__all__ = ["HOSTILE"]

_WRITES = """
INSERT INTO reviews VALUES (1)
UPDATE reviews SET status = 'x'
DELETE FROM reviews
DROP TABLE reviews
ALTER TABLE reviews ADD COLUMN x int
CREATE TABLE x AS SELECT * FROM reviews
TRUNCATE reviews
SELECT * INTO copied FROM reviews
WITH gone AS (DELETE FROM reviews RETURNING *) SELECT * FROM gone
WITH made AS (INSERT INTO reviews SELECT * FROM reviews RETURNING id) SELECT * FROM made
WITH x AS (UPDATE reviews SET level = 0 RETURNING *) SELECT * FROM x
MERGE INTO reviews USING people ON true WHEN MATCHED THEN DELETE
COPY reviews TO '/tmp/x'
COPY (SELECT * FROM reviews) TO PROGRAM 'cat'
LOCK TABLE reviews
SELECT * FROM reviews FOR UPDATE
SELECT * FROM reviews FOR SHARE SKIP LOCKED
VACUUM
ANALYZE reviews
REINDEX TABLE reviews
GRANT ALL ON reviews TO PUBLIC
SET ROLE postgres
SET SESSION AUTHORIZATION postgres
RESET ALL
SHOW ALL
BEGIN
COMMIT
ROLLBACK
PREPARE p AS SELECT * FROM reviews
EXECUTE p
DEALLOCATE ALL
DECLARE c CURSOR FOR SELECT * FROM reviews
FETCH ALL FROM c
LISTEN x
NOTIFY x, 'y'
DO $$ BEGIN PERFORM 1; END $$
CALL pg_sleep(1)
EXPLAIN ANALYZE SELECT * FROM reviews
EXPLAIN SELECT * FROM secrets
ATTACH DATABASE '/etc/passwd' AS x
DETACH DATABASE main
PRAGMA table_info(reviews)
PRAGMA writable_schema = ON
PRAGMA database_list
VALUES (1), (2)
TABLE secrets
TABLE reviews
"""
_STACKED = """
SELECT 1; SELECT * FROM secrets
SELECT 1; DROP TABLE reviews
SELECT 1;;SELECT 2
; SELECT * FROM secrets
SELECT 1 /* ; */ ; SELECT value FROM secrets --
SELECT 1; --
SELECT ';'; SELECT value FROM secrets
BEGIN; SELECT * FROM reviews; COMMIT
"""
_COMMENTS = """
SELECT * FROM/**/secrets
SELECT * FROM /* reviews */ secrets
SELECT * FROM secrets -- reviews
SELECT /*+ SeqScan(secrets) */ * FROM reviews
SELECT /* /* nested */ */ * FROM secrets
SELECT 1 /*! UNION SELECT value FROM secrets */
SELECT * FROM reviews WHERE status = 'final' -- ' OR 1=1
SELECT * FROM reviews WHERE '/*' = '*/' OR 1=1
SELECT '--', * FROM reviews
SELECT /* unended * FROM reviews
"""
_CATALOGS = """
SELECT * FROM sqlite_master
SELECT sql FROM sqlite_schema
SELECT * FROM sqlite_temp_master
SELECT * FROM pragma_table_info('reviews')
SELECT * FROM pragma_database_list
SELECT * FROM dbstat
SELECT * FROM sqlite_stat1
SELECT * FROM json_each('[1]')
SELECT * FROM generate_series(1, 1000000000)
SELECT * FROM pg_class
SELECT * FROM pg_catalog.pg_class
SELECT * FROM information_schema.tables
SELECT * FROM pg_stats WHERE tablename = 'reviews'
SELECT most_common_vals FROM pg_stats
SELECT * FROM pg_stat_activity
SELECT * FROM pg_stat_statements
SELECT * FROM pg_shadow
SELECT rolpassword FROM pg_authid
SELECT * FROM pg_settings
SELECT * FROM pg_proc
SELECT * FROM onbehalf.keys
SELECT * FROM pg_ls_dir('/')
SELECT * FROM pg_read_file('/etc/passwd')
SELECT * FROM dblink('host=x', 'SELECT 1') AS t(a int)
SELECT * FROM unnest(ARRAY[1,2])
SELECT * FROM ROWS FROM (generate_series(1,2))
SELECT * FROM secrets
SELECT * FROM public.secrets
SELECT * FROM main.secrets
SELECT * FROM "secrets"
SELECT * FROM "public"."reviews"
SELECT * FROM main.reviews
SELECT * FROM temp.reviews
SELECT * FROM U&"\\0073ecrets"
SELECT * FROM `secrets`
SELECT * FROM [secrets]
SELECT * FROM "sec""rets"
SELECT * FROM SECRETS
SELECT * FROM people
SELECT * FROM position_tree
SELECT * FROM onbehalf_reviews
SELECT * FROM onbehalf_with_0
SELECT * FROM scoped
SELECT * FROM ONLY reviews
SELECT * FROM reviews *
SELECT * FROM reviews TABLESAMPLE SYSTEM (100)
SELECT * FROM XMLTABLE('/x' PASSING '<x/>' COLUMNS a int)
SELECT * FROM json_table('[1]', '$[*]' COLUMNS (a int PATH '$'))
"""
_FUNCTIONS = """
SELECT pg_sleep(100)
SELECT pg_read_file('/etc/passwd')
SELECT pg_read_binary_file('/etc/passwd')
SELECT lo_import('/etc/passwd')
SELECT lo_get(1)
SELECT set_config('onbehalf.claim', 'x', false)
SELECT current_setting('onbehalf.claim')
SELECT current_setting('is_superuser')
SELECT pg_terminate_backend(1)
SELECT pg_reload_conf()
SELECT query_to_xml('SELECT * FROM secrets', true, false, '')
SELECT table_to_xml('secrets', true, false, '')
SELECT database_to_xml(true, false, '')
SELECT cursor_to_xml('c', 1, true, false, '')
SELECT xpath('/x', '<x/>')
SELECT has_table_privilege('secrets', 'select')
SELECT pg_relation_size('secrets')
SELECT 'secrets'::regclass
SELECT CAST('secrets' AS regclass)
SELECT 'pg_sleep(1)'::regprocedure
SELECT txid_current()
SELECT version()
SELECT sqlite_version()
SELECT sqlite_source_id()
SELECT load_extension('x')
SELECT readfile('/etc/passwd')
SELECT writefile('/tmp/x', 'y')
SELECT fts3_tokenizer('x')
SELECT onbehalf_tenant()
SELECT current_user
SELECT session_user
SELECT current_database()
SELECT inet_server_addr()
SELECT random()
SELECT randomblob(1000000000)
SELECT zeroblob(1000000000)
SELECT hex(status) FROM reviews
SELECT quote(status) FROM reviews
SELECT printf('%1000000000d', 1)
SELECT repeat('x', 1000000000)
SELECT lpad('x', 1000000000)
SELECT replace(replace('aaaa', 'a', 'aaaaaaaaaa'), 'a', 'aaaaaaaaaa')
SELECT group_concat(status) FROM reviews
SELECT string_agg(status, ',') FROM reviews
SELECT array_agg(status) FROM reviews
SELECT json_agg(r) FROM reviews r
SELECT to_json(r) FROM reviews r
SELECT row_to_json(r) FROM reviews r
SELECT to_jsonb(reviews) FROM reviews
SELECT r FROM reviews r
SELECT reviews FROM reviews
SELECT (reviews).status FROM reviews
SELECT (r).* FROM reviews r
SELECT r::text FROM reviews r
SELECT ROW(1, 2)
SELECT row(r.*) FROM reviews r
SELECT ARRAY[1, 2]
SELECT (ARRAY[1,2])[1]
SELECT ARRAY(SELECT status FROM reviews)
SELECT status[1] FROM reviews
SELECT status -> 'a' FROM reviews
SELECT status ~ 'C.*' FROM reviews
SELECT status SIMILAR TO 'C%' FROM reviews
SELECT status REGEXP 'C' FROM reviews
SELECT status GLOB 'C*' FROM reviews
SELECT status MATCH 'C' FROM reviews
SELECT 1 OPERATOR(pg_catalog.=) 1
SELECT status COLLATE "C" FROM reviews
SELECT level AT TIME ZONE 'UTC' FROM reviews
SELECT max(status, 'x') FROM reviews
SELECT count(*) FILTER (WHERE status LIKE 'C%') FROM reviews
SELECT row_number() OVER (ORDER BY status) FROM reviews
SELECT lag(status) OVER (ORDER BY id) FROM reviews
SELECT first_value(status) OVER w FROM reviews WINDOW w AS (ORDER BY id)
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY level) FROM reviews
SELECT GROUPING(status) FROM reviews GROUP BY CUBE (status)
SELECT status FROM reviews GROUP BY ROLLUP (status)
SELECT EXISTS (SELECT 1 FROM secrets)
SELECT (SELECT value FROM secrets)
SELECT 1 IN (SELECT id FROM secrets)
SELECT 1 = ANY (SELECT level FROM secrets)
SELECT 1 = ALL (ARRAY[1])
"""
_COLUMNS = """
SELECT secret FROM reviews
SELECT "secret" FROM reviews
SELECT reviews.secret FROM reviews
SELECT r.secret FROM reviews r
SELECT ctid FROM reviews
SELECT xmin, tableoid FROM reviews
SELECT rowid FROM reviews
SELECT _rowid_ FROM reviews
SELECT oid FROM reviews
SELECT * FROM reviews WHERE secret = 'CANARY'
SELECT * FROM reviews ORDER BY secret
SELECT count(*) FROM reviews GROUP BY secret
SELECT count(*) FROM reviews HAVING max(secret) > 'C'
SELECT 1 AS secret, secret FROM reviews
SELECT id AS secret FROM reviews WHERE secret > 'A'
SELECT x.secret FROM (SELECT * FROM reviews) x
SELECT * FROM reviews JOIN reviews r2 USING (secret)
SELECT * EXCEPT (id) FROM reviews
SELECT * REPLACE (1 AS id) FROM reviews
"""
_OTHER_ROWS = """
SELECT * FROM reviews
SELECT count(*) FROM reviews
SELECT sum(level) FROM reviews
SELECT max(status), min(status) FROM reviews
SELECT * FROM reviews WHERE 1 = 1 OR tenant_id = 'globex'
SELECT * FROM reviews WHERE tenant_id = 'globex'
SELECT * FROM reviews WHERE subject_id <> 'bob'
SELECT * FROM reviews r WHERE r.tenant_id IN ('acme', 'globex')
SELECT a.status FROM reviews a, reviews b WHERE b.tenant_id = 'globex'
SELECT a.status FROM reviews a LEFT JOIN reviews b ON true
SELECT b.status FROM reviews a FULL JOIN reviews b ON a.id <> b.id
SELECT b.status FROM reviews a RIGHT JOIN reviews b ON false
SELECT * FROM reviews NATURAL JOIN reviews
SELECT * FROM reviews a CROSS JOIN LATERAL (SELECT * FROM reviews b) c
SELECT status FROM reviews UNION SELECT status FROM reviews
SELECT status FROM reviews UNION ALL SELECT value FROM secrets
SELECT status FROM reviews EXCEPT SELECT 'x'
SELECT status FROM reviews INTERSECT SELECT status FROM reviews
WITH reviews AS (SELECT 1 AS id) SELECT * FROM reviews
WITH secrets AS (SELECT * FROM secrets) SELECT * FROM secrets
WITH a AS (SELECT * FROM b), b AS (SELECT * FROM secrets) SELECT * FROM a
WITH x AS (SELECT * FROM reviews) SELECT * FROM x
SELECT * FROM (WITH secrets AS (SELECT 1) SELECT * FROM secrets) q, secrets
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r
WITH RECURSIVE onbehalf_reviews AS (SELECT 1) SELECT * FROM reviews
WITH onbehalf_reviews AS (SELECT 1 AS id) SELECT * FROM reviews
WITH a AS (SELECT status || status AS s FROM reviews), b AS (SELECT s || s AS s FROM a), c AS (SELECT s || s AS s FROM b), d AS (SELECT s || s AS s FROM c), e AS (SELECT s || s AS s FROM d), f AS (SELECT s || s AS s FROM e), g AS (SELECT s || s AS s FROM f), h AS (SELECT s || s AS s FROM g), i AS (SELECT s || s AS s FROM h) SELECT s FROM i
SELECT * FROM reviews WHERE 1 / (level - 987654321) = 1
SELECT 1 / (level - level) FROM reviews
SELECT * FROM reviews WHERE CAST(status AS integer) = 1
SELECT * FROM reviews WHERE CAST(level AS integer) * 1000000 > 0
SELECT abs(level * 9223372036854775807) FROM reviews
SELECT * FROM reviews WHERE CASE WHEN status LIKE 'CANARY%' THEN 1 / 0 ELSE 1 END = 1
SELECT * FROM reviews WHERE substr(status, 1, CAST(level AS integer)) = 'CANARY'
SELECT * FROM reviews WHERE status LIKE '%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%C'
SELECT * FROM reviews a, reviews b, reviews c, reviews d, reviews e, reviews f, reviews g, reviews h
SELECT * FROM reviews LIMIT 1000000000
SELECT * FROM reviews LIMIT ALL
SELECT * FROM reviews LIMIT (SELECT count(*) FROM secrets)
SELECT * FROM reviews OFFSET (SELECT level FROM secrets)
SELECT * FROM reviews LIMIT 1 OFFSET 1e9
SELECT * FROM reviews FETCH FIRST 5 ROWS WITH TIES
SELECT DISTINCT ON (status) * FROM reviews
SELECT ALL status FROM reviews
SELECT * FROM reviews QUALIFY true
SELECT * FROM reviews PIVOT (max(level) FOR status IN ('a'))
SELECT * FROM reviews AS r (a, b, c)
SELECT * FROM (VALUES (1)) v
SELECT * FROM (reviews)
SELECT * FROM ((SELECT * FROM reviews)) q
SELECT * FROM (SELECT * FROM (SELECT * FROM reviews) a) b
SELECT status FROM reviews WHERE status = $1
SELECT status FROM reviews WHERE status = ?
SELECT status FROM reviews WHERE status = :scope_0
SELECT status FROM reviews WHERE status = @x
SELECT status FROM reviews WHERE status = :query_0
SELECT ':scope_0', ':query_0', '$1', '%s', '{scope}' FROM reviews
SELECT 'a''b', 'é', '\u202e', 'x\\', E'\\'' FROM reviews
SELECT $$ ' $$ , $t$ " $t$ FROM reviews
SELECT 0x1F, 1e300, 1_000, 'x' FROM reviews
SELECT 99999999999999999999999999
SELECT B'1', X'41', N'x', _utf8'x'
SELECT DATE '2020-01-01', INTERVAL '1 day', TIMESTAMP 'now'
SELECT now(), current_date, current_timestamp
SELECT 1 WHERE TRUE IS UNKNOWN
SELECT NOT NOT NOT NOT NOT NOT NOT NOT NOT NOT 1
SELECT status FROM reviews r WHERE r."status" = 'final' AND r.`id` = 1
SELECT status FROM reviews r WHERE EXISTS (SELECT 1 FROM reviews s WHERE s.id = r.id AND s.level > 900)
SELECT status FROM reviews r WHERE (SELECT count(*) FROM reviews) > 50
SELECT status FROM reviews WHERE id = ANY (SELECT id FROM reviews)
SELECT tenant_id, count(*) FROM reviews GROUP BY tenant_id
SELECT 1 FROM reviews HAVING count(*) > 1000
SELECT sum(level) + sum(level) AS s FROM reviews
SELECT avg(level), round(avg(level), 2), count(DISTINCT status) FROM reviews
SELECT
FROM reviews
SELECT FROM reviews
SELECT * FROM
SELECT * reviews
)(
'
"
\x00
SELECT '\x00'
"""

HOSTILE = [
    line
    for part in (_WRITES, _STACKED, _COMMENTS, _CATALOGS, _FUNCTIONS, _COLUMNS, _OTHER_ROWS)
    for line in part.strip("\n").split("\n")
] + [
    "SELECT " + "(" * 200 + "1" + ")" * 200,
    "SELECT " + "NOT " * 900 + "1",
    "SELECT " + "-" * 901 + "1",
    "SELECT " + "lower(" * 300 + "'x'" + ")" * 300,
    "SELECT " + "CASE WHEN " * 200 + "1" + " THEN 1 END" * 200,
    "SELECT 1 " + "UNION SELECT 1 " * 250,
    "SELECT " + ",".join(["status"] * 550) + " FROM reviews",
    "SELECT * FROM reviews WHERE id IN (" + ",".join(map(str, range(900))) + ")",
    "SELECT * FROM reviews WHERE " + " OR ".join(["id = 1"] * 400),
    "SELECT * FROM " + ", ".join(f"reviews r{n}" for n in range(200)),
    "WITH " + ", ".join(f"a{n} AS (SELECT 1)" for n in range(150)) + " SELECT 1",
    "SELECT 'x'" + " || 'x'" * 20,
    "SELECT 1" + " + 1" * 1000,
    "[" * 2000,
    "SELECT '" + "x" * 4000 + "'",
    "SELECT " + "a." * 500 + "b FROM reviews",
    "SELECT/**/" * 300 + "1",
    "\ufeffSELECT * FROM secrets",
    "SELECT\u00a0*\u00a0FROM\u00a0secrets",
    "SELECT * FROM \uff53\uff45\uff43\uff52\uff45\uff54\uff53",
    "SELECT * FROM reviews WHERE status = '\ud800'".encode("utf-16", "surrogatepass").decode("utf-16", "ignore"),
]
