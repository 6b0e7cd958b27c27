-- As `log`, of stream $6, where versions rise with positions, and of correlation id $7, NULL for any.
-- With them one row more, which has no position: its last column is up to where entries without a stream
-- are gone, as the rest was read.
(
    SELECT
        position, stream, stream_version, source, id, name, version, topic, key, time,
        correlation_id, causation_id, operation_id, traceparent, headers, payload,
        NULL::bigint AS trimmed_before
    FROM "sillage".log
    WHERE stream = $6 AND position > $1 AND position <= $2
        AND ($7::text IS NULL OR correlation_id = $7)
        AND ($3::text[] IS NULL OR topic = ANY($3))
        AND ($4::text[] IS NULL OR name = ANY($4))
    ORDER BY stream_version
    LIMIT $5
)
UNION ALL
SELECT
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL, NULL,
    value::bigint
FROM "sillage".meta
WHERE key = 'trimmed_before'
