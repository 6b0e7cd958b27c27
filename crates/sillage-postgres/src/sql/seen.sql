-- The last position given out, up to where entries are gone, and how often some were removed or put
-- back. $1 the sequence.
SELECT
    coalesce(pg_sequence_last_value($1::oid::regclass), 0),
    (SELECT value FROM "sillage".meta WHERE key = 'trimmed_before')::bigint,
    coalesce((SELECT value FROM "sillage".meta WHERE key = 'rewritten')::bigint, 0)
