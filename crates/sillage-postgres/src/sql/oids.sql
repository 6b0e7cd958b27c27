-- What names the log on this server: its table and its sequence.
SELECT
    '"sillage".log'::regclass::oid,
    '"sillage".log_position'::regclass::oid
