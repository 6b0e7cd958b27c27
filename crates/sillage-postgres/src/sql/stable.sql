-- The last position given out, and the highest under which no entry can still appear: none below
-- the smallest that a transaction in progress holds; up to where entries are gone, and how often some
-- were removed or put back. $1 the log's oid, $2 its sequence.
WITH s AS MATERIALIZED (
    SELECT coalesce(pg_sequence_last_value($2::oid::regclass), 0) AS v
)
SELECT
    s.v,
    least(s.v, (
        SELECT min(s.v + (((objid::bigint - s.v) & 4294967295) # 2147483648) - 2147483648)
        FROM pg_locks
        WHERE locktype = 'advisory'
            AND objsubid = 2
            AND classid = $1::oid
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )),
    (SELECT value FROM "sillage".meta WHERE key = 'trimmed_before')::bigint,
    coalesce((SELECT value FROM "sillage".meta WHERE key = 'rewritten')::bigint, 0)
FROM s
