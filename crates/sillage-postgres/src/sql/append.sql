-- What is common without documents: as `common`, and the shorter statement.
--
-- Leases ($1 name, $2 epoch); streams ($3 name, $4 the version they have, $5 the version they get);
-- inbox rows ($6 consumer, $7 source, $8 id, $9 decision, $10 partition, $11 offset); entries ($12
-- stream … $26 payload); $27 the log's oid, $28 its sequence.
WITH lease AS MATERIALIZED (
    SELECT wanted.name
    FROM unnest($1::text[], $2::bigint[]) AS wanted (name, epoch),
        LATERAL (
            SELECT
            FROM "sillage".leases AS l
            WHERE l.name = wanted.name AND l.epoch = wanted.epoch
            FOR KEY SHARE SKIP LOCKED
        ) AS found
),
held AS MATERIALIZED (
    SELECT wanted.name
    FROM (SELECT count(*) FROM lease) AS after_leases,
        unnest($3::text[], $4::bigint[]) AS wanted (name, version),
        LATERAL (
            SELECT
            FROM "sillage".streams AS s
            WHERE s.name = wanted.name AND s.version = wanted.version
            FOR UPDATE SKIP LOCKED
        ) AS found
    WHERE wanted.version > 0
),
made AS (
    INSERT INTO "sillage".streams (name, version)
    SELECT wanted.name, wanted.next
    FROM (SELECT count(*) FROM held) AS after_held,
        unnest($3::text[], $4::bigint[], $5::bigint[]) AS wanted (name, version, next)
    WHERE wanted.version = 0
    ON CONFLICT DO NOTHING
    RETURNING name
),
decided AS (
    INSERT INTO "sillage".inbox (consumer, source, id, decision, partition, "offset", at)
    SELECT wanted.*, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    FROM (SELECT count(*) FROM made) AS after_streams,
        unnest($6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[]) AS wanted
    ON CONFLICT DO NOTHING
    RETURNING id
),
known AS MATERIALIZED (
    SELECT
    FROM unnest($14::text[], $15::text[]) AS wanted (source, id)
    WHERE (
        SELECT l.id
        FROM "sillage".log AS l
        WHERE l.id = wanted.id AND l.source = wanted.source
    ) IS NOT NULL
),
checked AS MATERIALIZED (
    SELECT 1 / CASE
        WHEN (SELECT count(*) FROM lease) = cardinality($1)
            AND (SELECT count(*) FROM held) + (SELECT count(*) FROM made) = cardinality($3)
            AND (SELECT count(*) FROM decided) = cardinality($6)
            AND NOT EXISTS (SELECT FROM known)
        THEN 1
        ELSE 0
    END AS one
),
stable AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(
        $27::oid::bigint::bit(32)::int,
        (one * coalesce(pg_sequence_last_value($28::oid::regclass), 0))::bit(32)::int
    )
    FROM checked
),
grown AS (
    INSERT INTO "sillage".streams (name, version)
    SELECT wanted.name, wanted.next
    FROM stable, unnest($3::text[], $4::bigint[], $5::bigint[]) AS wanted (name, version, next)
    WHERE wanted.version > 0
    ON CONFLICT (name) DO UPDATE SET version = excluded.version
)
INSERT INTO "sillage".log (
    stream, stream_version, source, id, name, version, topic, key, time,
    correlation_id, causation_id, operation_id, traceparent, headers, payload
)
SELECT
    e.stream, e.stream_version, e.source, e.id, e.name, e.version, e.topic, e.key, e.time,
    e.correlation_id, e.causation_id, e.operation_id, e.traceparent, e.headers, e.payload
FROM stable,
    unnest(
        $12::text[], $13::bigint[], $14::text[], $15::text[], $16::text[], $17::bigint[],
        $18::text[], $19::bytea[], $20::bigint[], $21::text[], $22::text[], $23::text[],
        $24::text[], $25::bytea[], $26::bytea[]
    ) WITH ORDINALITY AS e (
        stream, stream_version, source, id, name, version, topic, key, time,
        correlation_id, causation_id, operation_id, traceparent, headers, payload, place
    )
ORDER BY e.place
RETURNING position
