-- How sequence $1 gives out numbers: step, how many a session keeps for later, whether it begins
-- again; and the last it gave out.
SELECT seqincrement, seqcache, seqcycle, coalesce(pg_sequence_last_value($1::oid::regclass), 0)
FROM pg_sequence
WHERE seqrelid = $1
