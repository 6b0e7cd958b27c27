-- What the server is: version, whether it is a standby, how durable a commit is, the encoding, the
-- time, and whether schema $1 is there. (Asked of the table: a name may be cached as unknown.)
SELECT
    current_setting('server_version_num')::int,
    pg_is_in_recovery(),
    current_setting('synchronous_commit'),
    current_setting('server_encoding'),
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'meta')
