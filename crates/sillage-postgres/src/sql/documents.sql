-- Documents of collection $1 with these ids ($2), each looked up by itself: `id = ANY($2)` would read the
-- whole collection wherever the plan was made for an empty table.
SELECT d.id, d.version, d.sort, d.body
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT id, version, sort, body
    FROM "sillage".documents
    WHERE collection = $1 AND id = wanted.id
    LIMIT 1
) AS d
