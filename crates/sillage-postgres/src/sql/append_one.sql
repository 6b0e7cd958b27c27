-- As `append`, of one entry to one stream whose version is expected, and nothing else: an entry by itself
-- takes the server half the time. A message that is in the log violates its index, which leaves nothing
-- either.
--
-- The stream ($1 name, $2 the version it has); the entry ($3 source … $15 payload); $16 the log's oid, $17
-- its sequence.
WITH held AS MATERIALIZED (
    SELECT
    FROM "sillage".streams
    WHERE name = $1::text AND version = $2::bigint
    FOR UPDATE SKIP LOCKED
),
made AS (
    INSERT INTO "sillage".streams (name, version)
    SELECT $1::text, 1
    WHERE $2::bigint = 0
    ON CONFLICT DO NOTHING
    RETURNING name
),
checked AS MATERIALIZED (
    SELECT 1 / CASE
        WHEN $2::bigint = 0 AND EXISTS (SELECT FROM made) THEN 1
        WHEN $2::bigint > 0 AND EXISTS (SELECT FROM held) THEN 1
        ELSE 0
    END AS one
),
stable AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(
        $16::oid::bigint::bit(32)::int,
        (one * coalesce(pg_sequence_last_value($17::oid::regclass), 0))::bit(32)::int
    )
    FROM checked
),
grown AS (
    UPDATE "sillage".streams
    SET version = version + 1
    FROM stable
    WHERE name = $1::text AND $2::bigint > 0
)
INSERT INTO "sillage".log (
    stream, stream_version, source, id, name, version, topic, key, time,
    correlation_id, causation_id, operation_id, traceparent, headers, payload
)
SELECT
    $1::text, $2::bigint + 1, $3::text, $4::text, $5::text, $6::bigint, $7::text, $8::bytea, $9::bigint,
    $10::text, $11::text, $12::text, $13::text, $14::bytea, $15::bytea
FROM stable
RETURNING position
