-- What the server is: version, whether it is a standby, how durable a commit is, the encoding, the
-- time, and whether $1 is there.
SELECT
    current_setting('server_version_num')::int,
    pg_is_in_recovery(),
    current_setting('synchronous_commit'),
    current_setting('server_encoding'),
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    to_regclass($1) IS NOT NULL
