-- The transaction that holds back the stable position the longest: its pid, its state, and for how
-- many seconds it has been going on. $1 the log's oid.
SELECT a.pid, coalesce(a.state, ''), extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = $1::oid
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY a.xact_start
LIMIT 1
