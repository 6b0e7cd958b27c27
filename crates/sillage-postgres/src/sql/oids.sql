-- What names the log on this server: its table, its sequence, the sequence of timers.
SELECT
    '"sillage".log'::regclass::oid,
    '"sillage".log_position'::regclass::oid,
    '"sillage".timers_set'::regclass::oid
