-- As `log`, and until their payloads have $6 bytes: one at least.
-- With them one row more, which has no position: its last column is up to where entries without a stream
-- are gone, as the rest was read.
(
    SELECT
        position, stream, stream_version, source, id, name, version, topic, key, time,
        correlation_id, causation_id, operation_id, traceparent, headers, payload,
        NULL::bigint AS trimmed_before
    FROM (
        SELECT
            *,
            sum(octet_length(payload)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS bytes
        FROM "sillage".log
        WHERE position > $1 AND position <= $2
            AND ($3::text[] IS NULL OR topic = ANY($3))
            AND ($4::text[] IS NULL OR name = ANY($4))
    ) AS sized
    WHERE bytes - octet_length(payload) < $6
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
