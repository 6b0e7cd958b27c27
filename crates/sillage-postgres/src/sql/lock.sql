-- The first phase: locks what a batch is about, each kind in the order of its keys, and answers what
-- is there. Rows that others hold are passed over. Also the time, the end of the log, and which
-- messages it has. Documents and inbox rows come in the order of their keys, and each is looked up by
-- itself: a join might read a whole table, wherever the plan was made for an empty one.
--
-- Leases ($1); streams ($2); documents ($3 collection, $4 id); inbox rows ($5 consumer, $6 source,
-- $7 id); messages ($8 source, $9 id); $10 the log's sequence.
WITH lease AS (
    SELECT name, epoch
    FROM "sillage".leases
    WHERE name = ANY($1)
    ORDER BY name
    FOR KEY SHARE SKIP LOCKED
),
stream AS (
    SELECT name, version
    FROM "sillage".streams
    WHERE name = ANY($2)
    ORDER BY name
    FOR UPDATE SKIP LOCKED
),
document AS (
    SELECT wanted.collection, wanted.id, found.version, found.sort
    FROM unnest($3::text[], $4::text[]) AS wanted (collection, id),
        LATERAL (
            SELECT d.version, d.sort
            FROM "sillage".documents AS d
            WHERE d.collection = wanted.collection AND d.id = wanted.id
            FOR UPDATE SKIP LOCKED
        ) AS found
),
delivery AS (
    SELECT
        wanted.consumer, wanted.source, wanted.id, found.decision, found.partition, found."offset"
    FROM unnest($5::text[], $6::text[], $7::text[]) AS wanted (consumer, source, id),
        LATERAL (
            SELECT i.decision, i.partition, i."offset"
            FROM "sillage".inbox AS i
            WHERE i.consumer = wanted.consumer AND i.id = wanted.id AND i.source = wanted.source
            FOR UPDATE SKIP LOCKED
        ) AS found
)
SELECT 0 AS kind, name AS a, NULL AS b, NULL AS c, NULL AS word, NULL AS text, epoch AS number
FROM lease
UNION ALL
SELECT 1, name, NULL, NULL, NULL, NULL, version FROM stream
UNION ALL
SELECT 2, collection, id, NULL, NULL, sort, version FROM document
UNION ALL
SELECT 3, consumer, source, id, decision, partition, "offset" FROM delivery
UNION ALL
SELECT 4, wanted.source, wanted.id, NULL, NULL, NULL, NULL
FROM unnest($8::text[], $9::text[]) AS wanted (source, id)
WHERE (
    SELECT l.id
    FROM "sillage".log AS l
    WHERE l.id = wanted.id AND l.source = wanted.source
) IS NOT NULL
UNION ALL
SELECT 5, NULL, NULL, NULL, NULL, NULL, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
UNION ALL
SELECT 6, NULL, NULL, NULL, NULL, NULL, coalesce(pg_sequence_last_value($10::oid::regclass), 0)
UNION ALL
SELECT 7, name, NULL, NULL, NULL, NULL, NULL FROM "sillage".leases WHERE name = ANY($1)
