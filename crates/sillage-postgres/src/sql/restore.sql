-- Puts entries back where they were: $1 position, $2 stream … $16 payload.
INSERT INTO "sillage".log (
    position, stream, stream_version, source, id, name, version, topic, key, time,
    correlation_id, causation_id, operation_id, traceparent, headers, payload
)
SELECT *
FROM unnest(
    $1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[],
    $8::text[], $9::bytea[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::text[],
    $15::bytea[], $16::bytea[]
)
