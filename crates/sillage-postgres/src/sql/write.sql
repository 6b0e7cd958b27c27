-- The third phase: what accepted commits wrote; claims of refused ones are taken back. All rows are there
-- and held by now. Each is looked up by itself: a join might read a whole table, wherever the plan was
-- made for an empty one.
--
-- Streams ($1 name, $2 version; 0: taken back); documents ($3 collection, $4 id, $5 version, $6 sort
-- key, $7 body) and those that go ($8 collection, $9 id); inbox rows ($10 consumer, $11 source, $12
-- id, $13 decision, $14 partition, $15 offset, $16 at) and those that go ($17 consumer, $18 source,
-- $19 id); entries ($20 stream … $34 payload); $35 the log's oid, $36 its sequence.
WITH grown AS (
    INSERT INTO "sillage".streams (name, version)
    SELECT wanted.*
    FROM unnest($1::text[], $2::bigint[]) AS wanted (name, version)
    WHERE wanted.version > 0
    ON CONFLICT (name) DO UPDATE SET version = excluded.version
),
unclaimed AS (
    DELETE FROM "sillage".streams
    WHERE name = ANY (ARRAY(
        SELECT wanted.name
        FROM unnest($1::text[], $2::bigint[]) AS wanted (name, version)
        WHERE wanted.version = 0
    ))
),
put AS (
    INSERT INTO "sillage".documents (collection, id, version, sort, body)
    SELECT wanted.*
    FROM unnest($3::text[], $4::text[], $5::bigint[], $6::text[], $7::bytea[])
        AS wanted (collection, id, version, sort, body)
    ON CONFLICT (collection, id) DO UPDATE
    SET version = excluded.version, sort = excluded.sort, body = excluded.body
),
deleted AS (
    DELETE FROM "sillage".documents
    WHERE ctid = ANY (ARRAY(
        SELECT (
            SELECT d.ctid
            FROM "sillage".documents AS d
            WHERE d.collection = wanted.collection AND d.id = wanted.id
        )
        FROM unnest($8::text[], $9::text[]) AS wanted (collection, id)
    ))
),
decided AS (
    INSERT INTO "sillage".inbox (consumer, source, id, decision, partition, "offset", at)
    SELECT wanted.*
    FROM unnest(
        $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::bigint[]
    ) AS wanted
    ON CONFLICT (consumer, id, source) DO UPDATE SET
        decision = excluded.decision,
        partition = excluded.partition,
        "offset" = excluded."offset",
        at = excluded.at
),
undecided AS (
    DELETE FROM "sillage".inbox
    WHERE ctid = ANY (ARRAY(
        SELECT (
            SELECT i.ctid
            FROM "sillage".inbox AS i
            WHERE i.consumer = wanted.consumer AND i.id = wanted.id AND i.source = wanted.source
        )
        FROM unnest($17::text[], $18::text[], $19::text[]) AS wanted (consumer, source, id)
    ))
),
-- Held until the transaction ends, also if a savepoint is rolled back: then the setting goes too.
noted AS MATERIALIZED (
    SELECT
        nullif(current_setting('sillage.stable', true), '') AS before,
        coalesce(pg_sequence_last_value($36::oid::regclass), 0) AS value
    WHERE cardinality($22::text[]) > 0
),
stable AS MATERIALIZED (
    SELECT
        CASE WHEN before IS NULL THEN set_config('sillage.stable', value::text, true) END,
        CASE WHEN before IS NULL THEN pg_advisory_xact_lock_shared(
            $35::oid::bigint::bit(32)::int, value::bit(32)::int
        ) END
    FROM noted
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
        $20::text[], $21::bigint[], $22::text[], $23::text[], $24::text[], $25::bigint[],
        $26::text[], $27::bytea[], $28::bigint[], $29::text[], $30::text[], $31::text[],
        $32::text[], $33::bytea[], $34::bytea[]
    ) WITH ORDINALITY AS e (
        stream, stream_version, source, id, name, version, topic, key, time,
        correlation_id, causation_id, operation_id, traceparent, headers, payload, place
    )
ORDER BY e.place
RETURNING position
