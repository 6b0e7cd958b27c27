-- Tells processes that wait, on channel $1.
SELECT pg_notify($1, '')
