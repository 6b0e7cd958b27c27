-- Which messages ($1 source, $2 id) are in the log.
SELECT wanted.source, wanted.id
FROM unnest($1::text[], $2::text[]) AS wanted (source, id)
WHERE (
    SELECT l.id
    FROM "sillage".log AS l
    WHERE l.id = wanted.id AND l.source = wanted.source
) IS NOT NULL
