-- Claims what is absent, so that nobody else makes it: streams ($1), documents ($2 collection, $3
-- id; with $4 version, $5 sort key and $6 body if it is known what they will be), inbox rows ($7
-- consumer, $8 source, $9 id). A row that is there, and that somebody is changing, would be waited for: it
-- is left out, and missed.
WITH stream AS (
    INSERT INTO "sillage".streams (name, version)
    SELECT wanted.name, 0
    FROM unnest($1::text[]) AS wanted (name)
    WHERE (SELECT s.version FROM "sillage".streams AS s WHERE s.name = wanted.name) IS NULL
    ON CONFLICT DO NOTHING
    RETURNING name
),
document AS (
    INSERT INTO "sillage".documents (collection, id, version, sort, body)
    SELECT wanted.*
    FROM (SELECT count(*) FROM stream) AS after_streams,
        unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::bytea[])
            AS wanted (collection, id, version, sort, body)
    WHERE (
        SELECT d.version
        FROM "sillage".documents AS d
        WHERE d.collection = wanted.collection AND d.id = wanted.id
    ) IS NULL
    ON CONFLICT DO NOTHING
    RETURNING collection, id, version
),
delivery AS (
    INSERT INTO "sillage".inbox (consumer, source, id, decision, at)
    SELECT wanted.consumer, wanted.source, wanted.id, '', 0
    FROM (SELECT count(*) FROM document) AS after_documents,
        unnest($7::text[], $8::text[], $9::text[]) AS wanted (consumer, source, id)
    WHERE (
        SELECT i.at
        FROM "sillage".inbox AS i
        WHERE i.consumer = wanted.consumer AND i.id = wanted.id AND i.source = wanted.source
    ) IS NULL
    ON CONFLICT DO NOTHING
    RETURNING consumer, source, id
)
SELECT 1 AS kind, name AS a, NULL AS b, NULL AS c, NULL AS version FROM stream
UNION ALL
SELECT 2, collection, id, NULL, version FROM document
UNION ALL
SELECT 3, consumer, source, id, NULL FROM delivery
