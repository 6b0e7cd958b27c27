-- What `changed` waits for: the end of the log, and how often timers were set.
SELECT
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'log'), 0),
    (SELECT value FROM meta WHERE key = 'timers_set')
