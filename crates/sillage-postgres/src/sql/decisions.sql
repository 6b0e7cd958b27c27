-- What consumer $1 decided about each ($2 source, $3 id), each looked up by itself.
SELECT i.source, i.id, i.decision
FROM unnest($2::text[], $3::text[]) AS wanted (source, id)
CROSS JOIN LATERAL (
    SELECT source, id, decision
    FROM "sillage".inbox
    WHERE consumer = $1 AND id = wanted.id AND source = wanted.source
    LIMIT 1
) AS i
