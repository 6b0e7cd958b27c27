-- Entries of stream $1 after version $2, at most $3. One row at least where the stream is there: the
-- last column is its version.
SELECT l.*, s.version
FROM "sillage".streams AS s
LEFT JOIN LATERAL (
    SELECT
        position, stream, stream_version, source, id, name, version, topic, key, time,
        correlation_id, causation_id, operation_id, traceparent, headers, payload
    FROM "sillage".log
    WHERE stream = $1 AND stream_version > $2
    ORDER BY stream_version
    LIMIT $3
) AS l ON true
WHERE s.name = $1
ORDER BY l.stream_version
