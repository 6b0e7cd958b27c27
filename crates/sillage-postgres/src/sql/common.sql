-- The common shape in one round trip: what is expected of leases, streams, documents and deliveries,
-- and what is written. What does not match, or is held by others, divides by zero: the statement
-- leaves nothing, and the batch goes through its phases. Every row is looked up by itself: a join might
-- read a whole table, wherever the plan was made for an empty one.
--
-- Leases ($1 name, $2 epoch); streams ($3 name, $4 the version they have, $5 the version they get);
-- inbox rows ($6 consumer, $7 source, $8 id, $9 decision, $10 partition, $11 offset); documents ($12
-- collection, $13 id, $14 the version they have, NULL: any, $15 how often they are put, 0: they stay as
-- they are, one that is absent by a row that its trigger takes back, -1: they go,
-- $16 sort key, $17 or how many microseconds from now it is, at most until the last time there is,
-- $18 body); up to where inbox rows go ($19 consumer, $20 partition, $21 offset); entries ($22 stream …
-- $36 payload); $37 the log's oid, $38 its sequence.
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
document AS MATERIALIZED (
    SELECT wanted.*, found.ctid AS at
    FROM (SELECT count(*) FROM made) AS after_streams,
        unnest(
            $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::text[], $17::bigint[], $18::bytea[]
        ) WITH ORDINALITY AS wanted (collection, id, version, puts, sort, delay, body, place),
        LATERAL (
            SELECT d.version, d.ctid
            FROM "sillage".documents AS d
            WHERE d.collection = wanted.collection AND d.id = wanted.id
            FOR UPDATE SKIP LOCKED
        ) AS found
    WHERE wanted.version IS NULL OR wanted.version = found.version
),
new AS (
    INSERT INTO "sillage".documents (collection, id, version, sort, body)
    SELECT
        wanted.collection,
        wanted.id,
        CASE WHEN wanted.puts > 0 THEN wanted.puts ELSE -1 END,
        coalesce(wanted.sort, to_char(
            (
                least(
                    clock_timestamp(),
                    timestamptz '9999-12-30 21:59:59.999999Z' - wanted.delay * interval '1 microsecond'
                ) + wanted.delay * interval '1 microsecond'
            ) AT TIME ZONE 'UTC',
            'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
        )),
        wanted.body
    FROM (SELECT count(*) FROM document) AS after_documents,
        unnest(
            $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::text[], $17::bigint[], $18::bytea[]
        ) WITH ORDINALITY AS wanted (collection, id, version, puts, sort, delay, body, place)
    WHERE (wanted.puts > 0 AND wanted.version IS NULL OR wanted.puts >= 0 AND wanted.version = 0)
        AND wanted.place NOT IN (SELECT place FROM document)
    ON CONFLICT DO NOTHING
    RETURNING id
),
decided AS (
    INSERT INTO "sillage".inbox (consumer, source, id, decision, partition, "offset", at)
    SELECT wanted.*, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    FROM (SELECT count(*) FROM new) AS after_documents,
        unnest($6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[])
            AS wanted
    ON CONFLICT DO NOTHING
    RETURNING id
),
absent AS MATERIALIZED (
    SELECT
    FROM unnest($12::text[], $13::text[], $14::bigint[], $15::bigint[])
        AS wanted (collection, id, version, puts)
    WHERE -1 = ANY ($15)
        AND wanted.puts < 0
        AND wanted.version IS NULL
        AND (
            SELECT d.version
            FROM "sillage".documents AS d
            WHERE d.collection = wanted.collection AND d.id = wanted.id
        ) IS NULL
),
known AS MATERIALIZED (
    SELECT
    FROM unnest($24::text[], $25::text[]) AS wanted (source, id)
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
            AND (SELECT count(*) FROM document) + (SELECT count(*) FROM new)
                + (SELECT count(*) FROM absent) = cardinality($12)
            AND (SELECT count(*) FROM decided) = cardinality($6)
            AND NOT EXISTS (SELECT FROM known)
        THEN 1
        ELSE 0
    END AS one
),
stable AS MATERIALIZED (
    SELECT
        head,
        CASE WHEN cardinality($25::text[]) > 0 THEN pg_advisory_xact_lock_shared(
            $37::oid::bigint::bit(32)::int, head::bit(32)::int
        ) END
    FROM (
        SELECT one * coalesce(pg_sequence_last_value($38::oid::regclass), 0) AS head FROM checked
    ) AS now
),
grown AS (
    INSERT INTO "sillage".streams (name, version)
    SELECT wanted.name, wanted.next
    FROM stable, unnest($3::text[], $4::bigint[], $5::bigint[]) AS wanted (name, version, next)
    WHERE wanted.version > 0
    ON CONFLICT (name) DO UPDATE SET version = excluded.version
),
-- They are there, and held.
put AS (
    INSERT INTO "sillage".documents AS d (collection, id, version, sort, body)
    SELECT
        document.collection,
        document.id,
        document.puts,
        coalesce(document.sort, to_char(
            (
                least(
                    clock_timestamp(),
                    timestamptz '9999-12-30 21:59:59.999999Z' - document.delay * interval '1 microsecond'
                ) + document.delay * interval '1 microsecond'
            ) AT TIME ZONE 'UTC',
            'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
        )),
        document.body
    FROM stable, document
    WHERE document.puts > 0
    ON CONFLICT (collection, id) DO UPDATE
    SET version = d.version + excluded.version, sort = excluded.sort, body = excluded.body
),
gone AS (
    DELETE FROM "sillage".documents
    WHERE ctid = ANY (ARRAY(SELECT document.at FROM stable, document WHERE document.puts < 0))
    RETURNING id
),
forgotten AS (
    DELETE FROM "sillage".inbox
    WHERE ctid = ANY (ARRAY(
        SELECT found.ctid
        FROM unnest($19::text[], $20::text[], $21::bigint[])
                AS wanted (consumer, partition, through),
            LATERAL (
                SELECT i.ctid
                FROM "sillage".inbox AS i
                WHERE i.consumer = wanted.consumer
                    AND i.partition = wanted.partition
                    AND i."offset" <= wanted.through
                FOR UPDATE SKIP LOCKED
            ) AS found
    ))
),
appended AS (
    INSERT INTO "sillage".log (
        stream, stream_version, source, id, name, version, topic, key, time,
        correlation_id, causation_id, operation_id, traceparent, headers, payload
    )
    SELECT
        e.stream, e.stream_version, e.source, e.id, e.name, e.version, e.topic, e.key, e.time,
        e.correlation_id, e.causation_id, e.operation_id, e.traceparent, e.headers, e.payload
    FROM stable,
        unnest(
            $22::text[], $23::bigint[], $24::text[], $25::text[], $26::text[], $27::bigint[],
            $28::text[], $29::bytea[], $30::bigint[], $31::text[], $32::text[], $33::text[],
            $34::text[], $35::bytea[], $36::bytea[]
        ) WITH ORDINALITY AS e (
            stream, stream_version, source, id, name, version, topic, key, time,
            correlation_id, causation_id, operation_id, traceparent, headers, payload, place
        )
    ORDER BY e.place
    RETURNING position
)
SELECT appended.position, stable.head
FROM stable LEFT JOIN appended ON true
-- One that somebody wrote since this statement began is held where it is now, and not seen there.
WHERE 1 / CASE
    WHEN (SELECT count(*) FROM gone) = (SELECT count(*) FROM document WHERE puts < 0) THEN 1
    ELSE 0
END = 1
