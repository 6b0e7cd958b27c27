-- Tells processes that wait, on channel $1; a timer was set where $2 is the sequence that counts them.
SELECT pg_notify($1, ''), CASE WHEN $2::oid IS NOT NULL THEN nextval($2::oid::regclass) END
