-- Entries of stream $1 after version $2, at most $3.
SELECT
    position, stream, stream_version, source, id, name, version, topic, key, time,
    correlation_id, causation_id, operation_id, traceparent, headers, payload
FROM "sillage".log
WHERE stream = $1 AND stream_version > $2
ORDER BY stream_version
LIMIT $3
