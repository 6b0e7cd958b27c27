INSERT INTO log (
    source, id, name, version, topic, key, stream_id, stream_version, time,
    correlation_id, causation_id, operation_id, traceparent, headers, payload, position
)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
