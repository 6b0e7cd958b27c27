-- What consumer $1 decided about each ($2 source, $3 id).
SELECT i.source, i.id, i.decision
FROM unnest($2::text[], $3::text[]) AS wanted (source, id)
JOIN "sillage".inbox AS i
    ON i.consumer = $1 AND i.id = wanted.id AND i.source = wanted.source
