-- Whether this is within a transaction, which is durable from now on whatever the session says.
SELECT
    now() <> statement_timestamp(),
    set_config(
        'synchronous_commit',
        CASE current_setting('synchronous_commit')
            WHEN 'off' THEN 'on'
            ELSE current_setting('synchronous_commit')
        END,
        true
    )
