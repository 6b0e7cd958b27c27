-- As `log`, of correlation id $6.
-- With them one row more, which has no position: its last column is up to where entries without a stream
-- are gone, as the rest was read.
(
    SELECT
        position, stream, stream_version, source, id, name, version, topic, key, time,
        correlation_id, causation_id, operation_id, traceparent, headers, payload,
        NULL::bigint AS trimmed_before
    FROM "sillage".log
    WHERE correlation_id = $6 AND position > $1 AND position <= $2
        AND ($3::text[] IS NULL OR topic = ANY($3))
        AND ($4::text[] IS NULL OR name = ANY($4))
    ORDER BY position
    LIMIT $5
)
UNION ALL
SELECT
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL, NULL,
    value::bigint
FROM "sillage".meta
WHERE key = 'trimmed_before'
