-- Claims what is absent, so that nobody else makes it: streams ($1), documents ($2 collection, $3
-- id), inbox rows ($4 consumer, $5 source, $6 id).
WITH stream AS (
    INSERT INTO "sillage".streams (name, version)
    SELECT name, 0 FROM unnest($1::text[]) AS wanted (name)
    ON CONFLICT DO NOTHING
    RETURNING name
),
document AS (
    INSERT INTO "sillage".documents (collection, id, version, body)
    SELECT wanted.collection, wanted.id, 0, ''
    FROM (SELECT count(*) FROM stream) AS after_streams,
        unnest($2::text[], $3::text[]) AS wanted (collection, id)
    ON CONFLICT DO NOTHING
    RETURNING collection, id
),
delivery AS (
    INSERT INTO "sillage".inbox (consumer, source, id, decision, at)
    SELECT wanted.consumer, wanted.source, wanted.id, '', 0
    FROM (SELECT count(*) FROM document) AS after_documents,
        unnest($4::text[], $5::text[], $6::text[]) AS wanted (consumer, source, id)
    ON CONFLICT DO NOTHING
    RETURNING consumer, source, id
)
SELECT 1 AS kind, name AS a, NULL AS b, NULL AS c FROM stream
UNION ALL
SELECT 2, collection, id, NULL FROM document
UNION ALL
SELECT 3, consumer, source, id FROM delivery
