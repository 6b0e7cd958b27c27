-- The last position given out, how often timers were set, up to where entries are gone, and how often
-- some were removed or put back. $1 and $2 the sequences.
SELECT
    coalesce(pg_sequence_last_value($1::oid::regclass), 0),
    coalesce(pg_sequence_last_value($2::oid::regclass), 0),
    (SELECT value FROM "sillage".meta WHERE key = 'trimmed_before')::bigint,
    coalesce((SELECT value FROM "sillage".meta WHERE key = 'rewritten')::bigint, 0)
